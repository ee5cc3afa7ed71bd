"""The Riemann-Siegel theta function and the smooth count of zeros, for arrays of heights.

    θ(t) = t/2 · ln(t/2π) − t/2 − π/8 + 1/(48t) + 7/(5760t³) + ...,    N(t) = θ(t)/π + 1 + S(t)

Edwards, Riemann's Zeta Function, sections 6.5 and 6.7.
"""

from __future__ import annotations

import numpy as np

from ourospec.data.zeros.constants import theta_tail

TWO_PI = 2 * np.pi
_TAIL = theta_tail(6)


def theta(t: np.ndarray | float) -> np.ndarray:
    """θ(t) in radians for t ≥ 9, float64: the absolute error is the rounding of a number as large as θ itself."""
    t = np.asarray(t, dtype=np.float64)
    tail = np.zeros_like(t)
    for coefficient in _TAIL[::-1]:
        tail = tail / (t * t) + coefficient
    return t / 2 * (np.log(t / TWO_PI) - 1) - np.pi / 8 + tail / t


def smooth_count(t: np.ndarray | float) -> np.ndarray:
    """θ(t)/π + 1, the zeros up to height t without their fluctuation S(t)."""
    return theta(t) / np.pi + 1


def integral_of_smooth_count(t: np.ndarray | float, start: float) -> np.ndarray:
    """∫ of θ(u)/π + 1 from `start` to t, by Gauss-Legendre: exact to rounding over the short ranges it is used for."""
    nodes, weights = np.polynomial.legendre.leggauss(16)
    t = np.asarray(t, dtype=np.float64)
    half = (t - start) / 2
    return half * (smooth_count(start + half[..., None] * (nodes + 1)) @ weights)


def mean_spacing(t: np.ndarray | float) -> np.ndarray:
    """Mean distance of neighbouring zeros at height t: 2π / ln(t/2π)."""
    return TWO_PI / np.log(np.asarray(t, dtype=np.float64) / TWO_PI)


def height_of(count: float) -> float:
    """The height t ≥ 10 where θ(t)/π + 1 is `count`, to about a thousandth of a spacing; 10 for lower counts."""
    if count <= smooth_count(10.0):
        return 10.0
    # Lambert's W from ln(x) − ln(ln(x)), then Newton on the function itself.
    x = max((count - 7 / 8) / np.e, 1.0)
    w = np.log1p(x)
    for _ in range(20):
        w -= (w * np.exp(w) - x) / (np.exp(w) * (w + 1))
    t = TWO_PI * np.exp(1 + w)
    for _ in range(4):
        t -= float(smooth_count(t) - count) * float(mean_spacing(t))
    return float(max(t, 10.0))
