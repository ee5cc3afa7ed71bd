"""From a source to heights: zeros, tables, and the nulls on an axis of their own."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ourospec.data.spacings import nulls
from ourospec.data.spacings.config import (
    GueSource,
    PhaseRandomisedSource,
    ShuffledSource,
    TableSource,
    WignerSource,
    ZerosSource,
)
from ourospec.data.spacings.unfolding import heights_of, unfold, unfolded
from ourospec.data.zeros import open_zeros, read_table, read_zeros

FIRST_ZERO = 14.134725141734695
"""Where the axis of a null begins that has no heights of its own."""
PAUSE = 2.0
"""Seconds between two words of progress."""

AnySource = ZerosSource | TableSource | GueSource | WignerSource | ShuffledSource | PhaseRandomisedSource


def read_source(source: AnySource, tell: Callable[[str], None]) -> np.ndarray:
    """[n + 1] float64 heights, rising.

    Raises:
        DataError: a table in which something is wrong, or that is none of zeros.
        ConfigError: a table of zeros higher than they are computed here.
        ResourceError: the cache cannot be written.
    """
    if isinstance(source, ZerosSource):
        return open_zeros(source.count, source.start, tell=_now_and_then(tell))
    if isinstance(source, TableSource):
        path = Path(source.path)
        return read_zeros(path, tell=_now_and_then(tell)) if source.check else read_table(path)
    if isinstance(source, GueSource | WignerSource):
        tell(f"drawing {source.describe()}")
        draw = nulls.gue_spacings if isinstance(source, GueSource) else nulls.wigner_spacings
        return _on_axis(draw(source.count, source.seed), FIRST_ZERO)
    heights = read_source(source.of, tell)
    change = nulls.shuffled if isinstance(source, ShuffledSource) else nulls.phase_randomised
    return _on_axis(change(unfold(heights), source.seed), float(heights[0]))


def _now_and_then(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Passes on what is told every few seconds: progress is told many times a second."""
    last = time.monotonic()

    def say(what: str) -> None:
        nonlocal last
        if time.monotonic() - last > PAUSE:
            last = time.monotonic()
            tell(f"computing zeros, once: {what}")

    return say


def _on_axis(spacings: np.ndarray, first: float) -> np.ndarray:
    """Heights whose unfolding gives these spacings."""
    positions = unfolded(np.array([first]))[0] + np.concatenate([[0.0], np.cumsum(spacings)])
    return heights_of(positions)
