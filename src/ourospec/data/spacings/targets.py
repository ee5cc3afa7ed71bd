"""The frozen targets: the same held-out spacings with the same past for every model and every baseline.

Letters: N targets, C spacings of the past.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ourospec.data.spacings.dataset import Series
from ourospec.errors import DataError

CONTEXT = 256
"""Spacings of the past that every predictor is given, unless it is said otherwise."""
BLOCKS = 100
"""About so many stretches are the independent units of a standard error."""


class Targets(NamedTuple):
    """Spacings to predict, each with what precedes it. All float64 but `block`."""

    past: np.ndarray
    """[N, C] the spacings before the target, the last one next to it."""
    past_heights: np.ndarray
    """[N, C + 1] the heights that bound them; the last is the zero after which the target begins."""
    target: np.ndarray
    """[N]."""
    block: np.ndarray
    """[N] int64, rising: number of the stretch of consecutive spacings that the target lies in. Stretches are the
    independent units when errors are estimated; none crosses a border between held-out series."""


def frozen_targets(heldout: Sequence[Series], context: int = CONTEXT, most: int = 20_000) -> Targets:
    """At most `most` targets, evenly spread over all held-out spacings with `context` predecessors in their series.

    A pure function of its arguments: nothing is drawn.

    Raises:
        DataError: no held-out series is longer than the context.
    """
    positions = [np.arange(context, len(series.spacings)) for series in heldout]
    total = sum(map(len, positions))
    if total == 0:
        longest = max((len(series.spacings) for series in heldout), default=0)
        raise DataError(
            f"No held-out stretch is longer than the context of {context} spacings; the longest has {longest}.",
            "Give more zeros, or larger blocks (--data.block).",
        )
    chosen = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(np.int64))
    size = max(1, total // BLOCKS)
    parts, first_block, start = [], 0, 0
    for series, places in zip(heldout, positions, strict=True):
        here = chosen[(chosen >= start) & (chosen < start + len(places))] - start
        parts.append(_take(series, places[here], context, first_block + here // size))
        first_block += -(-len(places) // size)
        start += len(places)
    return Targets(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _take(series: Series, at: np.ndarray, context: int, block: np.ndarray) -> Targets:
    steps = np.arange(-context, 1)
    return Targets(
        series.spacings[at[:, None] + steps[:-1]],
        series.heights[at[:, None] + steps],
        series.spacings[at],
        block.astype(np.int64),
    )
