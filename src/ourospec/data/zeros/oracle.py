"""Spot checks against python-flint, whose zeros come with an error bound that has been proved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ourospec.errors import ResourceError

_BITS = 96
"""Precision asked of python-flint: 29 digits, of which a height uses 10 before the point at most."""


@dataclass(frozen=True)
class SpotCheck:
    """How far zeros are from python-flint's."""

    zeros: int
    """How many were compared: at random, and both of the closest pair."""
    largest_difference: float
    """Largest |height − the oracle's|, the rounding of the height to float64 included."""
    at_number: int
    """The zero where it is."""
    count_agrees: bool
    """Whether N(T), counted rigorously halfway to the next zero, is the last one's number."""


def spot_check(
    heights: np.ndarray,
    first: int,
    number: int,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
) -> SpotCheck:
    """Compare `number` of consecutive zeros, drawn at random, with python-flint, and the count at their end.

    Args:
        heights: float64 [n].
        first: number of the first of them.

    Raises:
        ResourceError: python-flint is not installed.
    """
    flint = load_flint()
    drawn = np.random.default_rng(seed).choice(len(heights), size=min(number, len(heights)), replace=False)
    picked = set(drawn.tolist())
    if len(heights) > 1:
        closest = int(np.argmin(np.diff(heights) * np.log(heights[1:])))
        picked |= {closest, closest + 1}
    worst, where = 0.0, first
    with flint.ctx.workprec(_BITS):
        for done, at in enumerate(sorted(picked)):
            if tell:
                tell(f"python-flint: {done:,} of {len(picked):,} zeros compared")
            exact = flint.acb.zeta_zero(first + at).imag
            difference = float(abs(exact - flint.arb(float(heights[at]))).mid())
            if difference > worst:
                worst, where = difference, first + at
        beyond = flint.acb.zeta_zero(first + len(heights)).imag
        halfway = (beyond + flint.arb(float(heights[-1]))) / 2
        counted = halfway.zeta_nzeros()
        agrees = bool(counted == first + len(heights) - 1)
    return SpotCheck(len(picked), worst, where, agrees)


def load_flint() -> Any:
    """The module python-flint.

    Raises:
        ResourceError: it is not installed.
    """
    try:
        import flint
    except ImportError as error:
        raise ResourceError(
            "Spot checks need python-flint, which is not installed.", "Install it: pip install python-flint"
        ) from error
    return flint
