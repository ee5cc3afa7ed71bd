"""Unfolding: heights of zeros to spacings whose mean is 1, and back."""

from __future__ import annotations

from typing import Literal

import numpy as np

from ourospec.errors import DataError

Variant = Literal["global", "local"]
TWO_PI = 2 * np.pi


def unfolded(heights: np.ndarray) -> np.ndarray:
    """u(g) = (g/2π) ln(g/2πe): the smooth part of the number of zeros up to g, less 7/8.

    Source: Riemann and von Mangoldt; Titchmarsh, The Theory of the Riemann Zeta-function, section 9.3.
    """
    turns = heights / TWO_PI
    return turns * (np.log(turns) - 1.0)


def unfold(heights: np.ndarray, variant: Variant = "global") -> np.ndarray:
    """Spacings in units of the local mean spacing.

    Args:
        heights: [n + 1] float64, rising, all above 2π (where the density of zeros starts to be positive).
        variant: "global" u(g') − u(g); "local" (g' − g) ln(g/2π)/2π, the density being taken at the lower zero.

    Returns:
        [n] float64.

    Raises:
        DataError: fewer than two heights, one that is not finite or not above 2π, or heights that do not rise.
    """
    heights = np.asarray(heights, dtype=np.float64)
    _refuse(heights)
    if variant == "global":
        return np.diff(unfolded(heights))
    return np.diff(heights) * np.log(heights[:-1] / TWO_PI) / TWO_PI


def heights_of(positions: np.ndarray) -> np.ndarray:
    """The inverse of `unfolded` above 2π: g with u(g) = x, by Newton's method, to the rounding of float64.

    Args:
        positions: [n] float64, each above −1 (u has its least value, −1, at 2π).

    Raises:
        DataError: a position that no height above 2π has.
    """
    x = np.asarray(positions, dtype=np.float64)
    if not (np.isfinite(x).all() and (x > -1.0).all()):
        raise DataError(
            "There is no height for an unfolded position of −1 or less.", "Start further up, at −0.9 say."
        )
    # v (ln v − 1) is convex with its minimum at v = 1: from above the root, Newton's steps fall towards it.
    v = np.maximum(np.e, 2.0 * (x + 1.0)) + 1.0
    for _ in range(60):
        step = (v * (np.log(v) - 1.0) - x) / np.log(v)
        v = np.maximum(v - step, 1.0 + 1e-12)
        if np.all(np.abs(step) <= 1e-15 * v):
            break
    return TWO_PI * v


def _refuse(heights: np.ndarray) -> None:
    if heights.ndim != 1 or len(heights) < 2:
        raise DataError(
            f"Spacings need at least two heights in a row; given was an array of shape {heights.shape}.",
            "Name a table of zeros, one height a line, or ask for more: --data.source.count N",
        )
    bad = np.flatnonzero(~np.isfinite(heights) | (heights <= TWO_PI))
    if len(bad):
        raise DataError(
            f"Height number {bad[0] + 1} is {heights[bad[0]]}; a zero's height is a finite number above 2π.",
            "Check the table it came from: ouro zeros --check FILE",
        )
    falls = np.flatnonzero(np.diff(heights) <= 0)
    if len(falls):
        at = int(falls[0])
        raise DataError(
            f"Heights have to rise, but number {at + 2} ({heights[at + 1]}) is not above number {at + 1} "
            f"({heights[at]}).",
            "Check the table it came from: ouro zeros --check FILE",
        )
