"""The recipe of recursive_lm."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator
from torch import nn

from ourospec.data.tokenizers import Tokenizer
from ourospec.families.recursive_lm.model import RecursiveConfig, RecursiveLM
from ourospec.families.recursive_lm.objective import RecursiveObjective, RecursiveObjectiveConfig
from ourospec.families.vocabulary import token_pieces, vocabulary_rows
from ourospec.nn.next_token import NextToken
from ourospec.recipe import TextRecipe


class RecursiveRecipe(TextRecipe):
    """Everything that decides a run of recursive_lm."""

    family: Literal["recursive_lm"] = "recursive_lm"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Name of the model family."""
    model: RecursiveConfig = RecursiveConfig()
    """The shape of the model."""
    objective: RecursiveObjectiveConfig = RecursiveObjectiveConfig()
    """How the recursion is trained."""

    @model_validator(mode="after")
    def _one_weight_per_answer(self) -> Self:
        weights, steps = self.objective.step_weights, self.model.recursion.steps
        if weights and (len(weights) != steps + 1 or not weights[-1]):
            raise ValueError(
                f"objective.step_weights needs {steps + 1} numbers, one for the answer before the first of "
                f"{steps} steps and one for each step, the last above 0; it has {len(weights)}"
            )
        return self

    def build_model(self, tokenizer: Tokenizer) -> nn.Module:
        rows = vocabulary_rows(self.model.vocab_size, tokenizer)
        return RecursiveLM(self.model, rows, token_pieces(tokenizer))

    def build_objective(self) -> NextToken:
        return RecursiveObjective(self.objective, self.model.recursion)
