"""Laws of one spacing, the sine-kernel predictor and linear prediction, against tables, exact values and simulation."""

import itertools

import numpy as np
import pytest
import torch

from ourospec.data.spacings import Series, Targets, frozen_targets, heights_of, nulls
from ourospec.errors import DataError
from ourospec.measure.density import Tabulated
from ourospec.measure.spacings.autoregression import Autoregression, fit
from ourospec.measure.spacings.laws import empirical, gaussian, goe_surmise, gue_surmise, poisson
from ourospec.measure.spacings.sine_kernel import GRID, SineKernel, at_panels


def entropy(density: Tabulated) -> np.ndarray:
    """[N] nats."""
    x = np.linspace(density.grid[0] + 1e-6, density.grid[-1], 60_001)
    step = x[1] - x[0]
    rows = [Tabulated(density.grid, row[None]).log_prob(x) for row in density.pdf]
    return np.array([-(np.exp(row) * np.maximum(row, -1e3)).sum() * step for row in rows])


def series(spacings: np.ndarray) -> Series:
    return Series(heights_of(10.0 + np.concatenate([[0.0], np.cumsum(spacings)])), spacings)


def no_targets(past: np.ndarray) -> Targets:
    count = len(past)
    return Targets(past, np.zeros((count, past.shape[1] + 1)), np.ones(count), np.arange(count))


@pytest.mark.parametrize(
    ("law", "nats", "spread"),
    [
        (poisson(), 1.0, 1.0),
        (goe_surmise(), None, np.sqrt(4 / np.pi - 1)),
        (gue_surmise(), 0.52880, np.sqrt(3 * np.pi / 8 - 1)),
    ],
)
def test_a_law_has_mean_1_and_its_known_entropy_and_spread(law, nats, spread):
    density = law.predict(no_targets(np.ones((1, 1))))
    assert density.mean() == pytest.approx(1, abs=1e-6)
    assert density.std() == pytest.approx(spread, abs=1e-6)
    if nats:
        assert entropy(density) == pytest.approx(nats, abs=2e-5)


def test_the_exact_gue_law_is_that_of_the_tables():
    """Mean, variance 0.17999 and entropy 0.53303; values of det(I − K) on [0, s] from Bornemann's method."""
    density = SineKernel(0).predict(no_targets(np.ones((1, 1))))
    assert density.mean() == pytest.approx(1, abs=1e-6)
    assert density.std() ** 2 == pytest.approx(0.17999, abs=1e-5)
    assert entropy(density) == pytest.approx(0.53303, abs=1e-5)
    # E(0; s) = ∫∫ p beyond s, here by its determinant on plain nodes.
    x, w = np.polynomial.legendre.leggauss(30)
    for s in (0.5, 1.0, 2.0):
        nodes, roots = s * (x + 1) / 2, np.sqrt(s * w / 2)
        gap = np.linalg.det(np.eye(30) - roots[:, None] * np.sinc(nodes[:, None] - nodes) * roots)
        beyond = np.linspace(s, 6, 20_001)
        wanted = ((1 - density.cdf(beyond)).sum() - 0.5 * (1 - density.cdf(np.array([s])))[0]) * (
            beyond[1] - beyond[0]
        )
        assert wanted == pytest.approx(gap, abs=2e-7)


