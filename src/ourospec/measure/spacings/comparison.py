"""Every predictor on the same targets: models, laws, the sine kernel, linear regression."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from ourospec.data.spacings.dataset import Series
from ourospec.data.spacings.targets import Targets
from ourospec.errors import ConfigError
from ourospec.measure.density import Density, paired, score
from ourospec.measure.likelihood import Ratio
from ourospec.measure.oracle import by_document
from ourospec.measure.spacings.autoregression import NEARBY, Autoregression
from ourospec.measure.spacings.laws import empirical, gaussian, goe_surmise, gue_surmise, poisson
from ourospec.measure.spacings.sine_kernel import SineKernel

OPTIMAL_LAGS = 32
"""Past spacings of the reference: on zeros near 1e6 more of them change nothing (by 0.000 nats from 32 to 128)."""
KERNEL_LAGS = (0, 1, 4, 16, OPTIMAL_LAGS)
LINEAR_LAGS = (4, 16, 32, 64, 128)
NEARBY_LAGS = (64, 128)
ROWS_PER_NUMBER = 20
"""Training spacings for each number that a regression fits, at least; it is left out otherwise."""

Tell = Callable[[str], None]


class Predictor(Protocol):
    """Whatever says a density of the next spacing."""

    @property
    def name(self) -> str: ...

    def predict(self, targets: Targets) -> Density: ...


def baselines(train: Sequence[Series], tell: Tell | None = None) -> list[Predictor]:
    """All that needs no network, what is fitted being fitted on these training series when it predicts."""
    size = sum(len(series.spacings) for series in train)
    linear = [Autoregression(train, lags) for lags in LINEAR_LAGS]
    if size >= 2 * NEARBY:
        linear += [Autoregression(train, lags, NEARBY) for lags in NEARBY_LAGS]
    return [
        poisson(),
        goe_surmise(),
        gaussian(train),
        gue_surmise(),
        empirical(train),
        *(SineKernel(lags, tell) for lags in KERNEL_LAGS),
        *(one for one in linear if size >= ROWS_PER_NUMBER * (one.lags + 1)),
    ]


def gue_optimal(targets: Targets, tell: Tell | None = None) -> Ratio:
    """What the best predictor of the sine process loses on these targets, in nats, and its standard error.

    That is where a model stands that has learnt the repulsion of matrices and nothing of the primes.
    """
    density = SineKernel(OPTIMAL_LAGS, tell).predict(targets)
    return by_document(-density.log_prob(targets.target), targets.block)


def compare_predictors(
    predictors: Sequence[Predictor], targets: Targets, against: str, tell: Tell | None = None
) -> list[dict[str, Any]]:
    """The scores of each, the best first, and what it gains over one of them.

    Args:
        against: name of the predictor to be compared with.

    Returns:
        For each predictor `name`, what density.score says, and `gain`: density.paired of it and `against`.

    Raises:
        ConfigError: no predictor has that name, or two have one.
    """
    names = [predictor.name for predictor in predictors]
    if against not in names:
        raise ConfigError(f"Nothing here is called {against!r}.", f"There are: {', '.join(names)}.")
    if len(set(names)) < len(names):
        raise ConfigError("Two of what is to be compared have one name.", "Name every run once.")
    found: list[dict[str, Any]] = []
    losses: dict[str, np.ndarray] = {}
    for predictor in predictors:
        if tell is not None:
            tell(f"{predictor.name}: {len(targets.target):,} targets")
        density = predictor.predict(targets)
        losses[predictor.name] = -density.log_prob(targets.target)
        found.append({"name": predictor.name, **score(density, targets.target, targets.block)})
    for row in found:
        row["gain"] = dict(paired(losses[row["name"]], losses[against], targets.block))
    return sorted(found, key=lambda row: row["nll"])
