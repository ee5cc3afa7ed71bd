"""Who is still in a layer, with what survival. Letters: B rows, T positions; `s` is a token's survival."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Ledger:
    """Who is alive, with what survival `s`, and how many passes each has run. All [B, T]."""

    def __init__(self, h: Float[Tensor, "B T D"], threshold: float) -> None:
        self.threshold = threshold
        self.s = torch.ones(h.shape[:2], device=h.device, dtype=torch.promote_types(h.dtype, torch.float32))
        self.alive = torch.ones_like(self.s, dtype=torch.bool)
        self.passes = torch.zeros_like(self.s, dtype=torch.long)
        self.wanted = self.passes
        self.survival: list[Tensor] = []
        self._favoured: Tensor | None = None

    def enter(self, dead_too: bool) -> Float[Tensor, "B T"]:
        """A pass begins; the survival with which each token enters it."""
        entering = self.s if dead_too else self.s * self.alive
        self.survival.append(entering)
        self.passes = self.passes + self.alive
        wanting = self.alive & (self.s >= self.threshold)
        self.wanted = self.wanted + (wanting if self._favoured is None else wanting & ~self._favoured)
        return entering

    def stay(self, p: Float[Tensor, "B T"]) -> None:
        """Nobody leaves, by force: s keeps its value and takes the gradient of s·p, so that the gates can learn."""
        self.s = self.s * (1 + (p - p.detach()))

    def leave(self, p: Float[Tensor, "B T"], exploration: float, audited: bool) -> None:
        """s ← s·p, and those under the threshold leave.

        Of these, the share `exploration` stays for one more pass; where the layer is audited all do, once, with the
        survival that they came with.
        """
        before, self.s = self.s, self.s * p
        stays = self.s >= self.threshold
        if audited:
            given = torch.zeros_like(stays) if self._favoured is None else self._favoured
            favour = self.alive & ~stays & ~given
            self.s = torch.where(favour, before, self.s)
            # Who was favoured once leaves now, whatever its survival was left at.
            stays, self._favoured = (stays & ~given) | favour, given | favour
        elif exploration:
            stays = stays | (torch.rand_like(self.s) < exploration)
        self.alive = self.alive & stays

    def follow(self, plan: Int[Tensor, "B T"], p: Float[Tensor, "B T"] | None) -> None:
        """Those leave whose planned passes are run; s ← s·p where gates weigh."""
        if p is not None:
            self.s = self.s * p
        self.alive = self.alive & (plan > self.passes)

    def remaining(self) -> tuple[int, int]:
        """See the function."""
        return remaining(self.alive)


def remaining(alive: Bool[Tensor, "B T"]) -> tuple[int, int]:
    """Tokens that are alive, and how many of them the row has that has most; waits for the device once."""
    counts = alive.sum(1)
    total, most = torch.stack([counts.sum(), counts.max()]).tolist()
    return total, most
