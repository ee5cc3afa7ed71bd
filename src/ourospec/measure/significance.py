"""Whether one way of training beats another, beyond what other documents and other seeds could turn around.

Letters: S seeds, N documents, R resamplings.

Seeds and documents are crossed: every seed of either side is scored on the same documents. The difference is in nats
per token, positive where the first side loses less. Two tests are made of it and the less favourable figures of both
are given, because each has a weakness that the other lacks:

- the paired bootstrap over seeds and documents (both drawn anew, independently: the pigeonhole bootstrap of Owen 2007,
  "The pigeonhole bootstrap") supposes no distribution, but takes few seeds for more certain than they are; what a seed
  deviates by is therefore drawn √(S/(S − 1)) times as large;
- Student's t with se² = Var_s(θ_s)/S + the variance over documents (Cochran 1977, section 6.4) and Satterthwaite's
  degrees of freedom knows about few seeds, but takes differences for normal.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

RESAMPLINGS = 10_000
AT_ONCE = 2_000
"""Resamplings whose weights are held at a time."""
GRID = 4_001


class Comparison(NamedTuple):
    """By how much one side loses less than the other, in nats per token."""

    difference: float
    low: float
    high: float
    """Bounds of the interval at `level`; NaN where there is none (one seed or one document)."""
    level: float
    """Share of intervals made like this one that hold the truth."""
    p: float
    """Two-sided, of no difference at all; NaN where it cannot be had."""
    by_seed: tuple[float, ...]
    """[S]."""
    seeds: int
    documents: int


def compare(ours: np.ndarray, theirs: np.ndarray, tokens: np.ndarray, level: float) -> Comparison:
    """Compare two sides on the same documents, seed by seed.

    Args:
        ours, theirs: [S, N] nats lost by document; row s of both was trained with the same seed.
        tokens: [N] targets by document.
        level: of the interval, such as 0.99.

    Raises:
        ValueError: shapes that do not belong together, or a number that is not finite.
    """
    if ours.shape != theirs.shape or ours.shape[1:] != tokens.shape or not ours.size:
        raise ValueError(f"sides of {ours.shape} and {theirs.shape} on {tokens.shape} documents")
    change = theirs.astype(np.float64) - ours.astype(np.float64)
    if not (np.isfinite(change).all() and (tokens > 0).all()):
        raise ValueError("losses must be finite, and every document must hold a target")
    by_seed = change.sum(1) / tokens.sum()
    value = float(by_seed.mean())
    seeds, documents = change.shape
    told = (tuple(by_seed.tolist()), seeds, documents)
    if seeds < 2 or documents < 2:
        return Comparison(value, math.nan, math.nan, level, math.nan, *told)
    boot_low, boot_high, boot_p = _bootstrap(change, tokens.astype(np.float64), level)
    low, high, p = _student(change, tokens.astype(np.float64), level)
    return Comparison(value, min(low, boot_low), max(high, boot_high), level, max(p, boot_p), *told)


def _bootstrap(change: np.ndarray, tokens: np.ndarray, level: float) -> tuple[float, float, float]:
    """Interval and p by resampling; the same numbers for the same losses."""
    seeds, documents = change.shape
    mean = change.mean(0)
    # Drawn from S deviations about their own mean, the variance of a mean comes out (S − 1)/S too small.
    wide = mean + (change - mean) * math.sqrt(seeds / (seeds - 1))
    generator, drawn = np.random.default_rng(0), []
    for start in range(0, RESAMPLINGS, AT_ONCE):
        count = min(AT_ONCE, RESAMPLINGS - start)
        of_documents = generator.multinomial(documents, np.full(documents, 1 / documents), count)
        of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), count) / seeds
        by_seed = (of_documents @ wide.T) / (of_documents @ tokens)[:, None]
        drawn.append((by_seed * of_seeds).sum(1))
    values = np.concatenate(drawn)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    beyond = min(int((values <= 0).sum()), int((values >= 0).sum()))
    # The least p that so many resamplings can tell from 0.
    return float(low), float(high), min(1.0, 2 * (beyond + 1) / (RESAMPLINGS + 1))


def _student(change: np.ndarray, tokens: np.ndarray, level: float) -> tuple[float, float, float]:
    """Interval and p by Student's t; what seeds and documents share in a difference is counted on both sides."""
    seeds, documents = change.shape
    by_seed = change.sum(1) / tokens.sum()
    value = float(by_seed.mean())
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    left = change.mean(0) - value * tokens
    of_documents = documents / (documents - 1) * float(np.square(left).sum()) / float(tokens.sum()) ** 2
    squared = of_seeds + of_documents
    if squared == 0:
        return value, value, 0.0 if value else 1.0
    freedom = squared**2 / (of_seeds**2 / (seeds - 1) + of_documents**2 / (documents - 1))
    error = math.sqrt(squared)
    reach = student_quantile(1 - level, freedom) * error
    return value - reach, value + reach, student_p(value / error, freedom)


def student_p(t: float, freedom: float) -> float:
    """P(|T| ≥ |t|) of Student's distribution.

    With T = √ν·tan φ the density is cos^(ν−1) φ, so that both integrals are over a finite stretch.
    """

    def area(low: float) -> float:
        angles = np.linspace(low, math.pi / 2, GRID)
        heights = np.cos(angles).clip(0) ** (freedom - 1)
        # Simpson's rule.
        inner = 4 * heights[1:-1:2].sum() + 2 * heights[2:-1:2].sum()
        return float(heights[0] + heights[-1] + inner) * (angles[1] - angles[0]) / 3

    return min(1.0, area(math.atan(abs(t) / math.sqrt(freedom))) / area(0.0))


def student_quantile(p: float, freedom: float) -> float:
    """The t ≥ 0 with P(|T| ≥ t) = p, by bisection.

    Raises:
        ValueError: p is not between 0 and 1.
    """
    if not 0 < p <= 1:
        raise ValueError(f"no quantile belongs to a probability of {p}")
    low, high = 0.0, 1.0
    while student_p(high, freedom) > p:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if student_p(middle, freedom) > p else (low, middle)
    return high
