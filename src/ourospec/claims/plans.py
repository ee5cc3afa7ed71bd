"""Depths that are dealt out without looking at the tokens: the controls of a claim about choosing them.

Letters: B rows, T positions, L layers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ourospec.contracts import Effort, Output
from ourospec.nn.cost import ModelCost

Deal = Callable[[Tensor], Tensor]
"""From passes [L, T] of one document to a plan of the same shape and the same sum in each layer."""


class PlannedModel(nn.Module):
    """A language model whose passes are first chosen by its policy and then dealt out anew.

    Every row has to be one document without padding, so that nothing is dealt to positions that are not scored.
    """

    def __init__(self, model: Any, policy: Effort | None, deal: Deal) -> None:
        super().__init__()
        self.model, self.policy, self.deal = model, policy, deal
        self.max_length: int = model.max_length

    def forward(
        self, tokens: Tensor, documents: Tensor | None = None, cache: Any = None, effort: Effort | None = None
    ) -> Output:
        """As contracts.LanguageModel, without a cache; the effort is the policy's."""
        del effort
        if cache is not None:
            raise ValueError("depths are dealt out over whole documents, not position by position")
        chosen = self.model(tokens, documents, effort=self.policy).passes
        plan = torch.stack([self.deal(row) for row in chosen.unbind(1)], dim=1)
        return self.model(tokens, documents, effort=Effort(plan=plan))

    def logits(self, states: Tensor) -> Tensor:
        """The model's."""
        return self.model.logits(states)

    def cost(self, context: float) -> ModelCost:
        """The model's."""
        return self.model.cost(context)


def shuffling(seed: int) -> Deal:
    """Each token gets the depths, in all layers, of another one at random."""
    generator = torch.Generator().manual_seed(seed)

    def deal(passes: Tensor) -> Tensor:
        order = torch.randperm(passes.shape[1], generator=generator)
        return passes[:, order.to(passes.device)]

    return deal


def evenly(passes: Tensor) -> Tensor:
    """Each layer's passes at even distances: token t gets ⌊S(t + 1)/T⌋ − ⌊S·t/T⌋ of the layer's sum S."""
    length = passes.shape[1]
    total = passes.sum(1, keepdim=True)
    ends = torch.arange(length + 1, device=passes.device) * total // length
    return ends[:, 1:] - ends[:, :-1]
