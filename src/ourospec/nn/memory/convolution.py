"""A short causal convolution: what a token writes and asks may also be of the few tokens before it.

Letters: B rows, T positions, N features, R taps; b rows of a table, 1 where all rows are alike.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class ShortConvolution(nn.Module):
    """x_t ← Σ_{i<R} w_i ⊙ x_{t−i}, over the positions of one document that count; R·N parameters.

    Gated DeltaNet (arXiv 2412.06464) and Titans (arXiv 2501.00663, section 4.4) have it on keys, values and queries:
    a value can then be kept under the key that stood right before it, without attention having to bring the two
    together first. Each feature has a filter of its own: no product of matrices.
    """

    def __init__(self, features: int, taps: int) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.zeros(taps, features))

    def init_parameters(self) -> None:
        """Called by nn.init: the token itself, and a little of those before."""
        self.filter.normal_(std=0.3)
        self.filter[0] = 1.0

    def forward(
        self,
        x: Float[Tensor, "B T N"],
        recent: Float[Tensor, "B before N"],
        segments: Int[Tensor, "b T"] | None,
        counted: Bool[Tensor, "B T"] | None,
    ) -> tuple[Float[Tensor, "B T N"], Float[Tensor, "B before N"]]:
        """The sums, and the last R − 1 inputs.

        Args:
            recent: those of before, zeros where the document had not begun.
            segments: numbers that rise where a document begins, 0 in that of `recent`; None: no other begins.
        """
        length, before = x.shape[1], recent.shape[1]
        known = torch.cat([recent, x], dim=1)
        numbers = None
        if segments is not None:
            segments = segments.expand(len(x), -1)
            numbers = torch.cat([torch.zeros_like(segments[:, :1]).expand(-1, before), segments], dim=1)
        places, ends = None, torch.full((len(x), 1), length, device=x.device)
        if counted is not None:
            # What counts side by side, and how much of it stands before each position.
            order = F.pad((~counted).long(), (before, 0)).argsort(dim=1, stable=True)
            known, numbers = _take(known, order), None if numbers is None else numbers.gather(1, order)
            ends = counted.sum(1, keepdim=True)
            places = before + counted.cumsum(1) - counted.long()
        out = self.filter[0] * x
        for lag in range(1, before + 1):
            there = slice(before - lag, before - lag + length)
            seen = known[:, there] if places is None else _take(known, places - lag)
            weight = self.filter[lag]
            if numbers is not None and segments is not None:
                then = numbers[:, there] if places is None else numbers.gather(1, places - lag)
                weight = weight * (then == segments)[..., None]
            out = torch.addcmul(out, weight, seen)
        last = ends + torch.arange(before, device=x.device)
        recent = _take(known, last)
        if numbers is not None:
            recent = recent * (numbers.gather(1, last) == numbers.gather(1, ends + before - 1))[..., None]
        return out, recent


def _take(x: Tensor, index: Tensor) -> Tensor:
    """x [B, T, N] at positions [B, any]."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))
