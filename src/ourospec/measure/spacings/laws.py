"""Laws of a single spacing of mean 1, as predictors that do not look at the past."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import stats
from scipy.ndimage import gaussian_filter1d

from ourospec.data.spacings.dataset import Series
from ourospec.data.spacings.targets import Targets
from ourospec.measure.density import Mixture, Tabulated

STEP = 0.01
"""Of the grids."""
SMOOTHING = 0.02
"""Standard deviation of the kernel that smooths the empirical law."""
FLOOR = 1e-6
"""Density of the empirical law where no spacing of the training data lies."""


@dataclass(frozen=True)
class Law:
    """One law for all targets."""

    name: str
    density: Tabulated | Mixture
    """[1, ...]: of one target."""

    def predict(self, targets: Targets) -> Tabulated | Mixture:
        """The law, for as many targets as there are."""
        if isinstance(self.density, Tabulated):
            return self.density
        shape = (len(targets.target), self.density.means.shape[1])
        return Mixture(*(np.broadcast_to(part, shape) for part in self._parts()))

    def _parts(self) -> tuple[np.ndarray, ...]:
        assert isinstance(self.density, Mixture)
        return self.density.weights, self.density.means, self.density.scales


def poisson() -> Law:
    """exp(−s): zeros that know nothing of each other. 1 nat."""
    return _tabulated("Poisson", stats.expon.pdf, 40.0)


def goe_surmise() -> Law:
    """(π/2) s exp(−πs²/4), Wigner's surmise for real symmetric matrices."""
    return _tabulated("GOE surmise", partial(stats.rayleigh.pdf, scale=np.sqrt(2 / np.pi)), 12.0)


def gue_surmise() -> Law:
    """(32/π²) s² exp(−4s²/π), Wigner's surmise for Hermitian matrices. Its own entropy is 0.52880 nats.

    Source: Mehta, Random Matrices, chapter 1. The exact law is sine_kernel.SineKernel(0).
    """
    return _tabulated("GUE surmise", partial(stats.maxwell.pdf, scale=np.sqrt(np.pi / 8)), 10.0)


def gaussian(train: Sequence[Series]) -> Law:
    """The normal law with mean and variance of the training spacings."""
    spacings = np.concatenate([series.spacings for series in train])
    one = np.ones((1, 1))
    return Law("iid Gaussian", Mixture(one, one * spacings.mean(), one * spacings.std()))


def empirical(train: Sequence[Series]) -> Law:
    """The training spacings' own histogram, smoothed a little: what a model without a past can learn at best."""
    spacings = np.concatenate([series.spacings for series in train])
    grid = np.arange(0, max(6.0, float(spacings.max()) + 1) + STEP, STEP)
    edges = np.concatenate([grid - STEP / 2, [grid[-1] + STEP / 2]])
    counts = np.histogram(spacings, edges)[0] / (STEP * len(spacings))
    # Reflected at 0, so that no mass is lost there.
    smooth = gaussian_filter1d(counts, SMOOTHING / STEP, mode="reflect")
    return Law("empirical law", Tabulated(grid, (smooth + FLOOR)[None]))


def _tabulated(name: str, pdf: Callable[[np.ndarray], Any], end: float) -> Law:
    grid = np.arange(0, end + STEP, STEP)
    return Law(name, Tabulated(grid, np.asarray(pdf(grid))[None]))
