"""What decoding keeps of the positions behind it.

Letters: B rows, T positions, G key-value heads, S positions of a cache, d width of a head, D model width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ourospec.errors import ConfigError


class KeyValues(NamedTuple):
    """Keys and values of a layer, each [B, G, S, d]."""

    keys: Tensor
    values: Tensor


class Cache:
    """One key and one value per layer and token, whatever the depth.

    Rows advance together and may stand at different positions: `join` puts texts of different lengths side by side,
    `keep` lets those go that have ended, `truncate` takes back what was read in vain. The stores are opened when the
    first keys arrive, in their type and beside them.

    Args:
        layers: of the model.
        capacity: positions of a row, at most.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self.layers, self.capacity = layers, capacity
        self.past: int | tuple[int, ...] = 0
        """Positions that each row holds; one number where all hold as many."""
        self.stores: dict[int, KeyValues] = {}
        """By layer, each [B, G, capacity, d]."""
        self.embedded: Tensor | None = None
        """[B, capacity, D], the embeddings of the positions held, where the model hands them on (the baton)."""

    @property
    def longest(self) -> int:
        """Positions of the longest row."""
        return self.past if isinstance(self.past, int) else max(self.past)

    @property
    def pasts(self) -> tuple[int, ...]:
        """Positions of each row, of a cache that has read something."""
        rows = next(iter(self.stores.values())).keys.shape[0]
        return (self.past,) * rows if isinstance(self.past, int) else self.past

    @property
    def length(self) -> int:
        """Positions of every row, where they are equal.

        Raises:
            ValueError: they are not.
        """
        if not isinstance(self.past, int):
            raise ValueError("the rows of this cache hold different numbers of positions")
        return self.past

    def make_room(self, positions: int) -> None:
        """Refuse what would run over the end."""
        if self.longest + positions > self.capacity:
            raise ConfigError(
                f"The cache holds {self.capacity} positions; {self.longest + positions} were asked for.",
                "Open it with a larger capacity, or start again from the last part of the text.",
            )

    def extend(self, layer: int, kv: KeyValues) -> KeyValues:
        """Take in one layer's new keys and values; returns all up to here. `advance` moves the length."""
        if layer not in self.stores:
            shape = (*kv.keys.shape[:2], self.capacity, kv.keys.shape[3])
            self.stores[layer] = KeyValues(kv.keys.new_zeros(shape), kv.values.new_zeros(shape))
        store, length = self.stores[layer], kv.keys.shape[2]
        for held, fresh in zip(store, kv, strict=True):
            self._write(held.transpose(1, 2), fresh.transpose(1, 2))
        end = self.longest + length
        return KeyValues(store.keys[:, :, :end], store.values[:, :, :end])

    def last_embedded(self) -> Tensor | None:
        """[B, 1, D], the embedding of each row's last position; None where nothing is held."""
        if self.embedded is None or self.longest == 0:
            return None
        if isinstance(self.past, int):
            return self.embedded[:, self.past - 1 : self.past]
        rows = torch.arange(len(self.past), device=self.embedded.device)
        return self.embedded[rows, torch.tensor(self.past, device=rows.device) - 1][:, None]

    def embed(self, x: Tensor) -> None:
        """Take in the embeddings [B, T, D] of new positions."""
        if self.embedded is None:
            self.embedded = x.new_zeros(x.shape[0], self.capacity, x.shape[2])
        self._write(self.embedded, x)

    def _write(self, held: Tensor, fresh: Tensor) -> None:
        """fresh [B, T, ...] behind what each row of held [B, capacity, ...] has."""
        length = fresh.shape[1]
        if isinstance(self.past, int):
            held[:, self.past : self.past + length] = fresh
            return
        columns = torch.tensor(self.past, device=held.device)[:, None] + torch.arange(
            length, device=held.device
        )
        held[torch.arange(len(self.past), device=held.device)[:, None], columns] = fresh.to(held.dtype)

    def advance(self, positions: int) -> None:
        """All layers have taken in this many positions."""
        if isinstance(self.past, int):
            self.past += positions
        else:
            self.past = tuple(past + positions for past in self.past)

    def truncate(self, length: int) -> None:
        """Forget all positions from `length` on; of a cache whose rows hold equally many.

        Raises:
            ValueError: fewer are held, or the rows differ.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"{length} positions cannot be kept of {self.length}")
        self.past = length

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other rows go; at least one stays. What the longest row left behind is never seen again."""
        index = list(rows)
        if not isinstance(self.past, int):
            self.past = tuple(self.past[row] for row in index)
        self.stores = {
            layer: KeyValues(store.keys[index], store.values[index]) for layer, store in self.stores.items()
        }
        if self.embedded is not None:
            self.embedded = self.embedded[index]

    @classmethod
    def join(cls, caches: Sequence[Cache]) -> Cache:
        """Caches that have read something as the rows of one, in their order; each row keeps its own length.

        Raises:
            ValueError: none, or capacities that differ.
        """
        if not caches or len({cache.capacity for cache in caches}) != 1:
            raise ValueError("only caches of one capacity can be joined, at least one")
        joined = cls(caches[0].layers, caches[0].capacity)
        joined.past = tuple(past for cache in caches for past in cache.pasts)
        for layer in caches[0].stores:
            pairs = [cache.stores[layer] for cache in caches]
            joined.stores[layer] = KeyValues(*(torch.cat(parts) for parts in zip(*pairs, strict=True)))
        if caches[0].embedded is not None:
            joined.embedded = torch.cat([cache.embedded for cache in caches if cache.embedded is not None])
        return joined
