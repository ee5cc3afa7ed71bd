"""The parts of Z against mpmath, in many digits and by other means."""

import importlib.util
import math
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ourospec.data.zeros import kernels
from ourospec.data.zeros.compute import LOW_TERMS, plan_blocks
from ourospec.data.zeros.constants import LOGARITHMS, euler_maclaurin_factors, remainder_series, theta_tail
from ourospec.data.zeros.theta import height_of, integral_of_smooth_count, smooth_count, theta

mpmath = pytest.importorskip("mpmath")
spec = importlib.util.spec_from_file_location("zeta", Path(__file__).parents[2] / "reference" / "zeta.py")
zeta = importlib.util.module_from_spec(spec)
spec.loader.exec_module(zeta)


@pytest.fixture(scope="module")
def logarithms():
    return LOGARITHMS.up_to(4600)


def apart(a: float, b: float) -> float:
    """Distance of two numbers modulo 1."""
    return abs((a - b + 0.5) % 1.0 - 0.5)


@pytest.mark.parametrize("t", [17.25, 2600.0, 1132490.6587144108, 3.3e9 + 0.1, 2.9e10 + 0.7])
@pytest.mark.parametrize("n", [2, 3, 97, 424, 4500])
def test_phases_keep_their_digits(logarithms, t, n):
    got = kernels.turns(t, logarithms[0, n - 1], logarithms[1, n - 1])
    assert apart(got, zeta.turns(t, n)) < 2e-16


def test_what_the_second_part_of_a_logarithm_is_for(logarithms):
    exact = zeta.turns(3.3e9, 97)
    assert apart(kernels.turns(3.3e9, logarithms[0, 96], 0.0), exact) > 1e-9
    assert apart(kernels.turns(3.3e9, *logarithms[:, 96]), exact) < 2e-16


@pytest.mark.parametrize("t", [2600.0, 74920.8, 600269.677, 1132490.658, 1e8 + 0.1])
def test_theta_keeps_its_digits(logarithms, t):
    m = int(math.sqrt(t / (2 * math.pi)))
    assert apart(kernels.theta_turns(t, m, logarithms, theta_tail()), zeta.theta_turns(t)) < 1e-14 * max(
        1, m / 400
    )


@pytest.mark.parametrize("k", range(5))
def test_corrections_of_riemann_and_siegel(k):
    series = remainder_series()[k]
    for p in (Fraction(1, 10), Fraction(1, 3), Fraction(9, 10)):
        exact = zeta.correction(k, p)
        assert np.polynomial.polynomial.polyval(float(2 * p - 1), series) == pytest.approx(exact, abs=1e-13)


def test_theta_and_its_inverse():
    for t in (10.0, 100.0, 1e6):
        assert float(theta(t)) == pytest.approx(float(mpmath.siegeltheta(t)), rel=2e-16, abs=3e-14)
    for count in (1.0, 10.5, 2_001_052.0, 1e11):
        assert float(smooth_count(height_of(count))) == pytest.approx(count, abs=2e-3)
    area = mpmath.quad(lambda t: mpmath.siegeltheta(t) / mpmath.pi + 1, [1000, 1011])
    assert float(integral_of_smooth_count(1011.0, 1000.0)) == pytest.approx(float(area), rel=1e-13)


def z_on_grid(centre, step, half, m):
    """Z by the kernels, m = 0 for Euler and Maclaurin."""
    tables = (LOGARITHMS.up_to(4600), theta_tail())
    if m:
        return kernels.hardy_high(centre, step, half, 2 * half + 1, m, *tables, remainder_series())
    return kernels.hardy_low(centre, step, half, 2 * half + 1, *tables, euler_maclaurin_factors())


@pytest.mark.parametrize(
    ("centre", "tolerance"),
    # 0.017 t^(-11/4) is Gabcke's bound, 8e-12 in the second last; the others are held to 1e-15·√t and 1e-14.
    [(20.0, 2e-14), (1000.0, 5e-14), (2600.0, 8e-12), (1.1e6, 1.1e-12)],
)
def test_z_on_a_grid(centre, tolerance):
    m = int(math.sqrt(centre / (2 * math.pi))) if centre > 2 * math.pi * LOW_TERMS**2 else 0
    half, step = (60, 0.1) if centre < 100 else (900, 0.05)
    values = z_on_grid(centre, step, half, m)
    for i in (0, half // 3, half, 2 * half - 4, 2 * half):
        assert values[i] == pytest.approx(zeta.hardy(centre, (i - half) * step), abs=tolerance)


def test_the_two_formulas_meet():
    """Either side of the height where Euler and Maclaurin hand over to Riemann and Siegel."""
    border = 2 * math.pi * LOW_TERMS**2
    low, high = z_on_grid(border, 0.1, 20, 0), z_on_grid(border, 0.1, 20, LOW_TERMS)
    np.testing.assert_allclose(low, high, rtol=0, atol=8e-12)


def test_interpolation_between_grid_points():
    step, half = 0.052, 300
    values = z_on_grid(1.1e6, step, half, 418)
    for x in (half + 0.5, half - 3.25, 20.999):
        exact = zeta.hardy(1.1e6, (x - half) * step)
        assert kernels.interpolate(values, x) == pytest.approx(exact, abs=3e-12)


def test_blocks_cover_without_gaps_and_do_not_cross_where_m_changes():
    blocks = list(plan_blocks(10.0, 30_000.0, 10))
    edges = [(b.centre - b.half * b.step, b.centre + b.half * b.step) for b in blocks]
    assert edges[0][0] == pytest.approx(10.0)
    assert edges[-1][1] == pytest.approx(30_000.0)
    for (_, end), (begin, _) in pairwise(edges):
        assert begin == pytest.approx(end, abs=1e-9)
    for (begin, end), block in zip(edges, blocks, strict=True):
        if block.m:
            assert 2 * math.pi * block.m**2 - 1e-6 < begin < end < 2 * math.pi * (block.m + 1) ** 2 + 1e-6


def parabola(least: float) -> np.ndarray:
    """Grid values of a smooth curve that comes as near to the axis as `least` between two grid points."""
    x = np.arange(41.0)
    return ((x - 20.3) ** 2 / 40 + least) * np.cos((x - 20) / 60)


def test_a_pair_between_two_grid_points_is_found():
    values, places, facts = parabola(-1e-5), np.empty(41), np.empty(4)
    assert (values > 0).all()
    assert kernels.zeros_on_grid(values, 10, 30, places, facts) == 2
    np.testing.assert_allclose(places[:2], 20.3 + np.array([-0.02, 0.02]), atol=1e-6)
    assert facts[0] == pytest.approx(1e-5, rel=1e-3)


def test_a_dip_that_does_not_reach_the_axis_is_no_pair():
    places, facts = np.empty(41), np.empty(4)
    assert kernels.zeros_on_grid(parabola(1e-5), 10, 30, places, facts) == 0
    assert facts[3] == 1


def test_a_zero_belongs_to_one_block_only():
    places, facts = np.empty(41), np.empty(4)
    values = np.sin((np.arange(41.0) - 20.3) / 5)
    assert kernels.zeros_on_grid(values, 10, 20, places, facts) == 0
    assert kernels.zeros_on_grid(values, 20, 30, places, facts) == 1
    assert places[0] == pytest.approx(20.3, abs=1e-9)
