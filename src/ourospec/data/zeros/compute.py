"""Zeros of the zeta function on the critical line, by number: blocks of heights, on all cores, shown to be complete."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from ourospec.data.zeros.completeness import Proof, prove, reach_above, reach_below
from ourospec.data.zeros.constants import LOGARITHMS, euler_maclaurin_factors, remainder_series, theta_tail
from ourospec.data.zeros.theta import TWO_PI, height_of, mean_spacing
from ourospec.errors import ConfigError, DataError

HIGHEST = 10**11
"""The last zero that can be asked for: there a float64 height still resolves 1/50,000 of the mean spacing."""
LOW_TERMS = 20
"""Below 2π·LOW_TERMS² = 2,513 the zeros come from Euler and Maclaurin; above, Gabcke's bound on what the
Riemann-Siegel formula neglects is under 8e-12."""
_BEGINNING = 10.0
"""A height below all zeros."""
_POINTS = 10
"""Grid points in a mean spacing; doubled when a range cannot be shown to be complete, twice at most."""
_HALF_BLOCK = 1024
"""Grid steps from the middle of a block to its end, at most."""


class Block(NamedTuple):
    """Evenly spaced heights over which the number of terms m is the same; m = 0: Euler and Maclaurin."""

    centre: float
    step: float
    half: int
    m: int


class Zeros(NamedTuple):
    """Consecutive zeros, and why none is missing between them."""

    heights: np.ndarray
    """Imaginary parts, rising, float64."""
    proof: Proof


def compute_zeros(
    count: int, start: int = 1, workers: int = 0, tell: Callable[[str], None] | None = None
) -> np.ndarray:
    """Heights of the zeros ½ + iγ number start to start + count − 1: float64 [count], rising.

    Computed now and kept nowhere; `open_zeros` keeps them. The absolute error is that of rounding γ to float64
    (5.8e-11 at a million) plus about 1e-11, 3e-11 in the closest pairs.

    Args:
        start: 1 is the zero at 14.13.
        workers: threads; 0 takes one for each core that this process may use.
        tell: is told how far the work is.

    Raises:
        ConfigError: a range that does not exist, or lies too high for float64.
        DataError: the zeros found could not be shown to be all (a defect; no range is known where this happens).
    """
    return proved_zeros(count, start, workers, tell).heights


def proved_zeros(
    count: int, start: int = 1, workers: int = 0, tell: Callable[[str], None] | None = None
) -> Zeros:
    """As `compute_zeros`, with the proof that none is missing."""
    check_range(count, start)
    low = height_of(start - 0.5)
    high = height_of(start + count - 0.5)
    # S(t) is below 4 in absolute value as far as it has ever been computed; if a range is cut too short, Turing's
    # bound says so, and a finer and wider one is tried.
    for attempt in range(3):
        slack = 4 << attempt
        begin = reach_below(low - slack * float(mean_spacing(max(low, 20.0)))) or _BEGINNING
        end = reach_above(high + slack * float(mean_spacing(max(high, 20.0))))
        found, certain = scan(begin, end, _POINTS << attempt, workers, tell)
        proof = prove(found, begin, end, certain)
        if proof is not None and proof.first <= start and start + count - 1 <= proof.last:
            heights = found[found > proof.begin][start - proof.first :][:count]
            return Zeros(np.ascontiguousarray(heights), proof)
    raise DataError(
        f"The zeros number {start:,} to {start + count - 1:,} were computed, but Turing's bound does not show that "
        f"none is missing, not even on a grid of {_POINTS << 2} points in a mean spacing.",
        "Please report this range.",
    )


def check_range(count: int, start: int) -> None:
    """Refuse what cannot be meant.

    Raises:
        ConfigError: no zeros, or zeros that float64 cannot tell apart well.
    """
    if count < 1:
        raise ConfigError(f"{count:,} zeros were asked for.", "Ask for one at least: --count 1")
    if start < 1:
        raise ConfigError(
            f"There is no zero number {start:,}.", "The first is number 1 (height 14.13): --start 1"
        )
    if start + count - 1 > HIGHEST:
        raise ConfigError(
            f"Zero number {start + count - 1:,} lies where float64 no longer resolves spacings well; "
            f"the last one offered is number {HIGHEST:,}.",
            "Choose a lower --start or --count.",
        )


def scan(
    begin: float, end: float, points: int, workers: int = 0, tell: Callable[[str], None] | None = None
) -> tuple[np.ndarray, float]:
    """All sign changes of Z found in [begin, end), and the least of the largest |Z| between neighbours.

    Args:
        points: of the grid, in a mean spacing.
    """
    blocks = list(plan_blocks(begin, end, points))
    tables = (
        LOGARITHMS.up_to(_terms_needed(end)),
        theta_tail(),
        remainder_series(),
        euler_maclaurin_factors(),
    )
    share = max(1, min(32, len(blocks) // 64))
    groups = [blocks[at : at + share] for at in range(0, len(blocks), share)]
    found: list[np.ndarray] = []
    certain, before, seen = math.inf, 0.0, 0
    with _threads(workers) as pool:
        for number, results in enumerate(pool.map(lambda group: _scan_group(group, tables), groups)):
            for heights, (least, first, last, _) in results:
                found.append(heights)
                if len(heights):
                    # Between two blocks' zeros lie the end of the one and the beginning of the other.
                    between = max(before, first) if seen else math.inf
                    certain, before, seen = min(certain, float(least), between), last, seen + len(heights)
                else:
                    before = max(before, last)
            if tell:
                tell(f"{seen:,} more found, up to height {groups[number][-1].centre:,.0f}")
    return np.concatenate(found), certain


@contextmanager
def _threads(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Threads whose work is dropped when something goes wrong, or when the user interrupts."""
    pool = ThreadPoolExecutor(workers or available_cores())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _scan_group(blocks: list[Block], tables: tuple[np.ndarray, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Zeros and facts (kernels.zeros_on_grid) of each block."""
    from ourospec.data.zeros.kernels import zeros_of_block

    results = []
    for block in blocks:
        room, facts = np.empty(2 * block.half + 2), np.empty(4)
        count = zeros_of_block(block.centre, block.step, block.half, block.m, *tables, room, facts)
        results.append((room[:count].copy(), facts))
    return results


def _terms_needed(end: float) -> int:
    """Numbers whose logarithms the kernels read: terms of either formula, and grains (kernels.theta_turns)."""
    from ourospec.data.zeros.kernels import GRAINS

    low = TWO_PI * LOW_TERMS**2 + 64
    return max(int(low), int(GRAINS * (1 + 1 / LOW_TERMS) ** 2) + 2, int(math.sqrt(end / TWO_PI)) + 2)


def plan_blocks(begin: float, end: float, points: int) -> Iterator[Block]:
    """Blocks that cover [begin, end) without gaps; none crosses a height 2πk², where m changes."""
    edge = begin
    border = TWO_PI * LOW_TERMS**2
    while edge < end:
        if edge < border:
            m, stop = 0, min(border, end)
            step = min(float(mean_spacing(max(stop, 100.0))) / points, 1 / points)
        else:
            m = int(math.sqrt(edge / TWO_PI) + 1e-9)
            stop = min(TWO_PI * (m + 1) ** 2, end)
            step = float(mean_spacing(stop)) / points
        pieces = max(1, math.ceil((stop - edge) / (2 * _HALF_BLOCK * step)))
        edges = np.linspace(edge, stop, pieces + 1)
        for left, right in pairwise(edges):
            half = max(1, math.ceil((right - left) / (2 * step)))
            yield Block(float(left + right) / 2, float(right - left) / (2 * half), half, m)
        edge = stop


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1
