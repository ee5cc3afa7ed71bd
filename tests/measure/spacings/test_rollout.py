"""Statistics of series, rollouts and responses, on series and predictors that are known exactly."""

import numpy as np
import pytest

from ourospec.data.spacings import Series, frozen_targets, heights_of, nulls, unfold
from ourospec.errors import DataError
from ourospec.measure.density import Mixture
from ourospec.measure.spacings.autoregression import Autoregression, fit
from ourospec.measure.spacings.laws import gue_surmise
from ourospec.measure.spacings.response import heard_primes, prime_powers, response
from ourospec.measure.spacings.rollout import ensemble_crps, roll_out, score_rollout, starts_of
from ourospec.measure.spacings.statistics import (
    BINS,
    gue_number_variance,
    gue_pair_correlation,
    number_variance,
    pair_correlation,
)


def series(spacings: np.ndarray, start: float = 1e5) -> Series:
    return Series(heights_of(start + np.concatenate([[0.0], np.cumsum(spacings)])), spacings)


def primes_song(count: int, primes: tuple[int, ...], noise: float = 0.02, start: float = 1e6) -> Series:
    """Zeros that carry the tones of a few primes, ω constant in t, and a little noise."""
    places = heights_of(start + np.arange(count + 1.0))
    shift = sum(0.15 * np.sin(places * np.log(p)) / p**0.5 for p in primes)
    heights = heights_of(
        start + np.arange(count + 1.0) + shift + noise * np.random.default_rng(0).normal(size=count + 1)
    )
    return Series(heights, unfold(heights))


def test_statistics_of_the_sine_process():
    matrices = nulls.gue_spacings(nulls.BULK * 14, 0).reshape(14, -1)
    for length in (0.5, 2.0, 8.0):
        assert number_variance(matrices, length) == pytest.approx(gue_number_variance(length), rel=0.05)
    # ln(2πL) + γ + 1, over π²: what it tends to.
    assert gue_number_variance(50.0) == pytest.approx(
        (np.log(100 * np.pi) + 0.57722 + 1) / np.pi**2, abs=2e-4
    )
    away = pair_correlation(matrices) - gue_pair_correlation()
    assert np.abs(away).max() < 0.1 and np.abs(away.mean()) < 0.005


def test_statistics_of_points_that_do_not_know_of_each_other_and_of_a_lattice():
    poisson = np.random.default_rng(0).exponential(size=(4, 5_000))
    assert number_variance(poisson, 4.0) == pytest.approx(4.0, rel=0.1)
    assert pair_correlation(poisson).mean() == pytest.approx(1.0, abs=0.02)
    lattice = np.ones((2, 200))
    assert number_variance(lattice, 3.0) < 0.05
    width = BINS[1] - BINS[0]
    assert pair_correlation(lattice).sum() * width == pytest.approx(4, abs=1.01)


def test_the_ensemble_score_is_fair():
    """Its mean is that of the law whatever the number of members: for N(0, 1) 1/√π."""
    generator = np.random.default_rng(0)
    truth = generator.normal(size=40_000)
    for members in (2, 16):
        found = ensemble_crps(generator.normal(size=(members, 40_000)), truth)
        assert found.mean() == pytest.approx(np.pi**-0.5, abs=4 * found.std() / 200)
    three, y = np.array([[0.0], [1.0], [3.0]]), np.array([1.5])
    assert ensemble_crps(three, y) == pytest.approx((1.5 + 0.5 + 1.5) / 3 - (1 + 3 + 2) / 3 / 2)


def test_a_rollout_goes_on_from_its_own_draws():
    """Each step is the mean of the past's last two plus 0.01, with no spread to speak of."""

    def predict(targets):
        mean = (targets.past[:, -2:].mean(1) + 0.01)[:, None]
        assert np.allclose(unfold(targets.past_heights[0]), targets.past[0], atol=1e-6)
        return Mixture(np.ones_like(mean), mean, np.full_like(mean, 1e-9))

    start = series(np.array([0.5, 1.5, 1.0, 2.0])).heights[None]
    wanted = [1.0, 2.0]
    for _ in range(5):
        wanted.append((wanted[-1] + wanted[-2]) / 2 + 0.01)
    for generator in (None, np.random.default_rng(0)):
        assert roll_out(predict, start, 5, generator)[0] == pytest.approx(wanted[2:], abs=1e-6)


def test_rows_of_a_rollout_by_one_law_are_drawn_apart():
    start = np.repeat(series(np.ones(4)).heights[None], 50, axis=0)
    drawn = roll_out(gue_surmise().predict, start, 3, np.random.default_rng(0))
    assert len(np.unique(drawn)) == 150
    assert drawn.mean() == pytest.approx(1, abs=0.15)


def test_a_rollout_of_the_truth_is_scored_as_such():
    """A predictor that knows the law of an autoregressive series beats the climate near by and equals it far off."""
    generator = np.random.default_rng(1)
    spacings = np.ones(12_000)
    for n in range(1, len(spacings)):
        spacings[n] = 1 + 0.9 * (spacings[n - 1] - 1) + 0.05 * generator.normal()
    whole = series(spacings)
    predictor = Autoregression([whole], 1)
    starts = starts_of([whole], 8, 50, 150)
    assert starts.heights.shape == (150, 9) and starts.future.shape == (150, 50)
    found = score_rollout(predictor.predict, starts, spacings, members=8)
    assert found["horizons"] == [1, 10, 50]
    assert found["worse_by"][0] < -4 * found["worse_by_se"][0]
    assert abs(found["worse_by"][2]) < 4 * found["worse_by_se"][2]
    assert found["crps"][0] == pytest.approx(0.05 / np.pi**0.5, rel=0.2)
    assert found["statistics"]["lag_1"] == pytest.approx(0.9, abs=0.05)
    assert found["statistics"]["variance"] == pytest.approx(found["zeros"]["variance"], rel=0.25)
    with pytest.raises(DataError, match="roll out"):
        starts_of([whole.cut(0, 40)], 8, 50, 10)


def test_the_response_of_a_linear_predictor_is_its_coefficients():
    whole = primes_song(6_000, (2, 3))
    predictor = Autoregression([whole], 12)
    targets = frozen_targets([whole], context=40, most=5)
    found = response(predictor.predict, targets, 16)
    coefficients = fit([whole.spacings], 12).coefficients[::-1]
    assert np.allclose(found[:, :12], coefficients, atol=1e-5)
    assert np.allclose(found[:, 12:], 0, atol=1e-5)


def test_primes_that_sing_are_heard_and_others_are_not():
    whole = primes_song(30_000, (2, 3, 7))
    targets = frozen_targets([whole], context=64, most=8)
    found = heard_primes(Autoregression([whole], 40).predict, targets, 40)
    heard = {tone["number"]: tone["heard"] for tone in found["tones"]}
    assert {number for number, yes in heard.items() if yes} >= {2, 3, 7}
    assert not any(heard[number] for number in (4, 5, 11, 13, 16, 17))
    assert len(found["frequencies"]) == len(found["left"])


def test_prime_powers_are_all_there():
    found = [number for number, _, _ in prime_powers(np.log(20.5))]
    assert found == [2, 3, 4, 5, 7, 8, 9, 11, 13, 16, 17, 19]
    assert (16, 2, 4) in prime_powers(3.0)
