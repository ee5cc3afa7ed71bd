"""The frozen targets: the same held-out spacings with the same past for every model and every baseline.

Letters: N targets, C spacings of the past.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ourospec.data.spacings.dataset import Series
from ourospec.data.spacings.unfolding import unfolded
from ourospec.errors import DataError

CONTEXT = 256
"""Spacings of the past that every predictor is given, unless it is said otherwise."""
RESERVE = 2_048
"""Spacings before every target that lie in its series, where series are long enough: a model may look back further
than CONTEXT without there being other targets for it."""
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
    line: np.ndarray | None = None
    """[H] heights of all held-out series, one after the other, and"""
    at: np.ndarray | None = None
    """[N] int64, where in `line` the last height of each past lies, and"""
    reach: np.ndarray | None = None
    """[N] int64, how many spacings lie before the target in its series. All None for targets made by hand."""

    def looking_back(self, context: int, rows: slice = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Past [n, context] and its heights [n, context + 1] of some targets, further back than C where there is more.

        Raises:
            DataError: there are not so many spacings before every target.
        """
        if context <= self.past.shape[1]:
            return self.past[rows, -context:], self.past_heights[rows, -context - 1 :]
        reach = self.past.shape[1] if self.reach is None else int(self.reach.min())
        if self.line is None or self.at is None or reach < context:
            raise DataError(
                f"{context} spacings are to be looked back on, and before one of the targets there are {reach}.",
                "Give more zeros, or larger blocks (--data.block).",
            )
        heights = self.line[self.at[rows, None] + np.arange(-context, 1)]
        return np.diff(unfolded(heights), axis=1), heights


def frozen_targets(heldout: Sequence[Series], context: int = CONTEXT, most: int = 20_000) -> Targets:
    """At most `most` targets, evenly spread over all held-out spacings with enough predecessors in their series.

    Enough are RESERVE, or a quarter of the shortest series where that is less, but `context` at least: up to RESERVE,
    the targets do not depend on the context. A pure function of its arguments: nothing is drawn.

    Raises:
        DataError: no held-out series is longer than the context.
    """
    reserve = min((RESERVE, *(len(series.spacings) // 4 for series in heldout)))
    positions = [np.arange(max(context, reserve), len(series.spacings)) for series in heldout]
    total = sum(map(len, positions))
    if total == 0:
        longest = max((len(series.spacings) for series in heldout), default=0)
        raise DataError(
            f"No held-out stretch is longer than the context of {context} spacings; the longest has {longest}.",
            "Give more zeros, or larger blocks (--data.block).",
        )
    chosen = np.unique(np.linspace(0, total - 1, min(most, total)).round().astype(np.int64))
    size = max(1, total // BLOCKS)
    parts, first_block, start, line = [], 0, 0, 0
    for series, places in zip(heldout, positions, strict=True):
        here = chosen[(chosen >= start) & (chosen < start + len(places))] - start
        parts.append(_take(series, places[here], context, first_block + here // size))
        parts[-1] = parts[-1]._replace(at=places[here] + line, reach=places[here])
        line += len(series.heights)
        first_block += -(-len(places) // size)
        start += len(places)
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in Targets._fields
        if name != "line"
    }
    return Targets(**joined, line=np.concatenate([series.heights for series in heldout]))


def _take(series: Series, at: np.ndarray, context: int, block: np.ndarray) -> Targets:
    steps = np.arange(-context, 1)
    return Targets(
        series.spacings[at[:, None] + steps[:-1]],
        series.heights[at[:, None] + steps],
        series.spacings[at],
        block.astype(np.int64),
    )
