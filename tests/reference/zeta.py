"""Slow twins of what the zeros are computed with: Z, θ, phases and corrections by mpmath, in many digits."""

from __future__ import annotations

from fractions import Fraction

import mpmath


def hardy(t: float, offset: float) -> float:
    """Z(t + offset), the sum not rounded."""
    with mpmath.workdps(40):
        return float(mpmath.siegelz(mpmath.mpf(t) + mpmath.mpf(offset)))


def turns(t: float, n: int) -> float:
    """t·ln n / 2π modulo 1, in [−1/2, 1/2], by 60 digits."""
    with mpmath.workdps(60):
        value = mpmath.mpf(t) * mpmath.log(n) / (2 * mpmath.pi)
        return float(value - mpmath.nint(value))


def theta_turns(t: float) -> float:
    """θ(t)/2π modulo 1."""
    with mpmath.workdps(60):
        value = mpmath.siegeltheta(mpmath.mpf(t)) / (2 * mpmath.pi)
        return float(value - mpmath.nint(value))


def correction(k: int, p: Fraction) -> float:
    """C_k(p) of the Riemann-Siegel formula by numerical derivatives of Ψ (Edwards, section 7.4)."""
    pi = mpmath.pi
    with mpmath.workdps(60):

        def psi(x):
            return mpmath.cos(2 * pi * (x * x - x - mpmath.mpf(1) / 16)) / mpmath.cos(2 * pi * x)

        def derivative(order: int):
            return mpmath.diff(psi, mpmath.mpf(p.numerator) / p.denominator, order)

        formulas = (
            lambda: derivative(0),
            lambda: -derivative(3) / (96 * pi**2),
            lambda: derivative(2) / (64 * pi**2) + derivative(6) / (18432 * pi**4),
            lambda: (
                -derivative(1) / (64 * pi**2)
                - derivative(5) / (3840 * pi**4)
                - derivative(9) / (5308416 * pi**6)
            ),
            lambda: (
                derivative(0) / (128 * pi**2)
                + 19 * derivative(4) / (24576 * pi**4)
                + 11 * derivative(8) / (5898240 * pi**6)
                + derivative(12) / (2038431744 * pi**8)
            ),
        )
        return float(formulas[k]())
