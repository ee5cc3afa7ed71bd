"""Find the threshold at which a model's mean depth, or its time of decoding, meets a budget.

The depth of a layer falls as the threshold rises, whatever it reads. Through several layers that is nearly so, not
exactly: a later layer reads what an earlier one left. The search therefore trusts only what it has scored, and keeps
a bracket with more depth on one side and less on the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ourospec.contracts import Effort
from ourospec.errors import ConfigError
from ourospec.measure.calibration_record import Budget, Calibrated, Figures, Pace, effort_at, finite
from ourospec.measure.likelihood import Likelihood, ratio

SAMPLE_TOKENS = 20_000
"""Targets of the sample that a threshold is searched on, about."""
TOLERANCE = 0.005
"""Passes per token and layer within which a budget counts as met."""
PACE_TOLERANCE, PACE_NOISE = 0.03, 0.10
"""Shares of a budget in milliseconds within which it counts as met: always, and at most if the repeats vary by more."""
COARSE, FINE = 0.1, 0.02
"""Passes within which a depth is found that is only to be timed: the first one between the ends, and those after."""
MOST_SCORES = 40
"""Scorings of the sample in one search, at most."""
PACE_ROUNDS = 4
"""Thresholds that are timed after the first three, at most."""
# Log-odds of the least and the greatest threshold that survival in float32 can be told from 0 and 1 by. The search goes
# by their inverse hyperbolic sine: thresholds are mostly near one half, but a survival may be as small as it likes.
LOWEST, HIGHEST = -87.0, 17.0
FINEST = 1e-6

DEEPEST, SHALLOWEST = 0.0, 1.0
"""Thresholds at which nobody leaves, and at which all do as soon as a gate doubts."""


@dataclass(frozen=True)
class Bench:
    """How a model is measured here: always on the same sample."""

    score: Callable[[Effort | None], Likelihood]
    """Scores the whole sample; None: as trained."""
    pace: Callable[[Sequence[Effort | None]], list[Pace]]
    """Times decoding at several efforts, in turn, on the same texts."""
    machine: str
    """What it is timed on."""


class DepthCurve:
    """Mean passes over a sample by threshold; each threshold is scored once.

    Args:
        score: the sample's likelihood at a threshold.
        tell: hears of each scoring.
    """

    def __init__(
        self, score: Callable[[float], Likelihood], tell: Callable[[str], None] | None = None
    ) -> None:
        self._score, self._tell = score, tell
        self._known: dict[float, Likelihood] = {}

    def at(self, threshold: float) -> Likelihood:
        """The scored sample."""
        if threshold not in self._known:
            self._known[threshold] = self._score(threshold)
            if self._tell is not None:
                self._tell(f"threshold {threshold:.4g}: {self.depth(threshold):.3f} passes")
        return self._known[threshold]

    def depth(self, threshold: float) -> float:
        """Mean passes per token and layer."""
        return mean_passes(self.at(threshold))

    def find(self, wanted: float, tolerance: float = TOLERANCE) -> float:
        """The threshold whose depth is nearest to `wanted`, of those scored on the way.

        Bisection (see LOWEST for its scale), every other step by interpolation, until the depth is within
        the tolerance or the bracket is narrower than survival in float32 can tell: then the depth jumps there.

        Raises:
            ConfigError: no threshold gives a depth that low or that high.
        """
        self._refuse_beyond(wanted, tolerance)
        tried = [DEEPEST, SHALLOWEST]
        low, high = math.asinh(LOWEST), math.asinh(HIGHEST)
        above, below = self.depth(DEEPEST) - wanted, self.depth(SHALLOWEST) - wanted
        while self._miss(tried, wanted) > tolerance and high - low > FINEST and len(tried) < MOST_SCORES:
            share = above / (above - below) if len(tried) % 2 else 0.5
            middle = low + min(max(share, 0.05), 0.95) * (high - low)
            threshold = 1 / (1 + math.exp(-math.sinh(middle)))
            tried.append(threshold)
            excess = self.depth(threshold) - wanted
            if excess >= 0:
                low, above = middle, excess
            else:
                high, below = middle, excess
        return min(tried, key=lambda threshold: abs(self.depth(threshold) - wanted))

    def _miss(self, tried: list[float], wanted: float) -> float:
        return min(abs(self.depth(threshold) - wanted) for threshold in tried)

    def _refuse_beyond(self, wanted: float, tolerance: float) -> None:
        shallowest, deepest = self.depth(SHALLOWEST), self.depth(DEEPEST)
        if shallowest - tolerance <= wanted <= deepest + tolerance:
            return
        raise ConfigError(
            f"A budget of {wanted:g} passes cannot be met: with any threshold this run takes {shallowest:.3f} to "
            f"{deepest:.3f} passes per token and layer.",
            f"Choose a budget from {shallowest:.3g} to {deepest:.3g}.",
        )


def mean_passes(scored: Likelihood) -> float:
    """Per position and layer."""
    return float(scored.passes.sum() / scored.passes.shape[1] / scored.positions.sum())


def calibrate(
    budgets: Sequence[Budget], bench: Bench, tell: Callable[[str], None] | None = None
) -> list[Calibrated]:
    """Find the threshold of each budget, and measure there and as trained.

    Args:
        tell: hears, in a few words each, what is being measured.

    Raises:
        ConfigError: a budget that no threshold meets, or a model that has none.
    """
    for budget in budgets:
        _refuse_nonsense(budget)
    curves: dict[str | None, DepthCurve] = {}
    for readout in dict.fromkeys(budget.readout for budget in budgets):
        curves[readout] = DepthCurve(_scoring(bench, readout), tell)
        _refuse_without_gates(curves[readout], readout)
    trained = bench.score(None)
    found = []
    for budget in budgets:
        curve = curves[budget.readout]
        if budget.unit == "passes":
            threshold, paces = curve.find(budget.amount), None
            met = abs(curve.depth(threshold) - budget.amount) <= TOLERANCE
        else:
            threshold, paces, met = _meet_pace(budget, curve, bench, tell)
        found.append(_entry(budget, threshold, met, curve.at(threshold), trained, paces, bench.machine))
    return found


def refuse_untaught(budgets: Sequence[Budget], trained: Effort | None, step: int) -> None:
    """Refuse gates that were never asked: where training stands, every token still runs a set number of passes.

    Args:
        trained: how long the model is to think where its training stands.
    """
    forced = trained is not None and trained.forced_passes is not None
    if forced and any(budget.readout is None for budget in budgets):
        raise ConfigError(
            f"After step {step:,} this run still forces its passes, so that its gates have learned nothing yet; a "
            "threshold on them would mean nothing.",
            "Go on training until the gates are free, or calibrate an exit without gates: --readout direction",
        )


def _scoring(bench: Bench, readout: str | None) -> Callable[[float], Likelihood]:
    return lambda threshold: bench.score(effort_at(threshold, readout))


def _refuse_nonsense(budget: Budget) -> None:
    least = 1.0 if budget.unit == "passes" else 0.0
    if math.isfinite(budget.amount) and budget.amount >= least and budget.amount > 0:
        return
    lowest = "every token runs at least 1 pass in each layer" if least else "it must be a positive number"
    raise ConfigError(
        f"A budget of {budget.describe()} cannot be met: {lowest}.",
        "Say how many passes per token and layer, such as --budget 1.3, or milliseconds per token: --budget-ms 12",
    )


def _refuse_without_gates(curve: DepthCurve, readout: str | None) -> None:
    try:
        curve.at(DEEPEST)
    except ConfigError as error:
        if readout is not None:
            raise
        raise ConfigError(
            "This model has no gates whose threshold could be calibrated: it runs the same passes for every token.",
            "Calibrate a run of adaptive depth, such as one of adaptive_lm/tiny.",
        ) from error


def _meet_pace(
    budget: Budget, curve: DepthCurve, bench: Bench, tell: Callable[[str], None] | None
) -> tuple[float, tuple[Pace, Pace], bool]:
    """The threshold whose measured time of decoding is nearest to the budget, and the time there and as trained.

    Time is taken for linear in depth: the straight line nearest to all that was timed says which depth to try, the
    threshold of that depth is found and timed in its turn, until the time is near enough or the rounds are used up.
    """
    told = tell or (lambda _: None)
    low, high = curve.depth(SHALLOWEST), curve.depth(DEEPEST)
    thresholds = [SHALLOWEST, curve.find((low + high) / 2, COARSE), DEEPEST]
    told("timing decoding at three depths and as trained")
    *timed, trained = bench.pace([*(effort_at(t, budget.readout) for t in thresholds), None])
    known = dict(zip(thresholds, timed, strict=True))
    fastest, slowest = known[SHALLOWEST], known[DEEPEST]
    if not _near(fastest, budget.amount) and budget.amount < fastest.ms:
        raise ConfigError(
            f"A budget of {budget.amount:g} ms per token cannot be met here: with {low:.2f} passes per layer a token "
            f"takes {fastest.ms:.2f} ms already (± {fastest.spread / 2:.2f}).",
            "Ask for more time, or use a smaller model.",
        )
    if not _near(slowest, budget.amount) and budget.amount > slowest.ms:
        raise ConfigError(
            f"A budget of {budget.amount:g} ms per token is more than this model can use: at its full depth of "
            f"{high:.2f} passes a token takes {slowest.ms:.2f} ms (± {slowest.spread / 2:.2f}).",
            "No budget is needed for that; --threshold 0 has every token run all passes.",
        )
    best = _nearest(known, budget.amount)
    for _ in range(PACE_ROUNDS):
        if _near(known[best], budget.amount):
            break
        threshold = curve.find(_depth_for(budget.amount, curve, known), FINE)
        if threshold in known:
            break
        told(f"timing decoding at {curve.depth(threshold):.2f} passes")
        known[threshold] = bench.pace([effort_at(threshold, budget.readout)])[0]
        best = _nearest(known, budget.amount)
    return best, (known[best], trained), _near(known[best], budget.amount)


def _near(pace: Pace, ms: float) -> bool:
    # Of the median of seven repeats, the standard error is about a third of their interquartile range.
    return abs(pace.ms - ms) <= min(max(PACE_TOLERANCE * ms, pace.spread / 3), PACE_NOISE * ms)


def _nearest(known: dict[float, Pace], ms: float) -> float:
    return min(known, key=lambda threshold: abs(known[threshold].ms - ms))


def _depth_for(ms: float, curve: DepthCurve, known: dict[float, Pace]) -> float:
    depths, times = np.array([(curve.depth(threshold), pace.ms) for threshold, pace in known.items()]).T
    apart = depths - depths.mean()
    rise = float(apart @ times) / float(apart @ apart)
    # A token's passes follow each other, so its time is linear in them; where noise says that it falls, any depth goes.
    depth = float(depths.mean() + (ms - times.mean()) / rise) if rise > 0 else float(depths.mean())
    return min(max(depth, float(depths.min())), float(depths.max()))


def _entry(
    budget: Budget,
    threshold: float,
    met: bool,
    there: Likelihood,
    trained: Likelihood,
    paces: tuple[Pace, Pace] | None,
    machine: str,
) -> Calibrated:
    change = ratio(there.nats - trained.nats, there.tokens)
    return Calibrated(
        amount=float(budget.amount),
        unit=budget.unit,
        readout=budget.readout,
        threshold=threshold,
        met=met,
        figures=Figures.of(there),
        as_trained=Figures.of(trained),
        loss_change=change.value,
        loss_change_se=finite(change.error),
        pace=paces[0] if paces else None,
        pace_as_trained=paces[1] if paces else None,
        documents=len(there.tokens),
        tokens=int(there.tokens.sum()),
        machine=machine,
    )