def conditional_entropy(lags: int, nodes: int) -> float:
    """H_k = E[entropy of the next spacing given k], by Gauss-Legendre over the pasts and their exact joint law."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    x, w = 2 * (x + 1), 2 * w
    pasts = np.array(list(itertools.product(x, repeat=lags)))
    weights = np.array([np.prod(row) for row in itertools.product(w, repeat=lags)])
    for seen in range(lags):
        law = SineKernel(seen).predict(no_targets(pasts[:, :seen] if seen else pasts[:, :1]))
        weights = weights * np.exp(law.log_prob(pasts[:, seen]))
    kept = weights > 1e-9
    density = SineKernel(lags).predict(no_targets(pasts[kept]))
    grid = np.linspace(0, GRID[-1], 3 * (len(GRID) - 1) + 1)[1:-1]
    found = np.zeros(kept.sum())
    for place in grid:
        value = density.log_prob(np.full(len(found), place))
        found -= np.exp(value) * np.where(np.isfinite(value), value, 0)
    return float((weights[kept] * found).sum() * (grid[1] - grid[0]) / weights.sum())


@pytest.mark.parametrize(("lags", "nodes", "nats"), [(1, 24, 0.48156), (2, 16, 0.46274)])
def test_entropies_given_few_spacings_are_exact(lags, nodes, nats):
    assert conditional_entropy(lags, nodes) == pytest.approx(nats, abs=2e-5)


@pytest.mark.slow
def test_the_entropy_given_three_spacings_is_exact():
    assert conditional_entropy(3, 14) == pytest.approx(0.45304, abs=4e-5)


def test_the_conditional_density_is_a_ratio_of_janossy_densities():
    """det[[I − K_qq, −K_qx], [K_xq, K_xx]] on one set of nodes, over the same for the past alone."""

    def janossy(points: np.ndarray) -> float:
        x, w = np.polynomial.legendre.leggauss(60)
        length = points[-1] - points[0]
        nodes, root = points[0] + length * (x + 1) / 2, np.sqrt(length * w / 2)
        qq = root[:, None] * np.sinc(nodes[:, None] - nodes) * root
        qx = root[:, None] * np.sinc(nodes[:, None] - points)
        xx = np.sinc(points[:, None] - points)
        return float(np.linalg.det(np.block([[np.eye(60) - qq, -qx], [qx.T, xx]])))

    past = np.array([0.7, 1.4, 0.3, 1.1, 0.02, 0.9])
    points = np.concatenate([[0.0], np.cumsum(past)])
    density = SineKernel(6).predict(no_targets(past[None]))
    for s in (0.02, 0.13, 0.6, 1.234, 2.5):
        wanted = np.log(janossy(np.append(points, points[-1] + s)) / janossy(points))
        assert np.exp(density.log_prob(np.array([s]))) == pytest.approx(np.exp(wanted), rel=1e-4, abs=1e-6)


def test_survival_and_density_belong_together_and_rows_are_their_own():
    past = np.random.default_rng(0).gamma(5, 0.2, (12, 9))
    survival, _ = at_panels(torch.from_numpy(past))
    density = SineKernel(9).predict(no_targets(past))
    for panel, end in ((4, 0.5), (17, 4.4)):
        assert np.allclose(1 - density.cdf(np.full(12, end)), survival[:, panel], atol=2e-6)
    for row in (0, 7):
        alone = SineKernel(9).predict(no_targets(past[row : row + 1]))
        assert np.allclose(alone.pdf[0], density.pdf[row], atol=1e-9)


def test_pasts_that_matrices_hardly_have_get_a_density_all_the_same():
    past = np.array([[1.0, 1e-6, 1.0], [1e-9, 1e-9, 1e-9], [7.0, 0.4, 7.0], [3.0, 6.5, 0.1]])
    density = SineKernel(3).predict(no_targets(past))
    assert np.isfinite(density.pdf).all() and (density.pdf >= 0).all()
    assert np.isfinite(density.crps(np.ones(4))).all()


def test_on_gue_spacings_more_past_is_worth_what_theory_says():
    spacings = nulls.gue_spacings(nulls.BULK * 8, 1)
    stretches = [series(part) for part in np.split(spacings, 8)]
    targets = frozen_targets(stretches, context=32, most=2_000)
    losses = [-SineKernel(k).predict(targets).log_prob(targets.target) for k in (0, 4, 16)]
    for loss, nats in zip(losses, (0.53303, 0.4480, 0.4305), strict=True):
        assert loss.mean() == pytest.approx(nats, abs=4 * loss.std() / np.sqrt(2_000))
    gain = losses[1] - losses[2]
    assert gain.mean() == pytest.approx(0.0175, abs=4 * gain.std() / np.sqrt(2_000))


def test_least_squares_finds_a_linear_process():
    generator, noise = np.random.default_rng(0), 0.1
    spacings = np.ones(30_000)
    for n in range(2, 30_000):
        spacings[n] = (
            1 - 0.4 * (spacings[n - 1] - 1) + 0.3 * (spacings[n - 2] - 1) + noise * generator.normal()
        )
    found = fit([spacings[:10_000], spacings[10_000:]], 2)
    assert found.coefficients == pytest.approx([0.3, -0.4], abs=0.02)
    assert found.scale == pytest.approx(noise, rel=0.02)
    whole = [series(spacings)]
    targets = frozen_targets(whole, context=8, most=5_000)
    density = Autoregression(whole, 2).predict(targets)
    known = 0.5 * np.log(2 * np.pi * np.e * noise**2)
    assert -density.log_prob(targets.target).mean() == pytest.approx(known, abs=0.05)


def test_a_fit_nearby_sees_only_what_lies_below():
    generator = np.random.default_rng(1)
    calm, wild = 1 + 0.01 * generator.normal(size=3_000), 1 + 0.3 * generator.normal(size=3_000)
    whole = series(np.concatenate([calm, calm[:400], wild]))
    train = [whole.cut(0, 3_000), whole.cut(3_400, 6_400)]
    targets = frozen_targets([whole.cut(3_000, 3_400)], context=64)
    # The wild stretch lies above the targets: the future of their past.
    nearby = Autoregression(train, 4, nearby=2_000).predict(targets)
    assert np.allclose(nearby.std(), 0.01, rtol=0.1)
    assert Autoregression(train, 4).predict(targets).std()[0] > 0.1
    with pytest.raises(DataError, match="too few"):
        Autoregression(train[1:], 4, nearby=2_000).predict(targets)


def test_laws_of_the_training_spacings_are_theirs():
    spacings = nulls.wigner_spacings(200_000, 0)
    train = [series(spacings[:120_000]), series(spacings[120_000:])]
    target = no_targets(np.ones((3, 1)))
    assert gaussian(train).predict(target).mean() == pytest.approx(np.full(3, spacings.mean()))
    assert gaussian(train).predict(target).std() == pytest.approx(np.full(3, spacings.std()))
    y = np.linspace(0.05, 3, 60)
    wanted = gue_surmise().predict(target).cdf(y)
    assert np.allclose(empirical(train).predict(target).cdf(y), wanted, atol=0.006)
    assert np.isfinite(empirical(train).predict(target).log_prob(np.array([4.5]))).all()
