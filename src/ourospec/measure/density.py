"""Predictive densities of real numbers, and how well they foretell: nats, CRPS, calibration, sharpness.

Letters: N targets, K components of a mixture, G points of a grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import logsumexp, ndtr

from ourospec.measure.likelihood import Ratio
from ourospec.measure.oracle import by_document, with_error

BINS = 20
"""Of a PIT histogram."""
LEVELS = (0.5, 0.8, 0.95)
"""Of the central intervals whose coverage is counted."""
RESAMPLINGS = 200
"""For the standard error of a distance, which is no mean."""
LOG_ROOT = 0.5 * np.log(2 * np.pi)


class Density(Protocol):
    """What a predictor says of N targets: one density each. All numbers are float64."""

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        """ln p_n(y_n) in nats, [N]; −inf where the density is 0."""
        ...

    def cdf(self, y: np.ndarray) -> np.ndarray:
        """P_n(Y ≤ y_n), [N]."""
        ...

    def mean(self) -> np.ndarray:
        """[N]."""
        ...

    def std(self) -> np.ndarray:
        """Standard deviations, [N]."""
        ...

    def crps(self, y: np.ndarray) -> np.ndarray:
        """∫ (F_n(x) − 1{x ≥ y_n})² dx, [N], in units of y (Matheson and Winkler 1976)."""
        ...

    def sample(self, generator: np.random.Generator) -> np.ndarray:
        """One draw from each density, [N]."""
        ...


@dataclass(frozen=True)
class Mixture:
    """Mixtures of Gaussians."""

    weights: np.ndarray
    """[N, K], adding up to 1 in each row."""
    means: np.ndarray
    """[N, K]."""
    scales: np.ndarray
    """[N, K] standard deviations, above 0."""

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        z = (y[:, None] - self.means) / self.scales
        with np.errstate(divide="ignore"):
            terms = np.log(self.weights) - np.log(self.scales) - LOG_ROOT - 0.5 * z * z
        return np.asarray(logsumexp(terms, axis=1))

    def cdf(self, y: np.ndarray) -> np.ndarray:
        return (self.weights * ndtr((y[:, None] - self.means) / self.scales)).sum(1)

    def mean(self) -> np.ndarray:
        return (self.weights * self.means).sum(1)

    def std(self) -> np.ndarray:
        away = self.means - self.mean()[:, None]
        return np.sqrt((self.weights * (self.scales**2 + away**2)).sum(1))

    def crps(self, y: np.ndarray) -> np.ndarray:
        """Σ_i w_i A(y − μ_i, σ_i²) − ½ Σ_ij w_i w_j A(μ_i − μ_j, σ_i² + σ_j²), A(m, v) being the mean of |N(m, v)|.

        Source: Grimit, Gneiting, Berrocal and Johnson 2006, "The continuous ranked probability score for circular
        variables and its application to mesoscale forecast ensemble verification", equation (5).
        """
        w, mu, variance = self.weights, self.means, self.scales**2
        apart = np.zeros(len(y))
        # Row by row of the K × K table, which is never held whole.
        for i in range(w.shape[1]):
            pairs = _mean_size(mu[:, i : i + 1] - mu, variance[:, i : i + 1] + variance)
            apart += w[:, i] * (w * pairs).sum(1)
        return (w * _mean_size(y[:, None] - mu, variance)).sum(1) - 0.5 * apart

    def sample(self, generator: np.random.Generator) -> np.ndarray:
        steps = np.cumsum(self.weights, axis=1)
        picked = (generator.random((len(steps), 1)) * steps[:, -1:] > steps).sum(1)
        rows = np.arange(len(steps)), picked
        return self.means[rows] + self.scales[rows] * generator.standard_normal(len(steps))


def _mean_size(m: np.ndarray, v: np.ndarray) -> np.ndarray:
    """E|X| for X ~ N(m, v): m (2Φ(m/√v) − 1) + 2√v φ(m/√v)."""
    root = np.sqrt(v)
    z = m / root
    return m * (2 * ndtr(z) - 1) + 2 * root * np.exp(-0.5 * z * z - LOG_ROOT)


@dataclass(frozen=True)
class Tabulated:
    """Densities given by their values on a grid, between its points by cubic splines, and 0 outside.

    Whatever the values add up to, the densities are scaled to a mass of 1. With a smooth density and h the step of the
    grid, errors are of the order h⁴.
    """

    grid: np.ndarray
    """[G], rising."""
    pdf: np.ndarray
    """[N, G], or [1, G] for one law for all targets."""

    @cached_property
    def _pieces(self) -> np.ndarray:
        """[4, G − 1, N or 1] coefficients on each interval, the cubic one first."""
        c = np.asarray(CubicSpline(self.grid, self.pdf.T).c)
        return c / _integrals(c, np.diff(self.grid)).sum(0)

    @cached_property
    def _below(self) -> np.ndarray:
        """[G, N or 1] the distribution function at the points of the grid."""
        return _accumulate(_integrals(self._pieces, np.diff(self.grid)))

    @cached_property
    def _squares(self) -> tuple[np.ndarray, np.ndarray]:
        """At the points of the grid, [G, N or 1] each: ∫ F² from the left end, and ∫ (1 − F)² to the right end."""
        h = np.diff(self.grid)[:, None]
        low, high = np.zeros((len(h), 1)), np.zeros((len(h), 1))
        # F² has degree 8 on an interval: five points of Gauss and Legendre are exact.
        for x, w in zip(*np.polynomial.legendre.leggauss(5), strict=True):
            inside = _primitive(self._pieces, h * (x + 1) / 2) + self._below[:-1]
            low = low + h * w / 2 * inside**2
            high = high + h * w / 2 * (1 - inside) ** 2
        from_left = _accumulate(low)
        return from_left, _accumulate(high[::-1])[::-1]

    def log_prob(self, y: np.ndarray) -> np.ndarray:
        at, offset, inside = self._find(y)
        value = _cubic(self._gather(at, len(y)), offset)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(inside & (value > 0), np.log(np.maximum(value, 0)), -np.inf)

    def cdf(self, y: np.ndarray) -> np.ndarray:
        at, offset, _ = self._find(y)
        rows = self._rows(len(y))
        inside = self._below[at, rows] + _primitive(self._gather(at, len(y)), offset)
        return np.where(y < self.grid[0], 0.0, np.where(y > self.grid[-1], 1.0, np.clip(inside, 0, 1)))

    def mean(self) -> np.ndarray:
        return self._moment(1)

    def std(self) -> np.ndarray:
        return np.sqrt(self._moment(2) - self._moment(1) ** 2)

    def crps(self, y: np.ndarray) -> np.ndarray:
        """∫_{−∞}^y F² + ∫_y^∞ (1 − F)², each from a table and the rest of the interval that y lies in.

        A y beyond the grid adds its distance from it, where F is 0 or 1.
        """
        at, offset, _ = self._find(y)
        rows = self._rows(len(y))
        low, high = self._squares
        pieces, below = self._gather(at, len(y)), self._below[at, rows]
        total = low[at, rows] + high[at, rows]
        for x, w in zip(*np.polynomial.legendre.leggauss(5), strict=True):
            inside = _primitive(pieces, offset * (x + 1) / 2) + below
            total = total + offset * w / 2 * (inside**2 - (1 - inside) ** 2)
        return total + np.maximum(self.grid[0] - y, 0) + np.maximum(y - self.grid[-1], 0)

    def sample(self, generator: np.random.Generator) -> np.ndarray:
        """By bisection of the distribution function."""
        count = self.pdf.shape[0]
        wanted = generator.random(count)
        low, high = np.full(count, self.grid[0]), np.full(count, self.grid[-1])
        for _ in range(50):
            middle = (low + high) / 2
            under = self.cdf(middle) < wanted
            low, high = np.where(under, middle, low), np.where(under, high, middle)
        return (low + high) / 2

    def repeated(self, count: int) -> Tabulated:
        """One law [1, G] for `count` targets that are drawn apart."""
        return Tabulated(self.grid, np.broadcast_to(self.pdf, (count, len(self.grid))))

    def _moment(self, power: int) -> np.ndarray:
        h = np.diff(self.grid)[:, None]
        total = np.zeros(self._pieces.shape[2])
        for x, w in zip(*np.polynomial.legendre.leggauss(3), strict=True):
            place = h * (x + 1) / 2
            total += (h * w / 2 * (self.grid[:-1, None] + place) ** power * _cubic(self._pieces, place)).sum(
                0
            )
        return total

    def _find(self, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """[N] each: the interval, how far into it, and whether y lies on the grid at all."""
        inside = (y >= self.grid[0]) & (y <= self.grid[-1])
        kept = np.clip(y, self.grid[0], self.grid[-1])
        at = np.clip(np.searchsorted(self.grid, kept, side="right") - 1, 0, len(self.grid) - 2)
        return at, kept - self.grid[at], inside

    def _rows(self, count: int) -> np.ndarray:
        return np.arange(count) if self.pdf.shape[0] > 1 else np.zeros(count, dtype=np.int64)

    def _gather(self, at: np.ndarray, count: int) -> np.ndarray:
        """[4, N]."""
        return self._pieces[:, at, self._rows(count)]


def _cubic(c: np.ndarray, t: np.ndarray) -> np.ndarray:
    return ((c[0] * t + c[1]) * t + c[2]) * t + c[3]


def _primitive(c: np.ndarray, t: np.ndarray) -> np.ndarray:
    """∫_0^t of the cubic."""
    return (((c[0] / 4 * t + c[1] / 3) * t + c[2] / 2) * t + c[3]) * t


def _integrals(c: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """[G − 1, N] masses of the intervals."""
    return _primitive(c, steps[:, None])


def _accumulate(parts: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((1, parts.shape[1])), np.cumsum(parts, axis=0)])


def score(density: Density, targets: np.ndarray, blocks: np.ndarray) -> dict[str, Any]:
    """How well densities foretell targets, each figure with its standard error under `<name>_se`.

    Errors take the blocks for independent and nothing else; with one block they are NaN.

    Args:
        targets: [N].
        blocks: [N] which stretch of consecutive targets each belongs to.

    Returns:
        `nll` −ln p in nats, and `crps`, per target; `pit_ks` the largest distance of the distribution of F_n(y_n)
        from the uniform one, and `pit_histogram` its shares in 20 equal bins; `coverage_50`, `_80`, `_95` the shares
        of targets inside the central intervals; `sharpness` the mean predictive standard deviation; `below_zero` the
        mean mass given to negative values; `targets` and `blocks`, counts.
    """
    targets = np.asarray(targets, dtype=np.float64)
    pit = density.cdf(targets)
    columns: dict[str, np.ndarray] = {"nll": -density.log_prob(targets), "crps": density.crps(targets)}
    for level in LEVELS:
        columns[f"coverage_{level * 100:.0f}"] = (np.abs(pit - 0.5) <= level / 2).astype(np.float64)
    columns["sharpness"] = np.broadcast_to(density.std(), targets.shape)
    columns["below_zero"] = density.cdf(np.zeros_like(targets))
    figures: dict[str, Any] = {}
    for name, values in columns.items():
        figures |= with_error(name, by_document(values, blocks))
    figures |= with_error("pit_ks", ks_distance(pit, blocks))
    figures["pit_histogram"] = (np.histogram(pit, BINS, (0, 1))[0] / len(pit)).tolist()
    return {**figures, "targets": len(targets), "blocks": len(np.unique(blocks))}


def ks_distance(pit: np.ndarray, blocks: np.ndarray) -> Ratio:
    """sup |F̂(u) − u| of probability integral transforms [N], and its standard error by resampling blocks."""
    order = np.argsort(pit, kind="stable")
    u, number = pit[order], np.unique(blocks, return_inverse=True)[1][order]
    count = int(number.max()) + 1

    def distance(weights: np.ndarray) -> float:
        steps = np.cumsum(weights)
        after = steps / steps[-1]
        before = np.concatenate([[0.0], after[:-1]])
        return float(max(np.max(after - u), np.max(u - before)))

    value = distance(np.ones(len(u)))
    if count < 2:
        return Ratio(value, float("nan"))
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(count, np.full(count, 1 / count), RESAMPLINGS)
    return Ratio(value, float(np.std([distance(weights[number].astype(float)) for weights in drawn])))


def paired(
    ours: np.ndarray, theirs: np.ndarray, blocks: np.ndarray, level: float = 0.95
) -> Mapping[str, float]:
    """By how many nats the first of two predictors loses less than the second on the same targets.

    The interval is that of the bootstrap over blocks (Efron and Tibshirani 1993, chapter 13), 2,000 resamplings, the
    same for the same losses.

    Args:
        ours, theirs: [N] −ln p.

    Returns:
        `difference`, positive where ours loses less, `low` and `high`; NaN for both with a single block.
    """
    number = np.unique(blocks, return_inverse=True)[1]
    change = np.bincount(number, weights=theirs - ours)
    sizes = np.bincount(number).astype(np.float64)
    value = float(change.sum() / sizes.sum())
    if len(sizes) < 2:
        return {"difference": value, "low": float("nan"), "high": float("nan")}
    generator = np.random.default_rng(0)
    drawn = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), 10 * RESAMPLINGS)
    low, high = np.quantile((drawn @ change) / (drawn @ sizes), [(1 - level) / 2, (1 + level) / 2])
    return {"difference": value, "low": float(low), "high": float(high)}
