"""Why no zero is missing: Turing's bound, and the mean of S.

Write N(t) for the number of zeros with imaginary part in (0, t], wherever in the strip they lie, and S(t) = N(t) −
θ(t)/π − 1. For 168π < t₁ < t₂

    |∫ S(t) dt from t₁ to t₂| ≤ 2.30 + 0.128 ln(t₂/2π)

(Turing 1953, corrected by Lehman 1970; Edwards, Riemann's Zeta Function, section 8.2). Take a height T and the zeros
found within h above it. N(t) ≥ N(T) + (zeros found in (T, t]), so the integral of N from T to T + h is at least
h·N(T) + Σ (T + h − γ), and the bound gives an upper limit on N(T) that needs no knowledge of what was missed.
The zeros found within h below T give a lower limit in the same way. Both limits are true whatever was missed; if an
integer is left between them it is N(T). Two such heights fix how many zeros lie between them, and if as many
were found, then all were, they are simple, and they lie on the critical line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ourospec.data.zeros.theta import TWO_PI, integral_of_smooth_count, smooth_count

TURING_HOLDS = 168 * math.pi
"""Height above which the bound has been proved."""
BELOW_ALL_ZEROS = 14.0
"""N(14) = 0."""
_REACH = 3.0
"""Turing's bound over the length it is used on is 1/_REACH."""
_ROUNDING = 1e-3
"""What rounding may do to a limit on N(T): sums of a hundred numbers of size 1e11 at the very most."""


@dataclass(frozen=True)
class Proof:
    """That all zeros between two heights were found."""

    first: int
    """Number of the first zero above `begin`."""
    last: int
    """Number of the last zero up to `end`: N(end)."""
    begin: float
    """Height from which on all zeros are known."""
    end: float
    """Height up to which all zeros are known."""
    limit: float
    """Upper limit on N(end) by Turing's bound; under last + 1."""
    mean_s: float
    """Mean of S at these zeros; a missing zero would move it towards −1, an extra one towards 1."""
    certainty: float
    """The least, over neighbouring zeros, of the largest |Z| computed between them."""
    neglected: float
    """Bound on what the formula for Z neglects at `begin`."""

    @property
    def rounding(self) -> float:
        """What rounding does to Z at most, as far as it was compared with mpmath (2e-13 at 1e6, 7e-12 at 1e8, 4e-11 at
        1.5e10, the largest of some points of a block): 1e-15·√t. Measured, not proved."""
        return 1e-15 * math.sqrt(self.end)


def turing_bound(t: float) -> float:
    """Largest possible |∫ S| over a range above 168π that ends at t."""
    return 2.30 + 0.128 * math.log(t / TWO_PI)


def neglected(t: float) -> float:
    """Gabcke's bound (1979) on the Riemann-Siegel remainder after C_4, 0.017 t^(−11/4) for t ≥ 200; below 2π·20², where
    Euler and Maclaurin are closer, its value there."""
    return 0.017 * max(t, TWO_PI * 400) ** -2.75


def reach_below(t: float) -> float:
    """How far down to look for zeros so that N(t) gets a lower limit; 0 where counting begins at the first zero."""
    below = t - _REACH * turing_bound(max(t, TURING_HOLDS))
    return below if below > TURING_HOLDS else 0.0


def reach_above(t: float) -> float:
    """How far up to look for zeros so that N(t) gets an upper limit."""
    t = max(t, TURING_HOLDS + 1)
    return t + _REACH * turing_bound(t + 20)


def most_zeros(t: float, heights: np.ndarray, end: float) -> float:
    """Upper limit on N(t) from zeros known in (t, end]; true whichever others there are."""
    above = heights[(heights > t) & (heights <= end)]
    area = float(integral_of_smooth_count(end, t)) - float(np.sum(end - above))
    return (turing_bound(end) + area) / (end - t) + _ROUNDING


def least_zeros(t: float, heights: np.ndarray, begin: float) -> float:
    """Lower limit on N(t) from zeros known in (begin, t]; true whichever others there are."""
    below = heights[(heights > begin) & (heights <= t)]
    area = float(integral_of_smooth_count(t, begin)) + float(np.sum(below - begin))
    return (area - turing_bound(t)) / (t - begin) - _ROUNDING


def prove(heights: np.ndarray, begin: float, end: float, certainty: float) -> Proof | None:
    """The proof that `heights`, the zeros found in (begin, end], are all over most of it; None where there is none.

    Args:
        heights: rising.
        begin: under 14, or above 168π.
        certainty: as in the proof.
    """
    if begin <= BELOW_ALL_ZEROS:
        bottom, below = begin, 0
    else:
        bottom = _turned(begin, up=True)
        below = math.floor(most_zeros(bottom, heights, min(2 * bottom - begin, end)))
        if below < least_zeros(bottom, heights, begin):
            return None
    top = _turned(end, up=False)
    limit = most_zeros(top, heights, end)
    found = heights[(heights > bottom) & (heights <= top)]
    if top <= bottom or math.floor(limit) != below + len(found) or not len(found):
        return None
    mean_s = float(np.mean(s_at_zeros(found, below + 1)))
    return Proof(below + 1, below + len(found), bottom, top, limit, mean_s, certainty, neglected(bottom))


def _turned(t: float, *, up: bool) -> float:
    """The height whose reach, down or up, ends at t."""
    length = _REACH * turing_bound(t + 30)
    return t + length if up else t - length


def s_at_zeros(heights: np.ndarray, first: int) -> np.ndarray:
    """S at zeros numbered from `first` on, the mean of its values to both sides: n − 1/2 − θ(γ_n)/π − 1."""
    return np.arange(first, first + len(heights)) - 0.5 - smooth_count(heights)
