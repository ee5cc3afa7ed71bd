"""Random numbers that belong to one puzzle: a pure function of (stream, index), the same on every machine for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

AT_ONCE = 64
"""Words that are drawn together."""
Item = TypeVar("Item")


class Chance:
    """A counter-based generator, Philox keyed by (stream, index), of which only the raw words are used: NumPy keeps
    those alone the same for ever.

    Args:
        stream, index: 0 to 2⁶⁴ − 1; see `stream_of`.
    """

    def __init__(self, stream: int, index: int) -> None:
        self._bits = np.random.Philox(key=np.array([stream, index], np.uint64))
        self._words: list[int] = []

    def word(self) -> int:
        """0 to 2⁶⁴ − 1."""
        if not self._words:
            self._words = self._bits.random_raw(AT_ONCE).tolist()
        return self._words.pop()

    def below(self, bound: int) -> int:
        """0 to bound − 1, no number by more than bound / 2⁶⁴ likelier than another."""
        return (self.word() * bound) >> 64

    def between(self, least: int, most: int) -> int:
        """`least` to `most`, both of them possible."""
        return least + self.below(most - least + 1)

    def one_of(self, items: Sequence[Item]) -> Item:
        """One of them."""
        return items[self.below(len(items))]

    def order(self, count: int) -> list[int]:
        """0 to count − 1 in random order."""
        return self.some(count, count)

    def some(self, count: int, taken: int) -> list[int]:
        """`taken` different ones of 0 to count − 1, in random order (Fisher and Yates, stopped early)."""
        numbers = list(range(count))
        for place in range(taken):
            other = place + self.below(count - place)
            numbers[place], numbers[other] = numbers[other], numbers[place]
        return numbers[:taken]


def stream_of(*parts: object) -> int:
    """A number for a stream that is to be independent of streams with any other parts."""
    text = "\n".join(map(str, parts))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
