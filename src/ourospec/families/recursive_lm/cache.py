"""What decoding keeps: keys and values by layer and by step, and what the memory holds.

Letters: B rows, S positions of a cache, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from ourospec.nn.cache import Cache
from ourospec.nn.memory import MemoryState

Recall = Callable[[Tensor], MemoryState]
"""The state of a memory that has read [B, S, D]."""


class RecursiveCache(Cache):
    """A Cache with the state of a long-term memory; see recursion.Recursion.places for its layers.

    A memory cannot be taken back by a position. So what it read is kept in `embedded`, and where positions are taken
    back it reads the rest once more.

    Args:
        recall: None for a model without a memory.
    """

    def __init__(self, layers: int, capacity: int, recall: Recall | None = None) -> None:
        super().__init__(layers, capacity)
        self.recall = recall
        self.memory: MemoryState | None = None
        """After the last position; None before the first."""

    def remember(self, read: Tensor, state: MemoryState) -> None:
        """The memory has read [B, T, D] further positions; `advance` moves the length."""
        self.embed(read)
        self.memory = state

    def truncate(self, length: int) -> None:
        shorter = length < self.length
        super().truncate(length)
        if shorter and self.memory is not None and self.recall is not None:
            assert self.embedded is not None
            self.memory = self.recall(self.embedded[:, :length]) if length else None

    def keep(self, rows: Sequence[int]) -> None:
        super().keep(rows)
        if self.memory is not None:
            self.memory = self.memory.rows(list(rows))

    @classmethod
    def join(cls, caches: Sequence[Cache]) -> RecursiveCache:
        joined = super().join(caches)
        assert isinstance(joined, RecursiveCache)
        mine = [cache for cache in caches if isinstance(cache, RecursiveCache)]
        joined.recall = mine[0].recall
        states = [cache.memory for cache in mine if cache.memory is not None]
        joined.memory = MemoryState.join(states) if states else None
        return joined
