"""Who sees whom: the masks of attention, whole, cached, ragged and packed.

Letters: B rows, T query positions, S key positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ourospec.errors import ConfigError
from ourospec.nn.gather import select
from ourospec.nn.ragged import Spans

QUERY_BLOCK = 128
"""Queries that attention by matrix products takes at a time."""
PACKED_BLOCK = 256
"""The same of packed queries; of so many at least, a slice of the keys is worth its copy."""
KEY_BLOCK = 64
"""Keys are taken in multiples of this: rows of odd lengths make slow sums and exponentials."""


@dataclass
class Visibility:
    """Which keys each query may see: its own position and earlier ones, of its own document, in its window.

    Made once per forward pass and shared by all layers and passes, which ask it for masks.

    Args:
        length: T, the number of query positions.
        past: cached positions before the first query, one number for all rows or one for each; keys reach to
            S = past + length of the longest row.
        documents: [B, T], a running number per row, or None where each row is one document.
    """

    length: int
    device: torch.device
    past: int | tuple[int, ...] = 0
    documents: Tensor | None = None
    _masks: dict[tuple[int, torch.dtype | None], Tensor | None] = field(default_factory=dict)
    _spans: dict[tuple[int, int], Spans] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.past and self.documents is not None:
            raise ConfigError("Cached decoding takes one document a row.", "Leave `documents` out.")

    @property
    def keys(self) -> int:
        """S."""
        return (self.past if isinstance(self.past, int) else max(self.past)) + self.length

    @cached_property
    def positions(self) -> Int[Tensor, " T"] | Int[Tensor, "B T"]:
        """Positions of the queries; by row where the rows have different pasts."""
        steps = torch.arange(self.length, device=self.device)
        if isinstance(self.past, int):
            return self.past + steps
        return torch.tensor(self.past, device=self.device)[:, None] + steps

    @property
    def places(self) -> slice | Tensor:
        """The positions as an index into a table of them: a slice, which copies nothing, where the rows are alike."""
        return slice(self.past, self.past + self.length) if isinstance(self.past, int) else self.positions

    def first_rows(self, rows: int) -> Visibility:
        """The same of the first rows of the batch."""
        documents = self.documents[:rows] if self.documents is not None else None
        past = self.past if isinstance(self.past, int) else self.past[:rows]
        return Visibility(self.length, self.device, past, documents)

    def allowed(self, window: int) -> Bool[Tensor, "b T S"]:
        """True where a query may look; b is 1 where all rows are alike."""
        queries = self.positions[..., :, None]
        keys = torch.arange(self.keys, device=self.device)
        allowed = keys <= queries
        if window:
            allowed = allowed & (keys > queries - window)
        if allowed.dim() == 2:
            allowed = allowed[None]
        if self.documents is None:
            return allowed
        return allowed & (self.documents[:, :, None] == self.documents[:, None, :])

    def is_plain_causal(self, window: int) -> bool:
        """Whether a kernel's built-in causal rule says it all."""
        return self.documents is None and self.past == 0 and (window == 0 or window >= self.length)

    def bias(self, window: int, dtype: torch.dtype) -> Float[Tensor, "b 1 T S"] | None:
        """0 where allowed and −inf elsewhere; None where every key is allowed (one cached step)."""
        key = (window, dtype)
        if key not in self._masks:
            self._masks[key] = self._additive(window, dtype)
        return self._masks[key]

    def _additive(self, window: int, dtype: torch.dtype) -> Tensor | None:
        single = self.length == 1 and isinstance(self.past, int) and self.documents is None
        if single and (window == 0 or window >= self.keys):
            return None
        allowed = self.allowed(window)[:, None]
        return torch.zeros(allowed.shape, dtype=dtype, device=self.device).masked_fill_(~allowed, -math.inf)

    def spans(self, window: int, rows: int) -> Spans:
        """Which keys each query of so many rows sees."""
        key = (window, rows)
        if key not in self._spans:
            self._spans[key] = Spans(*(x.to(torch.int32).contiguous() for x in self._runs(window, rows)))
        return self._spans[key]

    def _runs(self, window: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """The numbers of `spans`."""
        end = self.positions.expand(rows, -1).flatten() + 1
        first = torch.zeros_like(end) if self.documents is None else self._document_starts()
        starts = torch.arange(rows + 1, device=self.device) * self.length
        return starts, torch.maximum(first, end - window) if window else first, end

    def _document_starts(self) -> Int[Tensor, " N"]:
        """The first position of each query's document."""
        assert self.documents is not None
        steps = torch.arange(self.length, device=self.device).expand_as(self.documents)
        begins = torch.zeros_like(steps)
        begins[:, 1:] = steps[:, 1:] * (self.documents[:, 1:] != self.documents[:, :-1])
        return begins.cummax(1).values.flatten()

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Runs of queries, each with the keys that its last one may see."""
        for start in range(0, self.length, QUERY_BLOCK):
            end = min(start + QUERY_BLOCK, self.length)
            yield slice(start, end), slice(0, self.keys - self.length + end)


class PackedVisibility(Visibility):
    """The same of some of the queries: those of each row side by side, all rows padded to the longest.

    Args:
        whole: of all T positions.
        tokens: [N], the queries' numbers among B·T, ascending.
        counts: [B], how many of them each row has.
        width: M.
    """

    def __init__(
        self, whole: Visibility, tokens: Int[Tensor, " N"], counts: Int[Tensor, " B"], width: int
    ) -> None:
        super().__init__(width, whole.device)
        self.whole, self.tokens, self.counts = whole, tokens, counts

    @property
    def keys(self) -> int:
        """S."""
        return self.whole.keys

    @cached_property
    def slots(self) -> Int[Tensor, " BM"]:
        """Which query stands in each place; in places that are left over stands any."""
        order = torch.arange(len(self.tokens), device=self.device)
        return order.new_zeros(len(self.counts) * self.length).index_copy_(0, self.queries_at, order)

    @cached_property
    def queries_at(self) -> Int[Tensor, " N"]:
        """The place of each query among the B·M."""
        rows = self.tokens // self.whole.length
        order = torch.arange(len(self.tokens), device=self.device)
        # A query's place is its row's first place, and on by as many as stand before it in the row.
        before = torch.cumsum(self.counts, 0) - self.counts
        return rows * self.length + order - before[rows]

    def by_row(self, queries: Float[Tensor, "1 H N d"]) -> Float[Tensor, "B H M d"]:
        """Queries by row, heads first in memory. Places left over repeat a query, and nobody reads them."""
        padded = select(queries[0], 1, self.slots, self.queries_at)
        return padded.unflatten(1, (len(self.counts), -1)).transpose(0, 1)

    def side_by_side(self, mixed: Float[Tensor, "B H M d"]) -> Float[Tensor, "N D"]:
        """What was read by row, of the queries alone."""
        by_place = mixed.transpose(1, 2)
        # A fused kernel leaves the heads of a place side by side; matrix products leave each head's places so.
        if by_place.is_contiguous():
            return select(by_place.flatten(2).flatten(0, 1), 0, self.queries_at)
        return select(mixed.transpose(0, 1).flatten(1, 2), 1, self.queries_at).transpose(0, 1).flatten(1)

    def _runs(self, window: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        everyone = self.whole.spans(window, rows)
        starts = F.pad(torch.cumsum(self.counts, 0), (1, 0))
        return starts, everyone.first[self.tokens], everyone.end[self.tokens]

    @cached_property
    def positions(self) -> Int[Tensor, " N"]:
        """Of the queries, not padded."""
        positions = self.whole.positions
        return (
            positions[self.tokens % self.whole.length]
            if positions.dim() == 1
            else positions.flatten()[self.tokens]
        )

    @property
    def places(self) -> Tensor:
        """The positions as an index into a table of them."""
        return self.positions

    def is_plain_causal(self, window: int) -> bool:
        """Never: the queries have gaps."""
        del window
        return False

    def allowed(self, window: int) -> Bool[Tensor, "B M S"]:
        """True where a query may look."""
        return self._of_queries(self.whole.allowed(window))

    def _additive(self, window: int, dtype: torch.dtype) -> Tensor | None:
        whole = self.whole.bias(window, dtype)
        return None if whole is None else self._of_queries(whole[:, 0])[:, None]

    def _of_queries(self, table: Tensor) -> Tensor:
        """[B, M, S] of a table [b, T, S]."""
        queries = self.tokens[self.slots]
        rows = queries if table.shape[0] > 1 else queries % self.whole.length
        return table.flatten(0, 1).index_select(0, rows).view(-1, self.length, table.shape[2])

    def blocks(self) -> Iterator[tuple[slice, slice]]:
        """Runs of queries, each with the keys that its last one may see; waits for the device."""
        positions = self.positions[self.slots].view(-1, self.length)
        starts = range(0, self.length, PACKED_BLOCK)
        ends = torch.stack([positions[:, start : start + PACKED_BLOCK].max() for start in starts]).tolist()
        for start, end in zip(starts, ends, strict=True):
            seen = min(self.keys, -(-(end + 1) // KEY_BLOCK) * KEY_BLOCK)
            yield slice(start, min(start + PACKED_BLOCK, self.length)), slice(0, seen)
