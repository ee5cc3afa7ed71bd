"""The numbers that the formulas need, each worked out here from its definition, with digits to spare.

Everything is computed in decimal arithmetic and rounded once: Taylor series lose digits on the way, and a phase
t·ln n is wanted modulo 2π where t·ln n itself is millions.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from fractions import Fraction
from functools import lru_cache
from math import comb, ldexp

import numpy as np

PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211707"
)
_DIGITS = 90
_BITS = 192
_TERMS = 60
"""Of the Taylor series of Ψ; its coefficients are below 1e-20 long before, and lose 18 digits on the way."""
_STEPS = (
    ((0, Fraction(1), 0),),
    ((3, Fraction(-1, 96), 2),),
    ((2, Fraction(1, 64), 2), (6, Fraction(1, 18432), 4)),
    ((1, Fraction(-1, 64), 2), (5, Fraction(-1, 3840), 4), (9, Fraction(-1, 5308416), 6)),
    (
        (0, Fraction(1, 128), 2),
        (4, Fraction(19, 24576), 4),
        (8, Fraction(11, 5898240), 6),
        (12, Fraction(1, 2038431744), 8),
    ),
)
"""C_0 to C_4 of the Riemann-Siegel formula: (derivative of Ψ by p, factor, power of 1/π) of each summand
(Edwards, Riemann's Zeta Function, section 7.4)."""


@lru_cache(maxsize=1)
def remainder_series(terms: int = 40) -> np.ndarray:
    """Taylor coefficients of C_0(p) to C_4(p) in z = 2p − 1: float64 [5, terms], rising powers.

    Ψ(p) = cos(2π(p² − p − 1/16)) / cos(2πp) = −cos(πz²/2 − 5π/8) / cos(πz) = cos(πz²/2 + 3π/8) / cos(πz), entire.
    """
    with localcontext() as context:
        context.prec = _DIGITS
        root = Decimal(2).sqrt()
        cosine, sine = (2 - root).sqrt() / 2, (2 + root).sqrt() / 2  # of 3π/8
        above, below = [Decimal(0)] * _TERMS, [Decimal(0)] * _TERMS
        power, factorial = Decimal(1), 1
        for k in range(_TERMS):  # (π/2)ᵏ z²ᵏ / k! and πᵏ zᵏ / k!
            sign = (1, -1, -1, 1)[k % 4]  # cos(x + 3π/8) = Σ over x⁰cos, −x¹sin, −x²cos, x³sin, ...
            if 2 * k < _TERMS:
                above[2 * k] = sign * (cosine, sine)[k % 2] * power / (Decimal(2) ** k * factorial)
            if k % 2 == 0:
                below[k] = (-1) ** (k // 2) * power / factorial
            power, factorial = power * PI, factorial * (k + 1)
        psi: list[Decimal] = []
        for k in range(_TERMS):
            psi.append(above[k] - sum((below[j] * psi[k - j] for j in range(1, k + 1)), Decimal(0)))
        rows = [[_corrected(psi, summands, k) for k in range(terms)] for summands in _STEPS]
    return np.array(rows, dtype=np.float64)


def _corrected(psi: list[Decimal], summands: tuple[tuple[int, Fraction, int], ...], k: int) -> float:
    """Coefficient k of a sum of derivatives of Ψ by p; each d/dp is 2 d/dz."""
    total = Decimal(0)
    for order, factor, power in summands:
        rising = 1
        for j in range(1, order + 1):
            rising *= 2 * (k + j)
        total += psi[k + order] * rising * factor.numerator / factor.denominator / PI**power
    return float(total)


@lru_cache(maxsize=1)
def bernoulli(most: int = 24) -> tuple[Fraction, ...]:
    """B_0, B_2, B_4, ..., of which `most`."""
    every = [Fraction(1)]
    for m in range(1, 2 * most):
        every.append(-sum((comb(m + 1, j) * every[j] for j in range(m)), Fraction(0)) / (m + 1))
    return tuple(every[::2])


def theta_tail(terms: int = 10) -> np.ndarray:
    """Coefficients of 1/t, 1/t³, ... of θ(t): (1 − 2^(1−2k))|B_2k| / (4k(2k − 1)) for k = 1, 2, ...: float64."""
    return np.array(
        [
            float((1 - Fraction(1, 2 ** (2 * k - 1))) * abs(bernoulli()[k]) / (4 * k * (2 * k - 1)))
            for k in range(1, terms + 1)
        ]
    )


def euler_maclaurin_factors(terms: int = 16) -> np.ndarray:
    """B_2k / (2k)! for k = 1, 2, ...: float64."""
    values, factorial = [], 1
    for k in range(1, terms + 1):
        factorial *= (2 * k - 1) * 2 * k
        values.append(float(bernoulli()[k] / factorial))
    return np.array(values)


class Logarithms:
    """ln n / 2π for n = 1, 2, ..., as unevaluated sums of two float64 (106 bits); grows when more are asked for.

    In integers of _BITS bits after the point: ln n = ln(n − 1) + 2 artanh(1/(2n − 1)).
    """

    def __init__(self) -> None:
        self._last = 0
        self._parts = np.zeros((2, 1))

    def up_to(self, most: int) -> np.ndarray:
        """float64 [2, ≥ most]: high and low parts; column n − 1 belongs to n."""
        known = self._parts.shape[1]
        if known < most:
            parts = np.empty((2, most))
            parts[:, :known] = self._parts
            circle = int(2 * PI * (1 << _BITS))
            for n in range(known + 1, most + 1):
                self._last += 2 * _artanh_of_inverse(2 * n - 1)
                turns = (self._last << _BITS) // circle
                high = ldexp(float(turns), -_BITS)
                parts[0, n - 1] = high
                parts[1, n - 1] = ldexp(float(turns - int(ldexp(high, _BITS))), -_BITS)
            self._parts = parts
        return self._parts


def _artanh_of_inverse(k: int) -> int:
    """artanh(1/k) times 2^_BITS, cut off."""
    power, square, order = (1 << _BITS) // k, k * k, 1
    total = 0
    while power:
        total += power // order
        power //= square
        order += 2
    return total


LOGARITHMS = Logarithms()
