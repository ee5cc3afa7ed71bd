"""The recipe of adaptive_lm."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ourospec.data.tokenizers import Tokenizer
from ourospec.families.adaptive_lm.model import AdaptiveConfig, AdaptiveLM
from ourospec.families.adaptive_lm.objective import AdaptiveObjective, DepthObjective
from ourospec.nn.next_token import NextToken
from ourospec.recipe import TextRecipe, token_pieces, vocabulary_rows


class AdaptiveRecipe(TextRecipe):
    """Everything that decides a run of adaptive_lm."""

    family: Literal["adaptive_lm"] = "adaptive_lm"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Name of the model family."""
    model: AdaptiveConfig = AdaptiveConfig()
    """The shape of the model."""
    objective: DepthObjective = DepthObjective()
    """How depth is trained."""

    def build_model(self, tokenizer: Tokenizer) -> nn.Module:
        rows = vocabulary_rows(self.model.vocab_size, tokenizer)
        return AdaptiveLM(self.model, rows, token_pieces(tokenizer))

    def build_objective(self) -> NextToken:
        return AdaptiveObjective(self.objective, self.model.depth, self.model.layers)
