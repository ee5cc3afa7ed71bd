"""Statistics of many spacings in a row, for series of any origin: number variance and pair correlation.

Letters: S stretches, n spacings of a stretch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Of the intervals in which points are counted, in mean spacings."""
BINS = np.linspace(0, 4, 41)
"""Of distances, for the pair correlation."""
PER_SPACING = 2
"""Intervals counted for each mean spacing."""


def number_variance(stretches: np.ndarray, length: float) -> float:
    """Variance of the number of points in an interval of that length, placed anywhere.

    Args:
        stretches: [S, n] spacings, contiguous in each row.
    """
    counts = []
    for spacings in stretches:
        points = np.concatenate([[0.0], np.cumsum(spacings)])
        if points[-1] <= length:
            continue
        starts = np.linspace(0, points[-1] - length, max(1, int(PER_SPACING * (points[-1] - length))))
        counts.append(np.searchsorted(points, starts + length) - np.searchsorted(points, starts))
    # About the expected number and not the observed one: a series of the wrong density is wrong, too.
    return float(np.mean((np.concatenate(counts) - length) ** 2)) if counts else float("nan")


def gue_number_variance(length: float) -> float:
    """Σ²(L) = L − 2 ∫_0^L (L − r) (sin πr/πr)² dr of the sine process (Mehta, Random Matrices, chapter 16)."""
    pieces = max(1, int(np.ceil(length)))
    x, w = np.polynomial.legendre.leggauss(16)
    step = length / pieces
    r = (np.arange(pieces)[:, None] + (x + 1) / 2) * step
    return float(length - 2 * (w * step / 2 * (length - r) * np.sinc(r) ** 2).sum())


def pair_correlation(stretches: np.ndarray) -> np.ndarray:
    """Density of points at distances `BINS` from a point, [40]; 1 where points do not know of each other."""
    found, seen = np.zeros(len(BINS) - 1), 0
    for spacings in stretches:
        points = np.concatenate([[0.0], np.cumsum(spacings)])
        # A point counts only if all its distances up to the last bin lie inside the stretch.
        kept = int(np.searchsorted(points, points[-1] - BINS[-1]))
        seen += kept
        for ahead in range(1, len(points)):
            away = points[ahead : ahead + kept] - points[: min(kept, len(points) - ahead)]
            if not len(away) or away.min() > BINS[-1]:
                break
            found += np.histogram(away, BINS)[0]
    return found / (max(seen, 1) * np.diff(BINS))


def gue_pair_correlation() -> np.ndarray:
    """1 − (sin πr/πr)², averaged over `BINS` (Montgomery 1973; Dyson 1962)."""
    x, w = np.polynomial.legendre.leggauss(8)
    r = BINS[:-1, None] + np.diff(BINS)[:, None] * (x + 1) / 2
    return ((1 - np.sinc(r) ** 2) * w / 2).sum(1)


def statistics(stretches: np.ndarray) -> dict[str, Any]:
    """JSON-ready: `mean` and `variance` of spacings, `lag_1` their correlation with the next one, `number_variance`
    at LENGTHS, `pair_correlation` over BINS."""
    ahead, behind = stretches[:, 1:].ravel(), stretches[:, :-1].ravel()
    return {
        "mean": float(stretches.mean()),
        "variance": float(stretches.var()),
        "lag_1": float(np.corrcoef(ahead, behind)[0, 1]) if ahead.std() and behind.std() else float("nan"),
        "lengths": list(LENGTHS),
        "number_variance": [number_variance(stretches, length) for length in LENGTHS],
        "pair_correlation": pair_correlation(stretches).tolist(),
    }


def gue_statistics() -> dict[str, Any]:
    """What `statistics` says of the sine process; variance and correlation as Bornemann 2010 has them."""
    return {
        "mean": 1.0,
        "variance": 0.17999,
        "lag_1": -0.30837,
        "lengths": list(LENGTHS),
        "number_variance": [gue_number_variance(length) for length in LENGTHS],
        "pair_correlation": gue_pair_correlation().tolist(),
    }
