"""What a layer tells of its passes. Letters: B rows, T positions, D width."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ourospec.nn.ledger import Ledger


class LayerTrace(NamedTuple):
    """What happened in one layer; the survival and the gates carry gradients.

    A token ran pass k (from 1) where passes >= k; what is said of a pass holds for those tokens alone.
    """

    passes: Tensor
    """[B, T] integers, passes really run."""
    wanted: Tensor
    """[B, T] integers, passes that the gates asked for: without forcing, exploration and audits."""
    survival: tuple[Tensor, ...]
    """[B, T] for each pass run, the survival with which tokens entered it, 0 for those that had left."""
    gates: tuple[Tensor, ...]
    """[B, T] for each gate asked, its probability after clamping and before forcing, 0 of those who had left."""
    bids: tuple[Tensor, ...] = ()
    """[B, T] for each gate asked, its logit before clamping."""
    relative: tuple[Tensor, ...] = ()
    """While training, [B, T] for each pass run: ‖dh‖/‖h‖ of its scaled update, at most 10."""
    first: Tensor | None = None
    """While training, [B, T, D]: the state after the first pass, detached."""
    entropy: Tensor | None = None
    """[rows, T], normalised entropy of the first pass's attention, of the watched rows."""

    @property
    def expected_passes(self) -> Float[Tensor, "B T"]:
        """The soft depth: the sum of the survival over passes."""
        return torch.stack(self.survival).sum(0)

    @property
    def priced_passes(self) -> Float[Tensor, "B T"]:
        """The executed depth, with the gradient of the soft one: what a price bills."""
        soft = self.expected_passes
        return soft + (self.passes - soft).detach()


class Record:
    """What a layer notes down while it runs, for its trace."""

    def __init__(self) -> None:
        self.gates: list[Tensor] = []
        self.bids: list[Tensor] = []
        self.relative: list[Tensor] = []
        self.losses: list[Tensor] = []
        self.first: Tensor | None = None
        self.entropy: Tensor | None = None

    def trace(self, ledger: Ledger) -> LayerTrace:
        return LayerTrace(
            ledger.passes,
            ledger.wanted,
            tuple(ledger.survival),
            tuple(self.gates),
            tuple(self.bids),
            tuple(self.relative),
            self.first,
            self.entropy,
        )
