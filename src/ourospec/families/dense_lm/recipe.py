"""The recipe of dense_lm."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ourospec.data.tokenizers import Tokenizer
from ourospec.families.dense_lm.model import DenseConfig, DenseLM
from ourospec.families.vocabulary import token_pieces, vocabulary_rows
from ourospec.nn.next_token import NextToken
from ourospec.recipe import TextRecipe


class DenseRecipe(TextRecipe):
    """Everything that decides a run of dense_lm."""

    family: Literal["dense_lm"] = "dense_lm"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Name of the model family."""
    model: DenseConfig = DenseConfig()
    """The shape of the model."""

    def build_model(self, tokenizer: Tokenizer) -> nn.Module:
        rows = vocabulary_rows(self.model.vocab_size, tokenizer)
        return DenseLM(self.model, rows, token_pieces(tokenizer))

    def build_objective(self) -> NextToken:
        return NextToken()
