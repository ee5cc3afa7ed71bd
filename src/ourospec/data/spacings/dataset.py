"""Opening spacings: from a source to series of heights and spacings on two sides of a split."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ourospec.data.spacings.config import SpacingData
from ourospec.data.spacings.sources import read_source
from ourospec.data.spacings.unfolding import unfold
from ourospec.errors import DataError

_FORMAT = "spacings-v1"
"""Names the unfolding and the splits below; a change of them changes every fingerprint."""
HELD_OUT = 10
"""One window, or block, of so many is held out."""

Tell = Callable[[str], None]


class Series(NamedTuple):
    """A contiguous stretch. Spacing k lies between heights k and k + 1."""

    heights: np.ndarray
    """[n + 1] float64; for a null a fictitious axis, on which unfolding gives its spacings."""
    spacings: np.ndarray
    """[n] float64, unfolded, of mean 1."""

    def cut(self, start: int, end: int) -> Series:
        """Spacings start to end − 1."""
        return Series(self.heights[start : end + 1], self.spacings[start:end])


@dataclass(frozen=True)
class SpacingDataset:
    """Two sides, each of contiguous stretches that share no spacing."""

    train: list[Series]
    heldout: list[Series]
    summary: dict[str, Any]
    """JSON-ready: source, split, and for each side stretches, spacings and heights."""
    fingerprint: str
    """SHA-256: changes with any height and with the split."""


def open_spacings(data: SpacingData, tell: Tell | None = None) -> SpacingDataset:
    """Read or compute the source and split it.

    Args:
        tell: hears in words what is being computed, where that takes a while.

    Raises:
        DataError: a table that is none of zeros, or fewer spacings than the split needs.
        ResourceError: the cache cannot be written.
    """
    heights = read_source(data.source, tell or (lambda _: None))
    whole = Series(heights, unfold(heights))
    train, heldout = _tail(whole, data.window) if data.split == "tail" else _interleaved(whole, data.block)
    settings = f"{_FORMAT}\n{data.split}\n{data.window if data.split == 'tail' else data.block}\n"
    fingerprint = hashlib.sha256(settings.encode() + heights.tobytes()).hexdigest()
    summary = {
        "source": data.source.describe(),
        "split": data.split,
        "train": _describe(train),
        "heldout": _describe(heldout),
    }
    return SpacingDataset(train, heldout, summary, fingerprint)


def _tail(whole: Series, window: int) -> tuple[list[Series], list[Series]]:
    """The last ⌊windows/10⌋ whole windows; what is left over behind them belongs to neither side."""
    windows = len(whole.spacings) // window
    held = windows // HELD_OUT
    if held == 0:
        raise _too_few(whole, HELD_OUT * window, f"{HELD_OUT} windows of {window}", "--data.window")
    border = (windows - held) * window
    return [whole.cut(0, border)], [whole.cut(border, windows * window)]


def _interleaved(whole: Series, block: int) -> tuple[list[Series], list[Series]]:
    """Blocks 9, 19, 29, ... (from 0); what lies between two of them is one stretch."""
    size = len(whole.spacings)
    held = [
        (start, start + block) for start in range((HELD_OUT - 1) * block, size - block + 1, HELD_OUT * block)
    ]
    if not held:
        raise _too_few(whole, HELD_OUT * block, f"{HELD_OUT} blocks of {block:,}", "--data.block")
    edges = [0, *(edge for span in held for edge in span), size]
    rest = [(edges[i], edges[i + 1]) for i in range(0, len(edges), 2) if edges[i + 1] > edges[i]]
    return [whole.cut(*span) for span in rest], [whole.cut(*span) for span in held]


def _too_few(whole: Series, needed: int, what: str, option: str) -> DataError:
    return DataError(
        f"{len(whole.spacings):,} spacings are too few to hold a tenth of them out: {what} need {needed:,}.",
        f"Give more of them (--data.source.count, or a longer table), or make the parts smaller ({option}).",
    )


def _describe(side: list[Series]) -> dict[str, Any]:
    lowest, highest = float(side[0].heights[0]), float(side[-1].heights[-1])
    return {
        "stretches": len(side),
        "spacings": sum(len(series.spacings) for series in side),
        "lowest": lowest,
        "highest": highest,
        "where": f"heights {lowest:,.0f} to {highest:,.0f}",
    }
