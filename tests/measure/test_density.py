"""Densities against scoringrules, scipy and quadrature; scores against what is known of calibrated predictors."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from ourospec.measure.density import Mixture, Tabulated, ks_distance, paired, score

WIGNER = stats.maxwell(scale=np.sqrt(np.pi / 8))


def draw_mixture(count: int, components: int = 8, seed: int = 0) -> tuple[Mixture, np.random.Generator]:
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(components), count)
    shape = (count, components)
    return Mixture(weights, generator.normal(1, 0.5, shape), generator.uniform(0.02, 0.8, shape)), generator


def table(law, end=6.0, points=301) -> Tabulated:
    grid = np.linspace(0, end, points)
    return Tabulated(grid, law.pdf(grid)[None])


def test_crps_of_a_mixture_is_its_integral():
    mixture, generator = draw_mixture(6, 3)
    y = generator.normal(1, 1, 6)
    x = np.linspace(-8, 10, 90_001)
    for n, value in enumerate(y):
        row = Mixture(
            *(
                part[n : n + 1].repeat(len(x), axis=0)
                for part in (mixture.weights, mixture.means, mixture.scales)
            )
        )
        wanted = np.square(row.cdf(x) - (x >= value)).sum() * (x[1] - x[0])
        assert mixture.crps(y)[n] == pytest.approx(wanted, abs=2e-4)


@pytest.mark.slow  # importing the oracle takes most of it
def test_crps_of_a_mixture_is_that_of_scoringrules():
    oracle = pytest.importorskip("scoringrules")
    mixture, generator = draw_mixture(500)
    y = generator.normal(1, 1, 500)
    wanted = oracle.crps_mixnorm(y, mixture.means, mixture.scales, mixture.weights)
    assert np.allclose(mixture.crps(y), wanted, rtol=0, atol=1e-13)


def test_a_mixture_is_that_of_scipy():
    mixture, generator = draw_mixture(200, 3)
    y = generator.normal(1, 1, 200)
    parts = stats.norm(mixture.means, mixture.scales)
    assert np.allclose(
        mixture.log_prob(y), np.log((mixture.weights * parts.pdf(y[:, None])).sum(1)), atol=1e-12
    )
    assert np.allclose(mixture.cdf(y), (mixture.weights * parts.cdf(y[:, None])).sum(1), atol=1e-14)
    second = (mixture.weights * (mixture.scales**2 + mixture.means**2)).sum(1)
    assert np.allclose(mixture.std() ** 2, second - mixture.mean() ** 2)
    # A component without weight says nothing, and takes no logarithm of 0 anywhere.
    mute = Mixture(np.array([[1.0, 0.0]]), np.array([[1.0, 5.0]]), np.array([[0.3, 0.3]]))
    assert mute.log_prob(np.ones(1)) == pytest.approx(stats.norm(1, 0.3).logpdf(1.0))


def test_a_table_is_the_law_it_was_made_of():
    y = np.random.default_rng(0).uniform(0.05, 4, 400)
    found = table(WIGNER)
    assert np.allclose(found.log_prob(y), WIGNER.logpdf(y), atol=1e-4)
    assert np.allclose(found.cdf(y), WIGNER.cdf(y), atol=3e-8)
    assert found.mean() == pytest.approx(1.0, abs=1e-7)
    assert found.std() == pytest.approx(WIGNER.std(), abs=1e-7)
    for value in (-0.3, 0.0, 0.2, 1.003, 3.0, 7.5):
        wanted = quad(lambda x: WIGNER.cdf(x) ** 2, 0, max(value, 0))[0] + max(value - 12, 0)
        wanted += quad(lambda x: WIGNER.sf(x) ** 2, value, 12, points=[0.0] if value < 0 else None)[0]
        assert found.crps(np.array([value])) == pytest.approx(wanted, abs=1e-7)


def test_a_table_knows_nothing_outside_its_grid():
    y = np.array([-0.1, 6.1])
    assert np.isneginf(table(WIGNER).log_prob(y)).all()
    assert table(WIGNER).cdf(y).tolist() == [0.0, 1.0]


def test_rows_of_a_table_are_their_own():
    scales = np.array([0.5, 1.0, 1.4])
    grid, y = np.linspace(0, 12, 601), np.array([0.7, 1.1, 2.9])
    law = stats.maxwell(scale=scales[:, None])
    both = Tabulated(grid, law.pdf(grid))
    apart = [Tabulated(grid, law.pdf(grid)[n : n + 1]) for n in range(3)]
    for name in ("log_prob", "cdf", "crps"):
        singly = [getattr(one, name)(y[n : n + 1])[0] for n, one in enumerate(apart)]
        assert np.allclose(getattr(both, name)(y), singly, rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["mixture", "table"])
def test_samples_are_of_the_density(kind):
    density = draw_mixture(4_000, 3)[0] if kind == "mixture" else table(WIGNER).repeated(4_000)
    drawn = density.sample(np.random.default_rng(5))
    assert drawn.shape == (4_000,)
    assert stats.kstest(density.cdf(drawn), "uniform").pvalue > 0.01


def test_a_predictor_that_knows_is_calibrated():
    mixture, generator = draw_mixture(20_000, 2)
    y = mixture.sample(generator)
    figures = score(mixture, y, np.arange(20_000) // 200)
    for level in (50, 80, 95):
        assert abs(figures[f"coverage_{level}"] - level / 100) < 4 * figures[f"coverage_{level}_se"]
    assert figures["pit_ks"] == pytest.approx(stats.kstest(mixture.cdf(y), "uniform").statistic, abs=1e-12)
    assert figures["pit_ks"] < 1.63 / np.sqrt(20_000)
    assert sum(figures["pit_histogram"]) == pytest.approx(1)
    assert figures["below_zero"] == pytest.approx(mixture.cdf(np.zeros(20_000)).mean())
    assert (figures["targets"], figures["blocks"]) == (20_000, 100)
    assert figures["nll_se"] == pytest.approx(mixture.log_prob(y).std() / np.sqrt(20_000), rel=0.3)


def test_a_predictor_that_is_too_sure_is_found_out():
    mixture, generator = draw_mixture(5_000, 2)
    y = mixture.sample(generator)
    sure = score(Mixture(mixture.weights, mixture.means, mixture.scales / 2), y, np.arange(5_000) // 100)
    honest = score(mixture, y, np.arange(5_000) // 100)
    assert sure["coverage_80"] < 0.75 and sure["pit_ks"] > 3 * honest["pit_ks"]
    assert sure["nll"] > honest["nll"] and sure["crps"] > honest["crps"]
    assert sure["sharpness"] < honest["sharpness"]


def test_one_block_has_no_error():
    figures = score(table(WIGNER), np.array([0.5, 1.0]), np.zeros(2, dtype=int))
    assert np.isnan(figures["nll_se"]) and np.isnan(figures["pit_ks_se"]) and np.isfinite(figures["nll"])


def test_the_error_of_a_distance_takes_blocks_for_units():
    """A hundred copies of each value are no more evidence than one."""
    u = np.random.default_rng(0).random(200)
    once = ks_distance(u, np.arange(200))
    often = ks_distance(np.repeat(u, 100), np.repeat(np.arange(200), 100))
    assert often.value == pytest.approx(once.value, abs=1e-12)
    assert often.error == pytest.approx(once.error, rel=1e-9)


def test_paired_differences_see_what_is_common():
    covered, blocks = 0, np.arange(4_000) // 40
    for seed in range(40):
        generator = np.random.default_rng(seed)
        ours = generator.normal(0, 5, 4_000)
        theirs = ours + generator.normal(0.02, 0.1, 4_000)
        found = paired(ours, theirs, blocks)
        assert found["difference"] == pytest.approx((theirs - ours).mean())
        assert 0.004 < found["high"] - found["low"] < 0.009, "the losses themselves vary fifty times as much"
        covered += found["low"] < 0.02 < found["high"]
    assert covered >= 34, "38 of 40 are expected"
    turned = paired(theirs, ours, blocks)
    assert (turned["low"], turned["high"]) == pytest.approx((-found["high"], -found["low"]))
    assert np.isnan(paired(ours, theirs, np.zeros(4_000))["low"])
