"""Whether one thing rises with another: rank correlation, with errors over documents. Letters: n tokens."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ourospec.measure.likelihood import Ratio

GROUPS = 20


def ranks(values: np.ndarray) -> np.ndarray:
    """[n] from 1, equal values sharing the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's ρ, −1 to 1: Pearson's correlation of the ranks. NaN where one side is constant."""
    x, y = ranks(a), ranks(b)
    x, y = x - x.mean(), y - y.mean()
    size = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / size if size else math.nan


def over_documents(statistic: Callable[[np.ndarray], float], documents: np.ndarray) -> Ratio:
    """A statistic of tokens, and its standard error over documents by the jackknife over groups of them.

    se² = (G − 1)/G · Σ_g (θ_g − mean θ)², θ_g without group g (Efron 1982, chapter 3). Tokens of one document are not
    independent; documents are taken to be.

    Args:
        statistic: of the tokens at the indices given to it.
        documents: [n], whose token is whose.
    """
    everyone = np.arange(len(documents))
    _, number = np.unique(documents, return_inverse=True)
    groups = min(GROUPS, int(number.max()) + 1 if len(number) else 0)
    value = statistic(everyone)
    if groups < 2:
        return Ratio(value, math.nan)
    left_out = np.array([statistic(everyone[number % groups != group]) for group in range(groups)])
    spread = float(np.square(left_out - left_out.mean()).sum())
    return Ratio(value, math.sqrt((groups - 1) / groups * spread))
