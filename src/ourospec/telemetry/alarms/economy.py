"""Rules about the price of a pass: whether it holds the budget, and whether the passes earn it."""

from __future__ import annotations

from typing import ClassVar

from ourospec.telemetry.alarms.depth import DepthRule
from ourospec.telemetry.alarms.rule import Setting, Words
from ourospec.telemetry.averages import MovingMean
from ourospec.telemetry.quantities import scientific
from ourospec.telemetry.reading import POLICY, Reading

TOLERANCE = 0.05
"""Share of the target within which the budget counts as met."""


class Oscillation(DepthRule):
    """The depth swings around its target, again and again, by more than a tenth of it from crest to trough.

    A swing is counted when the mean depth leaves the tolerance on the side where it was not before. A controller
    that overshoots once and settles makes one or two; and swings that shrink to half are dying down.
    """

    name = "oscillation"
    explained_by = frozenset({"explosion", "collapse"})
    SIDES: ClassVar[int] = 4
    """Changes of side that make an oscillation: two whole swings."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._side = 0
        self._peak = 0.0
        self._peaks: list[float] = []
        self._waited = 0
        self._quick = 0.0

    @property
    def patience(self) -> int:
        return 1  # the swings are the patience

    @property
    def _quiet(self) -> int:
        """Policy steps without a change of side after which the swinging is over."""
        return self.setting.scaled(0.25, 100, 2000)

    def holds(self, reading: Reading) -> bool | None:
        if reading.number("control_error") is None or not self.target:
            return None
        error = self.mean / self.target - 1
        self._waited += 1
        side = 0 if abs(error) <= TOLERANCE else (1 if error > 0 else -1)
        if side and side != self._side:
            if self._side:
                self._peaks = [*self._peaks, self._peak][-self.SIDES :]
            self._side, self._peak, self._waited = side, 0.0, 0
        if side:
            self._peak = max(self._peak, abs(error))
        if self._waited > self._quiet:
            self._peaks, self._side = [], 0
        dying = len(self._peaks) > 1 and self._peaks[-1] < 0.5 * self._peaks[0]
        return len(self._peaks) == self.SIDES and not dying

    def _slower_rate(self) -> float:
        return (self.setting.number("objective", "price", "rate") or 0.15) / 3

    def words(self) -> Words:
        crest = 2 * sum(self._peaks) / len(self._peaks) if self._peaks else 0.0
        return Words(
            title="The depth oscillates around its target",
            evidence=f"It has crossed the target {len(self._peaks)} times, swinging by {crest:.0%} of it from crest "
            f"to trough. {self.depth_words()}",
            cause="The price moves faster than the gates can follow, and overshoots each time.",
            command=f"ouro train RUN --run NEW --objective.price.rate {self._slower_rate():.2g}",
            afterwards=self.calibrate(),
        )


class BudgetMissed(DepthRule):
    """Long after the price began to act, the depth is off its target by more than the tolerance, and stays there."""

    name = "budget_missed"
    explained_by = frozenset({"collapse", "explosion", "oscillation", "price_pinned", "closing_gates"})

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._controlled = 0
        self._slow: MovingMean | None = None

    @property
    def patience(self) -> int:
        return self.setting.scaled(0.08, 50, 1000)

    def holds(self, reading: Reading) -> bool | None:
        if reading.number("control_error") is None or not self.target:
            return None
        self._controlled += 1
        self._slow = self._slow or MovingMean(4 * self.over_steps)
        error = abs(self.mean - self.target)
        slow = self._slow.add(error)
        if self._controlled < self.setting.scaled(0.2, 100, 3000):
            return None
        return error > TOLERANCE * self.target and error > 0.9 * slow

    def words(self) -> Words:
        error = self.mean / self.target - 1 if self.target else 0.0
        return Words(
            title="The budget is missed",
            evidence=f"{self.depth_words()} That is {abs(error):.0%} {'over' if error > 0 else 'under'} it, and it "
            "is not getting nearer.",
            cause="The price moves too slowly for the steps that are left, or rests while the depth drifts.",
            command=self.set_price(0.5 if error > 0 else -0.5),
            afterwards=self.calibrate(),
        )


class PricePinned(DepthRule):
    """The depth is off its target and the price does not move: it lies at its floor or at its ceiling.

    A controller that is at work moves the price with every policy step; only a bound, or the deadband, holds it.
    So the bounds themselves need not be known.
    """

    name = "price_pinned"
    explained_by = frozenset({"oscillation"})

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._last: float | None = None

    def holds(self, reading: Reading) -> bool | None:
        next_price = reading.number("price_next")
        if reading.number("control_error") is None or not self.target or reading.step_kind != POLICY:
            return None
        here = next_price if next_price is not None else reading.number("price")
        before, self._last = self._last, here
        if here is None or before is None or reading.flag("deadband"):
            return None
        still = abs(here - before) <= 1e-9 * max(abs(here), abs(before))
        return still and abs(self.mean / self.target - 1) > TOLERANCE

    def _further(self, over: bool) -> str:
        """The bound that is in the way, and a value beyond it; a floor may be negative."""
        bound = self._last or 0.0
        if over:
            return f"ceiling={max(2 * bound, 0.01):.2g}"
        return f"floor={bound / 4 if bound > 0 else min(2 * bound, -0.01):.2g}"

    def words(self) -> Words:
        over = bool(self.target and self.mean > self.target)
        return Words(
            title="The price is pinned at its " + ("ceiling" if over else "floor"),
            evidence=f"It has not moved from {scientific(self._last)} for {self.patience} policy steps. "
            f"{self.depth_words()}",
            cause="Even the highest price allowed does not bring the depth down; raise its ceiling."
            if over
            else "Even at the lowest price allowed the gates ask for less than the target: the passes are worth less "
            "to them than that, or they have closed.",
            command=f"ouro train RUN --run NEW --objective.price.{self._further(over)}",
            afterwards=self.calibrate(),
        )


class NoBenefit(DepthRule):
    """The passes beyond the first do not lower the loss: the measured gain is about zero or negative.

    The win rate is the share of policy steps whose gain is positive; by chance it is one half. Where nobody runs a
    second pass there is nothing to gain, and the collapse is what is reported.
    """

    name = "no_benefit"
    explained_by = frozenset({"collapse"})
    ABOUT_ZERO: ClassVar[float] = 0.002
    """Nats per target."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._gain: MovingMean | None = None
        self._wins: MovingMean | None = None
        self._loss: float | None = None

    @property
    def patience(self) -> int:
        return self.setting.scaled(
            0.1, 50, 1000
        )  # gates that were just set free have yet to find what is worth it

    def holds(self, reading: Reading) -> bool | None:
        gain = reading.number("delta_ce")
        # An audit measures one more pass in one layer, which may well be worth nothing in a healthy run.
        if gain is None or reading.step_kind != POLICY or self.mean < 1.05:
            return None
        if self._gain is None or self._wins is None:
            steps = self.setting.scaled(0.1, 50, 500)
            self._gain, self._wins = MovingMean(steps), MovingMean(steps)
        self._gain.add(gain)
        self._wins.add(float(gain > 0))
        self._loss = reading.loss
        return self._gain.mean < self.ABOUT_ZERO and self._wins.mean < 0.5 if self._gain.full else None

    def words(self) -> Words:
        gain, wins = (self._gain.mean, self._wins.mean) if self._gain and self._wins else (0.0, 0.0)
        loss = "" if self._loss is None else f" The loss is {self._loss:.2f} nats."
        hurts = gain < -self.ABOUT_ZERO
        return Words(
            title="Thinking longer makes it worse" if hurts else "Thinking longer is worth nothing",
            evidence=f"Against one pass in every layer, the passes run lower the loss by {gain:+.4f} nats on average, "
            f"and do so in {wins:.0%} of the steps.{loss} {self.depth_words()}",
            cause="The later passes are not trained yet, or the text is too easy to need them (a loss under about "
            "1.5 nats says so), or passes are spent on the wrong tokens.",
            command=self.set_price(1),
            afterwards="ouro evaluate RUN --max-passes 1",
        )
