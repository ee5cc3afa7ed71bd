"""The nulls keep what they are said to keep, and nothing else."""

import numpy as np
import pytest

from ourospec.data.spacings import nulls


def lagged(x: np.ndarray, lag: int) -> float:
    return float(np.corrcoef(x[lag:], x[:-lag])[0, 1])


def folded(count: int) -> np.ndarray:
    """A logistic map with memory: each value follows from the one before, but not linearly."""
    x = np.empty(count)
    x[0] = 0.3
    for n in range(1, count):
        x[n] = 4 * x[n - 1] * (1 - x[n - 1])
    return 0.2 + x + 0.5 * np.roll(x, 1)


def bent(s: np.ndarray) -> float:
    """How much of a value the squared distance of the last one but one from the mean foretells."""
    return float(np.corrcoef(s[2:], (s[:-2] - s.mean()) ** 2)[0, 1])


def test_gue_spacings_are_those_of_the_sine_process():
    s = nulls.gue_spacings(28_000, 3)
    assert s.shape == (28_000,) and (s > 0).all()
    assert s.mean() == pytest.approx(1, abs=5e-4)
    # Bornemann's values: 0.17999 and -0.30837; the errors are those of 28,000 spacings.
    assert s.var() == pytest.approx(0.17999, abs=0.006)
    assert lagged(s, 1) == pytest.approx(-0.30837, abs=0.025)


def test_wigner_spacings_are_independent_draws_of_the_surmise():
    s = nulls.wigner_spacings(50_000, 3)
    assert s.mean() == pytest.approx(1, abs=0.008)
    assert s.var() == pytest.approx(3 * np.pi / 8 - 1, abs=0.006)
    assert lagged(s, 1) == pytest.approx(0, abs=0.02)


def test_shuffling_keeps_the_values_alone():
    s = folded(5_000)
    found = nulls.shuffled(s, 0)
    assert np.array_equal(np.sort(found), np.sort(s))
    assert abs(lagged(found, 1)) < 0.06 < 0.3 < lagged(s, 1)


def test_random_phases_keep_values_and_spectrum_alone():
    s = folded(20_000)
    found = nulls.phase_randomised(s, 0)
    assert np.array_equal(np.sort(found), np.sort(s))
    for lag in (1, 2, 5, 9):
        assert lagged(found, lag) == pytest.approx(lagged(s, lag), abs=0.03)
    assert abs(np.corrcoef(found, s)[0, 1]) < 0.05
    assert abs(bent(found)) < 0.05 < 0.2 < abs(bent(s))


def test_seeds_decide_and_nothing_else_does():
    s = folded(3_000)
    for draw in (
        lambda seed: nulls.gue_spacings(1_500, seed),
        lambda seed: nulls.wigner_spacings(100, seed),
        lambda seed: nulls.shuffled(s, seed),
        lambda seed: nulls.phase_randomised(s, seed),
    ):
        assert np.array_equal(draw(1), draw(1))
        assert not np.array_equal(draw(1), draw(2))
    assert np.array_equal(nulls.gue_spacings(1_500, 0)[:100], nulls.gue_spacings(100, 0))
