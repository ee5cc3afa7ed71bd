"""Exact compaction: from the second pass on, only the tokens that are still in a layer are computed.

Letters: B rows, T positions, D width, H heads, d width of a head, N tokens still in the layer, M of them in the row
that has most.

Whatever works on single tokens (norms, projections, the position-wise network, the gate) sees them packed, [N, D].
Attention sees the queries of each row side by side, padded to [B, H, M, d], against the layer's static keys and values,
with the rows of the mask that belong to them. At the end each state goes back to where it came from. Nothing is
approximated: every token meets the same numbers as if all had been computed and the others ignored.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from ourospec.device import moving_cost
from ourospec.nn.attention import Attention, AttentionStatistics
from ourospec.nn.cache import KeyValues
from ourospec.nn.gather import narrow, put, rejoin, select
from ourospec.nn.visibility import PackedVisibility, Visibility

Execution = Literal["auto", "masked", "compacted"]
"""How passes after the first are computed: whichever is faster, all tokens and the others ignored, or packed."""


class Compacting(nn.Module):
    """A module that can compute some of its tokens only."""

    def __init__(self) -> None:
        super().__init__()
        self.execution: Execution = "auto"


@contextlib.contextmanager
def execute(model: nn.Module, how: Execution) -> Iterator[None]:
    """Compute so for a while, everywhere in the model; for tests and benchmarks."""
    parts = [part for part in model.modules() if isinstance(part, Compacting)]
    before: list[Execution] = [part.execution for part in parts]
    for part in parts:
        part.execution = how
    try:
        yield
    finally:
        for part, was in zip(parts, before, strict=True):
            part.execution = was


class Everyone:
    """All tokens of a batch: rows are [B, T]."""

    def __init__(self, visibility: Visibility) -> None:
        self.visibility = visibility

    def take(self, x: Shaped[Tensor, "B T ..."]) -> Shaped[Tensor, "B T ..."]:
        """These tokens of x."""
        return x

    def spread(self, values: Float[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """One value a token, and 0 where there is none."""
        return values

    def put(
        self, whole: Float[Tensor, "B T D"], rows: Float[Tensor, "B T D"], alive: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """The whole, which is given up, with the rows of those who are alive in their places."""
        return torch.where(alive[..., None], rows, whole)

    def query(self, attention: Attention, state: Float[Tensor, "B T D"]) -> Float[Tensor, "B H T d"]:
        """Their queries, as attention takes them."""
        return attention.query(state, self.visibility)

    def tell(self, attention: Attention, state: Float[Tensor, "B T D"]) -> KeyValues:
        """Their keys and values."""
        return attention.tell(state, self.visibility)

    def project(
        self, attention: Attention, state: Float[Tensor, "B T D"]
    ) -> tuple[Float[Tensor, "B H T d"], KeyValues]:
        """All three."""
        return attention.project(state, self.visibility)

    def renew(self, held: KeyValues, told: KeyValues, alive: Bool[Tensor, "B T"]) -> KeyValues:
        """Keys and values of everyone: those that are held and given up, and what was told by those who are alive."""
        chosen = alive[:, None, :, None]
        return KeyValues(*(torch.where(chosen, new, old) for new, old in zip(told, held, strict=True)))

    def attend(
        self, attention: Attention, queries: Float[Tensor, "B H T d"], kv: KeyValues
    ) -> Float[Tensor, "B T D"]:
        """What they read."""
        return attention.attend(queries, kv, self.visibility)

    def statistics(
        self, attention: Attention, queries: Float[Tensor, "B H T d"], kv: KeyValues
    ) -> AttentionStatistics:
        """Where they looked."""
        return attention.statistics(queries, kv, self.visibility)


class Packed:
    """Some tokens of a batch, side by side: rows are [N].

    Args:
        alive: [B, T], who they are; at least one.
        count: N. widest: M. Both known to the host already.
        visibility: of everyone.
    """

    def __init__(self, alive: Bool[Tensor, "B T"], count: int, widest: int, visibility: Visibility) -> None:
        self.alive = alive
        self.tokens: Int[Tensor, " N"] = torch.nonzero_static(alive.flatten(), size=count)[:, 0]
        rows = self.tokens // alive.shape[1]
        order = torch.arange(count, device=alive.device)
        # A token's place is its row's first place, and on by as many as stand before it in the row.
        counts = alive.sum(1)
        before = torch.cumsum(counts, 0) - counts
        self.places: Int[Tensor, " N"] = rows * widest + order - before[rows]
        slots = order.new_zeros(alive.shape[0] * widest).index_copy_(0, self.places, order)
        self.slots: Int[Tensor, " BM"] = slots
        self.visibility = PackedVisibility(visibility, self.tokens, slots, widest)

    def take(self, x: Shaped[Tensor, "B T ..."]) -> Shaped[Tensor, "N ..."]:
        """These tokens of x."""
        return select(x.flatten(0, 1), 0, self.tokens)

    def spread(self, values: Float[Tensor, " N"]) -> Float[Tensor, "B T"]:
        """One value a token, and 0 where there is none."""
        flat = values.new_zeros(self.alive.numel())
        return flat.index_add(0, self.tokens, values).view(self.alive.shape)

    def among(self, earlier: Everyone | Packed) -> Int[Tensor, " N"]:
        """Where these tokens stand among the rows of earlier ones, of whom they are some."""
        if isinstance(earlier, Everyone):
            return self.tokens
        return earlier.take(self.alive).nonzero_static(size=len(self.tokens))[:, 0]

    def put(
        self, whole: Float[Tensor, "B T D"], rows: Float[Tensor, "N D"], alive: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """The whole, which is given up, with these rows in their places; they are those who are alive."""
        del alive
        return put(whole.flatten(0, 1), 0, self.tokens, rows).view(whole.shape)

    def query(self, attention: Attention, state: Float[Tensor, "N D"]) -> Float[Tensor, "B H M d"]:
        """Their queries by row, heads first in memory. Places left over repeat a token, and nobody reads them."""
        return self._by_row(attention.query(state[None], self.visibility))

    def tell(self, attention: Attention, state: Float[Tensor, "N D"]) -> KeyValues:
        """Their keys and values, as one row."""
        return attention.tell(state[None], self.visibility)

    def project(
        self, attention: Attention, state: Float[Tensor, "N D"]
    ) -> tuple[Float[Tensor, "B H M d"], KeyValues]:
        """All three."""
        queries, told = attention.project(state[None], self.visibility)
        return self._by_row(queries), told

    def _by_row(self, queries: Float[Tensor, "1 H N d"]) -> Float[Tensor, "B H M d"]:
        padded = select(queries[0], 1, self.slots, self.places)
        return padded.unflatten(1, (len(self.alive), -1)).transpose(0, 1)

    def renew(self, held: KeyValues, told: KeyValues, alive: Bool[Tensor, "B T"]) -> KeyValues:
        """Keys and values of everyone: those that are held and given up, and these tokens', who are those alive."""
        del alive
        return KeyValues(
            *(
                put(old.transpose(0, 1).flatten(1, 2), 1, self.tokens, new[0])
                .unflatten(1, self.alive.shape)
                .transpose(0, 1)
                for new, old in zip(told, held, strict=True)
            )
        )

    def attend(
        self, attention: Attention, queries: Float[Tensor, "B H M d"], kv: KeyValues
    ) -> Float[Tensor, "N D"]:
        """What they read."""
        mixed = attention.mix(queries, kv, self.visibility)
        by_place = mixed.transpose(1, 2)
        # A fused kernel leaves the heads of a place side by side; matrix products leave each head's places so.
        if by_place.is_contiguous():
            rows = select(by_place.flatten(2).flatten(0, 1), 0, self.places)
        else:
            rows = select(mixed.transpose(0, 1).flatten(1, 2), 1, self.places).transpose(0, 1).flatten(1)
        return attention.out(rows)

    def statistics(
        self, attention: Attention, queries: Float[Tensor, "B H M d"], kv: KeyValues
    ) -> AttentionStatistics:
        """Where they looked."""
        padded = attention.statistics(queries, kv, self.visibility)
        return AttentionStatistics(*(values.flatten().index_select(0, self.places) for values in padded))


