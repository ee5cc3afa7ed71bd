"""Thinking within a budget: the threshold is moved while a text is made, so that its mean comes to what was asked for.

A closed loop. Let O be what the tokens so far took too much, in sum. The threshold's log-odds are

    z = z₀ + a·O + b·ΣO

The second term answers at once, and alone it would leave a debt: where the right threshold is not the one of the
beginning, O would stay at the way to it, divided by a. The third term goes that way in its place, so that O returns to
0; the mean over n tokens is off by O/n. All that is taken for granted is that a higher threshold lets more leave.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import Literal, NamedTuple

import torch

from ourospec.contracts import Effort, LanguageModel
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.serve.session import DecodingSession
from ourospec.serve.source import Chosen, TokenSource

Unit = Literal["passes", "ms"]

GAIN = 0.5
"""a: log-odds for a pass (per layer) too many, or a token's whole time too much. Where the threshold rises by one in
log-odds, a trained model's depth falls by some 0.3 to 0.5 passes (docs/calibrate.md): an error fades in five tokens."""
DRIFT = 0.05
"""b: log-odds for each token during which one pass is owed. A tenth of GAIN: much more swings, much less is late."""
LATEST = 2.0
"""The most that one token owes, in budgets of time: a machine that was away for a second tells nothing of gates."""
OWED = 20.0
"""The most that is owed or saved up, in passes or in budgets of time: what cannot be had is not owed for ever."""
FARTHEST = 16.0
"""Log-odds of the threshold at most, either way: beyond, survival in float32 is as good as 0 or 1."""


class Allowance(NamedTuple):
    """What a token of a text may cost on average."""

    amount: float
    unit: Unit = "passes"
    """passes: executed per token and layer; ms: milliseconds a token after the prompt, the draw included."""
    readout: str | None = None
    """What decides in place of the learned gates, see contracts.Effort."""
    start: float | None = None
    """The threshold to begin with; None for one half."""

    def describe(self) -> str:
        """1.3 passes, 12 ms."""
        return f"{self.amount:g} {self.unit}"


class Governor:
    """Hears what each token took and says how long the next may be thought about."""

    def __init__(self, allowance: Allowance) -> None:
        self.allowance = allowance
        self._start = _log_odds(0.5 if allowance.start is None else allowance.start)
        self._owed = self._drift = 0.0
        self.first = self.threshold
        """The threshold of the beginning."""

    @property
    def threshold(self) -> float:
        """Survival under which a token leaves its layer."""
        odds = self._start + GAIN * self._owed + self._drift
        return 1 / (1 + math.exp(-_within(odds, FARTHEST)))

    @property
    def effort(self) -> Effort:
        """For the next token."""
        return Effort(threshold=self.threshold, readout=self.allowance.readout)

    def hear(self, taken: float, share: float = 1.0) -> None:
        """A token took so much, in the budget's unit.

        Args:
            share: what it counts for, where several texts share the budget: of all their tokens at one time.
        """
        amount = self.allowance.amount
        error = taken - amount if self.allowance.unit == "passes" else min(taken / amount - 1, LATEST)
        self._owed = _within(self._owed + share * error, OWED)
        # From z₀ + drift to both ends of what a threshold can be: beyond, drifting would only have to be undone.
        drift = self._drift + share * DRIFT * self._owed
        self._drift = _within(self._start + drift, FARTHEST) - self._start


class Governed:
    """A TokenSource within a budget.

    Args:
        source: gives the tokens, out of the session; its passes are those that are counted.
    """

    def __init__(self, source: TokenSource, session: DecodingSession, governor: Governor) -> None:
        self.source, self.session, self.governor = source, session, governor
        self._first = True

    def __next__(self) -> Chosen:
        self.session.effort = self.governor.effort
        start = time.perf_counter()
        chosen = next(self.source)
        ms = 1000 * (time.perf_counter() - start)
        if self.governor.allowance.unit == "passes":
            self.governor.hear(statistics.fmean(chosen.passes))
        elif not self._first:
            # What chose the first token was read with the prompt.
            self.governor.hear(ms)
        self._first = False
        return chosen


def open_governor(
    model: LanguageModel, policy: DevicePolicy, allowance: Allowance | None, some: int
) -> Governor | None:
    """What keeps the budget, if there is one; see refuse_beyond."""
    if allowance is None:
        return None
    refuse_beyond(model, policy, allowance, some)
    return Governor(allowance)


def refuse_beyond(model: LanguageModel, policy: DevicePolicy, allowance: Allowance, some: int) -> None:
    """Refuse a budget that no threshold can meet.

    Args:
        some: any token that the model knows; it is read to see how many passes there can be.

    Raises:
        ConfigError: the model has no gates, or runs neither so few nor so many passes; or the amount is no number.
    """
    amount = allowance.amount
    if not math.isfinite(amount) or amount <= 0:
        raise ConfigError(
            f"A budget of {allowance.describe()} cannot be met.",
            "Name a positive number, such as --budget 1.3.",
        )
    try:
        least, most = (_passes_at(model, policy, some, t, allowance.readout) for t in (1.0, 0.0))
    except ConfigError as error:
        if allowance.readout is not None:
            raise
        raise ConfigError(
            "A budget is met by moving a threshold of the gates, and this model has none: it runs the same passes for "
            "every token.",
            "Leave the budget out, or use a run of adaptive depth.",
        ) from error
    if allowance.unit == "passes" and not least <= amount <= most:
        raise ConfigError(
            f"A budget of {allowance.describe()} cannot be met: a token runs {least:g} to {most:g} passes in each "
            "layer.",
            f"Choose a budget from {least:g} to {most:g}.",
        )


def _passes_at(
    model: LanguageModel, policy: DevicePolicy, token: int, threshold: float, readout: str | None
) -> float:
    row = torch.tensor([[token]], device=policy.device)
    with policy.inference(model):
        passes = model(row, effort=Effort(threshold=threshold, readout=readout)).passes
    return float(passes.double().mean())


def _log_odds(share: float) -> float:
    if share <= 0 or share >= 1:
        return -FARTHEST if share <= 0 else FARTHEST
    return _within(math.log(share) - math.log1p(-share), FARTHEST)


def _within(number: float, most: float) -> float:
    return max(-most, min(most, number))
