"""Linear prediction: what follows from a weighted sum of past spacings alone.

A prime p is a tone of ln p/ln(T/2π) cycles per spacing in the zeros near height T, and a tone is what a linear
predictor goes on with. It falls in frequency with T, so a fit of many heights at once blurs what a fit nearby has.

Letters: n spacings of a stretch, k lags, N targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ourospec.data.spacings.dataset import Series
from ourospec.data.spacings.targets import Targets
from ourospec.errors import DataError
from ourospec.measure.density import Mixture

NEARBY = 50_000
"""Training spacings of a local fit: the last ones below the target."""
AT_ONCE = 100_000
"""Rows of a design matrix held at a time."""


class Fit(NamedTuple):
    """ŝ = intercept + coefficients · past, and what is left is N(0, scale²)."""

    coefficients: np.ndarray
    """[k], the last one for the last spacing."""
    intercept: float
    scale: float


def fit(stretches: Sequence[np.ndarray], lags: int) -> Fit:
    """Least squares over contiguous stretches of spacings; no past reaches over the start of its stretch.

    Raises:
        DataError: fewer spacings than twice the numbers to be fitted.
    """
    moments = np.zeros((lags + 2, lags + 2))
    for stretch in stretches:
        if len(stretch) <= lags:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(stretch, lags + 1)
        for start in range(0, len(windows), AT_ONCE):
            rows = windows[start : start + AT_ONCE]
            design = np.concatenate([np.ones((len(rows), 1)), rows - 1.0], axis=1)
            moments += design.T @ design
    count = int(moments[0, 0])
    if count < 2 * (lags + 1):
        raise DataError(
            f"{count:,} training spacings with {lags} predecessors are too few to fit {lags + 1} numbers.",
            "Give more zeros, or fewer lags.",
        )
    solved = np.linalg.solve(moments[:-1, :-1], moments[:-1, -1])
    left = moments[-1, -1] - solved @ moments[:-1, -1]
    # Both sides were taken less 1, the mean of spacings, which keeps the squares small.
    intercept = float(solved[0]) + 1.0 - float(solved[1:].sum())
    return Fit(solved[1:], intercept, float(np.sqrt(left / (count - lags - 1))))


@dataclass(frozen=True)
class Autoregression:
    """AR(k) with a Gaussian residual."""

    train: Sequence[Series]
    lags: int
    nearby: int = 0
    """Spacings of a fit nearby, ending where the target's stretch begins at the latest; 0 fits all of them once."""

    @property
    def name(self) -> str:
        return f"AR({self.lags}), last {self.nearby:,}" if self.nearby else f"AR({self.lags})"

    def predict(self, targets: Targets) -> Mixture:
        """One Gaussian for each target.

        Raises:
            ValueError: the targets have fewer past spacings than lags.
            DataError: too little to fit below a target.
        """
        if self.lags > targets.past.shape[1]:
            raise ValueError(f"{targets.past.shape[1]} past spacings, and {self.lags} are needed")
        past = targets.past[:, targets.past.shape[1] - self.lags :]
        means, scales = np.empty(len(past)), np.empty(len(past))
        for rows, stretches in self._groups(targets):
            found = fit(stretches, self.lags)
            means[rows] = past[rows] @ found.coefficients + found.intercept
            scales[rows] = found.scale
        return Mixture(np.ones((len(past), 1)), means[:, None], scales[:, None])

    def _groups(self, targets: Targets) -> list[tuple[np.ndarray, list[np.ndarray]]]:
        """Which targets share a fit, and what it is fitted on."""
        everyone = np.arange(len(targets.target))
        if not self.nearby:
            return [(everyone, [series.spacings for series in self.train])]
        # Training stretches that end before a target's past begins: one fit for all targets with the same ones.
        ends = np.array([series.heights[-1] for series in self.train])
        below = np.searchsorted(ends, targets.past_heights[:, 0], side="right")
        return [(np.flatnonzero(below == count), self._last(int(count))) for count in np.unique(below)]

    def _last(self, count: int) -> list[np.ndarray]:
        """The last `nearby` spacings of the first `count` training stretches."""
        found: list[np.ndarray] = []
        left = self.nearby
        for series in reversed(self.train[:count]):
            if left > 0:
                found.append(series.spacings[-left:])
                left -= len(found[-1])
        return found