class Gathering:
    """The states of those who are computed, and of those who were left behind on the way.

    The states go back to their places once, at the end: copying everyone's in each pass would cost as much as a norm.

    Args:
        h: [B, T, D], of everyone.
    """

    def __init__(self, h: Float[Tensor, "B T D"], visibility: Visibility) -> None:
        self.company: Everyone | Packed = Everyone(visibility)
        self.x: Float[Tensor, "*rows D"] = h
        self._behind: list[tuple[Tensor, Tensor, list[Tensor]]] = []

    def narrow(self, packed: Packed) -> Int[Tensor, " N"]:
        """Go on with these alone; where they stood among the rows so far."""
        index = packed.among(self.company)
        left: list[Tensor] = []
        self._behind.append((self.x, index, left))
        self.company, self.x = packed, narrow(self.x.flatten(0, -2), index, left)
        return index

    def everyone(self) -> Float[Tensor, "B T D"]:
        """The states of all tokens, each as it was left."""
        x = self.x
        for rows, index, left in reversed(self._behind):
            x = rejoin(rows.flatten(0, -2), index, x, left).view(rows.shape)
        return x


def pays(alive: tuple[int, int], everyone: Visibility, rows: int, width: int, flops: float) -> bool:
    """Whether packing makes a pass cheaper, by the work that it saves and the memory that it moves.

    Args:
        alive: N and M. rows: B. width: D.
        flops: of one token through everything but attention's products with the keys, forward.
    """
    (count, widest), tokens = alive, rows * everyone.length
    # A plain causal kernel leaves out about half of the keys; packed queries leave out what follows their block.
    per_query = 4.0 * width * (everyone.keys - everyone.length / 2)
    masked = tokens * (flops + per_query)
    packed = count * flops + rows * widest * per_query
    element, call = moving_cost(everyone.device)
    return packed + element * width * (tokens + 4 * count) + call < masked
