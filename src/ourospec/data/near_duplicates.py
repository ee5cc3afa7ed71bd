"""Near-duplicate documents, found with one-permutation MinHash.

A document is the set of its windows of 32 bytes, white space and case aside. Two documents are near-duplicates
when these sets overlap by half (Jaccard index); the index is estimated from 64 minima of hashes.
Source: Li, Owen, Zhang 2012, "One Permutation Hashing" (arXiv:1208.1259).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

WINDOW = 32
"""Bytes in a window, a power of two."""
BINS = 64
THRESHOLD = 0.5
"""Estimated Jaccard index from which two documents count as one."""

REACH = 8
"""Later members of its bucket that each is compared with: unlike ones in between must not hide an alike one."""

_EMPTY = np.uint32(0xFFFFFFFF)
_BLOCK = 1 << 20
_BASE = 0x9E3779B97F4A7C15
_MIX = np.uint64(0xBF58476D1CE4E5B9)


def sketch(text: str) -> NDArray[np.uint32]:
    """[BINS] smallest hashes of a document's windows, one a bin; a bin that no window fell into holds 2³² − 1."""
    content = " ".join(text.split()).lower().encode()
    if len(content) < WINDOW:
        content = content.ljust(WINDOW, b"\0")
    data = np.frombuffer(content, np.uint8)
    minima = np.full(BINS, _EMPTY, np.uint32)
    for start in range(0, len(data) - WINDOW + 1, _BLOCK):
        hashes = hash_windows(data[start : start + _BLOCK + WINDOW - 1])
        np.minimum.at(minima, (hashes >> np.uint64(58)).astype(np.intp), hashes.astype(np.uint32))
    return minima


def hash_windows(data: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """[n - WINDOW + 1] a hash of each window: a polynomial built by doubling its length, then mixed."""
    hashes, span = data.astype(np.uint64), 1
    while span < WINDOW:
        factor = np.uint64(pow(_BASE, span, 1 << 64))
        hashes = hashes[:-span] * factor + hashes[span:]
        span *= 2
    for _ in range(2):
        hashes ^= hashes >> np.uint64(31)
        hashes *= _MIX
    hashes ^= hashes >> np.uint64(32)
    return hashes


def cluster(sketches: NDArray[np.uint32]) -> NDArray[np.intp]:
    """[n, BINS] -> [n]: for each document the first document of its cluster of near-duplicates.

    Candidates are found by bands of two bins (a pair with index 0.5 meets in one of 32 bands with probability
    0.9999) and by whole sketches, which finds equal texts too short to fill a band.
    """
    union = Union(len(sketches))
    filled = sketches != _EMPTY
    wide = sketches.astype(np.uint64)
    for first in range(0, BINS, 2):
        usable = np.flatnonzero(filled[:, first] & filled[:, first + 1])
        keys = (wide[usable, first] << np.uint64(32)) | wide[usable, first + 1]
        _join(union, sketches, usable, keys)
    whole = np.zeros(len(sketches), np.uint64)
    for column in range(BINS):
        whole = (whole + wide[:, column]) * _MIX
        whole ^= whole >> np.uint64(29)
    _join(union, sketches, np.arange(len(sketches)), whole)
    return union.roots()


def similarity(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> NDArray[np.float64]:
    """[..., BINS] twice -> [...]: estimated Jaccard index, 0 to 1."""
    either = (one != _EMPTY) | (other != _EMPTY)
    equal = (one == other) & either
    return equal.sum(-1) / np.maximum(either.sum(-1), 1)


class Union:
    """Disjoint sets of the numbers below n."""

    def __init__(self, n: int) -> None:
        self._parent = np.arange(n)

    def find(self, index: int) -> int:
        """The smallest number of a set."""
        parent = self._parent
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = int(parent[index])
        return index

    def join(self, one: int, other: int) -> None:
        """Make two sets one."""
        low, high = sorted((self.find(one), self.find(other)))
        self._parent[high] = low

    def roots(self) -> NDArray[np.intp]:
        """[n] the smallest number of each one's set."""
        parent = self._parent
        while (parent[parent] != parent).any():
            parent = parent[parent]
        self._parent = parent
        return parent


def _join(
    union: Union, sketches: NDArray[np.uint32], members: NDArray[np.intp], keys: NDArray[np.uint64]
) -> None:
    """Join members that share a key, lie near each other among those that do, and whose sketches agree."""
    order = np.argsort(keys, kind="stable")
    members, keys = members[order], keys[order]
    for distance in range(1, REACH + 1):
        meeting = keys[:-distance] == keys[distance:]
        if not meeting.any():
            return
        roots, ones, others = union.roots(), members[:-distance], members[distance:]
        pairs = np.flatnonzero(meeting & (roots[ones] != roots[others]))
        for block in np.array_split(pairs, len(pairs) // 65536 + 1):
            alike = block[similarity(sketches[ones[block]], sketches[others[block]]) >= THRESHOLD]
            for pair in alike:
                union.join(int(ones[pair]), int(others[pair]))
