"""A sequence cut into chunks: who continues whom, and how much is left of what was.

Letters: B rows, T positions, N chunks, C places of a chunk, b or c rows of a table: 1 where all rows are alike. The 1
before the chunks is where a table of gates has its heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ourospec.nn.memory.state import MemoryState


class Kinship(NamedTuple):
    """Which places of a chunk belong to one document, each within the chunk and with what came in.

    With documents every entry can be false; without, only the causal rule is left.
    """

    same: Bool[Tensor, "b 1 N C C"]
    """Whether place t (row) may see place s (column): not after it, and in its document."""
    continues: Bool[Tensor, "b 1 N C"]
    """Whether place t is in the document that the chunk before ended in."""


@dataclass(frozen=True)
class Chunks:
    """T positions as N chunks of C, the last filled up with places that do not count.

    Args:
        segments: [b, N, C] integers that rise where a document begins, 0 in the document of the incoming state.
        counted: [c, 1, N, C].
        document: [B], of each row after its last position.
    """

    length: int
    size: int
    segments: Int[Tensor, "b N C"]
    counted: Bool[Tensor, "c 1 N C"]
    document: Int[Tensor, " B"]

    @property
    def number(self) -> int:
        """N."""
        return self.segments.shape[1]

    def cut(self, x: Float[Tensor, "B T *rest"]) -> Float[Tensor, "B N C *rest"]:
        """Positions into chunks; places that are filled up hold zeros."""
        spare = self.number * self.size - self.length
        if spare:
            x = F.pad(x, (*[0, 0] * (x.dim() - 2), 0, spare))
        return x.unflatten(1, (self.number, self.size))

    def uncut(self, x: Float[Tensor, "B N C *rest"]) -> Float[Tensor, "B T *rest"]:
        """Back again."""
        return x.flatten(1, 2)[:, : self.length]

    def by_position(self) -> Int[Tensor, "b T"]:
        """The segments of all positions."""
        return self.segments.flatten(1)[:, : self.length]

    def kinship(self) -> Kinship:
        """Within the chunks."""
        ends = self.segments[:, :, -1]
        before = torch.cat([torch.zeros_like(ends[:, :1]), ends[:, :-1]], dim=1)
        return Kinship(kin(self.segments)[:, None], (self.segments == before[..., None])[:, None])


def cut_into_chunks(
    y: Float[Tensor, "B T D"],
    size: int,
    state: MemoryState,
    documents: Int[Tensor, "B T"] | None,
    counted: Bool[Tensor, "B T"] | None,
) -> Chunks:
    """Chunks of at most `size` places, as even as they can be."""
    length = y.shape[1]
    number = max(1, -(-length // size))
    size = -(-length // number)
    numbers, document = torch.zeros(1, length, dtype=torch.long, device=y.device), state.document
    if documents is not None:
        numbers, document = _segments(documents, counted, state.document)
    real = torch.ones(1, length, dtype=torch.bool, device=y.device) if counted is None else counted
    spare = number * size - length
    if spare:
        # What is filled up belongs to the last document, so that the last place always tells where a row ended.
        numbers = torch.cat([numbers, numbers[:, -1:].expand(-1, spare)], dim=1)
        real = F.pad(real, (0, spare))
    shape = (number, size)
    return Chunks(length, size, numbers.unflatten(1, shape), real.unflatten(1, shape)[:, None], document)


def _segments(documents: Tensor, counted: Tensor | None, before: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers that rise at each border, [B, T] from 0 in the document `before`; and the last document, [B].

    Padding belongs to the document before it.
    """
    known = torch.cat([before[:, None], documents], dim=1)
    if counted is not None:
        places = torch.arange(1, known.shape[1], device=known.device).expand_as(documents)
        last = torch.where(counted, places, 0).cummax(1).values
        known = torch.cat([before[:, None], known.gather(1, last)], dim=1)
    return (known[:, 1:] != known[:, :-1]).cumsum(1), known[:, -1]


def kin(segments: Int[Tensor, "*rows C"]) -> Bool[Tensor, "*rows C C"]:
    """True where column s is not after row t and has its number."""
    size = segments.shape[-1]
    causal = torch.ones(size, size, dtype=torch.bool, device=segments.device).tril_()
    return causal & (segments[..., :, None] == segments[..., None, :])


def decays(
    log_kept: Float[Tensor, "*rows C"], same: Bool[Tensor, "*tables C C"]
) -> Float[Tensor, "*all C C"]:
    """Π_{s<r≤t} kept_r in row t and column s, 1 on the diagonal; 0 where not `same`.

    Made of sums of logarithms within a chunk, and only where it is at most 1, so that nothing overflows.
    """
    total = log_kept.cumsum(-1)
    return (total[..., :, None] - total[..., None, :]).masked_fill(~same, -math.inf).exp()
