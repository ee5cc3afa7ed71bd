"""Exact compaction: from the second pass on, only the tokens that are still in a layer are computed.

Letters: B rows, T positions, D width, H heads, d width of a head, N tokens still in the layer, M of them in the row
that has most.

Whatever works on single tokens (norms, projections, the position-wise network, the gate) sees them packed, [N, D].
Attention sees the queries of each row against the layer's static keys and values: as they are, where there is a kernel
for ragged rows, or padded to [B, H, M, d] with the rows of the mask that belong to them. At the end each state goes
back to where it came from. Nothing is approximated: every token meets the same numbers as if all had been computed and
the others ignored.
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
        self.visibility = PackedVisibility(visibility, self.tokens, alive.sum(1), widest)

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

    def query(self, attention: Attention, state: Float[Tensor, "N D"]) -> Float[Tensor, "1 H N d"]:
        """Their queries, as one row."""
        return attention.query(state[None], self.visibility)

    def tell(self, attention: Attention, state: Float[Tensor, "N D"]) -> KeyValues:
        """Their keys and values, as one row."""
        return attention.tell(state[None], self.visibility)

    def project(
        self, attention: Attention, state: Float[Tensor, "N D"]
    ) -> tuple[Float[Tensor, "1 H N d"], KeyValues]:
        """All three."""
        return attention.project(state[None], self.visibility)

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
        self, attention: Attention, queries: Float[Tensor, "1 H N d"], kv: KeyValues
    ) -> Float[Tensor, "N D"]:
        """What they read."""
        return attention.out(attention.mix_packed(queries, kv, self.visibility))

    def statistics(
        self, attention: Attention, queries: Float[Tensor, "1 H N d"], kv: KeyValues
    ) -> AttentionStatistics:
        """Where they looked."""
        padded = attention.statistics(self.visibility.by_row(queries), kv, self.visibility)
        places = self.visibility.queries_at
        return AttentionStatistics(*(values.flatten().index_select(0, places) for values in padded))


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
