"""The recipe of adaptive_lm."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator
from torch import nn

from ourospec.data.tokenizers import Tokenizer
from ourospec.families.adaptive_lm.model import AdaptiveConfig, AdaptiveLM
from ourospec.families.adaptive_lm.objective import AdaptiveObjective, DepthObjective
from ourospec.families.vocabulary import token_pieces, vocabulary_rows
from ourospec.nn.next_token import NextToken
from ourospec.recipe import TextRecipe


class AdaptiveRecipe(TextRecipe):
    """Everything that decides a run of adaptive_lm."""

    family: Literal["adaptive_lm"] = "adaptive_lm"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Name of the model family."""
    model: AdaptiveConfig = AdaptiveConfig()
    """The shape of the model."""
    objective: DepthObjective = DepthObjective()
    """How depth is trained."""

    @model_validator(mode="after")
    def _possible_market(self) -> AdaptiveRecipe:
        depth, price, credit = self.model.depth, self.objective.price, self.objective.credit
        gated = depth.halting != "fixed" and depth.max_passes > 1
        if not gated or self.objective.schedule.hard_kill:
            return self
        if price.kind != "constant" and not 1 < price.target < depth.max_passes:
            raise ValueError(
                f"objective.price.target is {price.target:g}; with model.depth.max_passes {depth.max_passes} a mean "
                f"depth between 1 and {depth.max_passes} can be held (a fixed depth: model.depth.halting fixed)"
            )
        if credit.kind != "gain" and depth.weight == "full":
            raise ValueError(
                f"objective.credit {credit.kind} teaches the gates through the survival: set model.depth.weight "
                "survival"
            )
        measures = credit.kind == "gain" or (credit.kind == "coupon" and credit.reference == "one_pass")
        if measures and not self.objective.watched_share:
            raise ValueError(
                f"objective.credit {credit.kind} needs rows to measure on: set objective.watched_share above 0"
            )
        if credit.kind == "gain" and self.objective.schedule.threshold_until:
            raise ValueError(
                "objective.credit gain has the price set the threshold: leave objective.schedule.threshold_until at 0"
            )
        if price.kind == "quota" and credit.kind != "none":
            raise ValueError(
                "objective.price quota has nothing billed and no price to compare gains with: set objective.credit none"
            )
        if credit.kind == "gain" and price.kind == "legacy":
            raise ValueError(
                "objective.price legacy bills soft depth in the loss: set objective.credit coupon"
            )
        return self

    def build_model(self, tokenizer: Tokenizer) -> nn.Module:
        rows = vocabulary_rows(self.model.vocab_size, tokenizer)
        return AdaptiveLM(self.model, rows, token_pieces(tokenizer))

    def build_objective(self) -> NextToken:
        return AdaptiveObjective(self.objective, self.model.depth, self.model.layers)
