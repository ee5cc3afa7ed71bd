"""Rules about the gates: whether they let tokens in at all, whether they let them go, whether they tell them apart."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from ourospec.telemetry.alarms.rule import Rule, Setting, Words
from ourospec.telemetry.averages import MovingMean
from ourospec.telemetry.quantities import decimal, scientific
from ourospec.telemetry.reading import Reading

DEFAULT_BUDGET = 1.5
"""Passes that an advice names where the run has no target."""


class DepthRule(Rule):
    """A rule that looks at the depth which the gates ask for, averaged over policy steps."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.depth: MovingMean | None = None
        self.target: float | None = None
        self.most: int | None = None
        self.price: float | None = None

    @abstractmethod
    def holds(self, reading: Reading) -> bool | None:
        """Whether the condition holds, the mean depth being up to date."""

    def judge(self, reading: Reading) -> bool | None:
        """Nothing is said until the gates have decided for as many steps as the mean goes back."""
        if reading.depth is None:
            return None
        # Made here, and not at first: the run's length is known from its start event on.
        self.depth = self.depth or MovingMean(self.setting.scaled(0.02, 10, 100))
        self.depth.add(reading.depth)
        self.target = reading.target or self.target
        self.most = reading.most_passes or self.most
        price = reading.number("price")
        self.price = self.price if price is None else price
        return self.holds(reading) if self.depth.full else None

    @property
    def mean(self) -> float:
        """Passes per token and layer that the gates ask for."""
        return self.depth.mean if self.depth else 0.0

    @property
    def over_steps(self) -> int:
        """Policy steps that the mean goes back."""
        return round(self.depth.steps) if self.depth else 0

    def depth_words(self) -> str:
        """The depth against its target, with the price."""
        text = f"The gates ask for {self.mean:.2f} passes on average over the last {self.over_steps} policy steps"
        if self.target:
            text += f"; the target is {self.target:.2f}"
        return text + ("." if self.price is None else f". The price is {scientific(self.price)}.")

    def set_price(self, share: float) -> str:
        """The command that changes the price by this share of itself, by some thousandths where it is about 0.

        A price may be negative (a subsidy); positive shares make passes dearer all the same.
        """
        here = self.price or 0.0
        price = here + share * max(abs(here), 0.004)
        floor = self.setting.number("objective", "price", "floor")
        if floor is None and here > 0:
            floor = here / 10  # whether this market knows subsidies is not known
        ceiling = self.setting.number("objective", "price", "ceiling")
        price = price if floor is None else max(price, floor)
        price = price if ceiling is None else min(price, ceiling)
        if price == self.price:
            return self.calibrate()  # it is at its bound already
        return f"ouro train RUN --set-price={price:.2g}"

    def calibrate(self) -> str:
        """The command that meets a budget without training."""
        return f"ouro calibrate RUN --budget {self.target or DEFAULT_BUDGET:g}"


class Collapse(DepthRule):
    """No gate goes on: every token runs one pass, and the recurrence is dead weight."""

    name = "collapse"
    severity = "severe"
    NEAR_ONE: ClassVar[float] = 0.03
    """Passes above 1 that still count as none."""

    def holds(self, reading: Reading) -> bool | None:
        self._near_floor = reading.number("near_floor")
        return self.mean < 1 + self.NEAR_ONE and (self.target is None or self.target > 1 + 2 * self.NEAR_ONE)

    def words(self) -> Words:
        evidence = self.depth_words()
        if self._near_floor is not None:
            evidence += f" {self._near_floor:.0%} of the gate values are at most 0.05."
        return Words(
            title="The depth has collapsed to one pass",
            evidence=evidence,
            cause="A further pass costs more than the gates believe it is worth: the price is too high, or the gates "
            "never learned where a pass helps. A closed gate opens again only slowly.",
            command=self.set_price(-1),
            afterwards=self.calibrate(),
        )


class ClosingGates(DepthRule):
    """Many gate values sit at their floor while the depth falls short.

    The documents raise this flag at 20% alone. But at a target of 1.3 most tokens are meant to leave at once, and
    gates that know it are closed for them: it is trouble only where the depth is missing.
    """

    name = "closing_gates"
    explained_by = frozenset({"collapse"})
    SHARE: ClassVar[float] = 0.2
    SHORT: ClassVar[float] = 0.5
    """Of the passes beyond the first that the target asks for, the share that is missing at least."""
    ALONE: ClassVar[float] = 1.1
    """Depth under which it is trouble in a run without a target."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._near: MovingMean | None = None

    def holds(self, reading: Reading) -> bool | None:
        near = reading.number("near_floor")
        if near is None:
            return None
        self._near = self._near or MovingMean(self.over_steps)
        self._near.add(near)
        least = self.ALONE if self.target is None else 1 + self.SHORT * (self.target - 1)
        return self._near.mean > self.SHARE and self.mean < least

    def words(self) -> Words:
        near = self._near.mean if self._near else 0.0
        return Words(
            title="The gates are closing",
            evidence=f"{near:.0%} of the gate values are at most 0.05. {self.depth_words()}",
            cause="The price is more than the passes are worth to the gates; they are on the way to running one pass.",
            command=self.set_price(-0.5),
            afterwards=self.calibrate(),
        )


class Explosion(DepthRule):
    """The depth is near its most, far above the target, and does not come down."""

    name = "explosion"
    severity = "severe"
    FAR: ClassVar[float] = 0.5
    """Of the way from the target to the most."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._slow: MovingMean | None = None

    @property
    def patience(self) -> int:
        return self.setting.scaled(0.05, 40, 400)  # the price begins low, and needs time to rise

    def holds(self, reading: Reading) -> bool | None:
        if reading.number("control_error") is None or not self.target or not self.most:
            return None  # before the price acts, gates may go as deep as they like
        self._slow = self._slow or MovingMean(4 * self.over_steps)
        falling = self.mean < self._slow.add(self.mean) - 0.01 * self.most
        far = self.most - self.target > 0.2 and self.mean - self.target > self.FAR * (self.most - self.target)
        return far and not falling

    def words(self) -> Words:
        return Words(
            title="The depth has exploded",
            evidence=f"{self.depth_words()} The most is {self.most}.",
            cause="The price is too low to be felt, so every gate goes on: compute is spent without a reason.",
            command=self.set_price(3),
            afterwards=self.calibrate(),
        )


class NeverLeaving(DepthRule):
    """A layer whose gate lets everyone go on: its survival hardly falls from pass to pass.

    Judged layer by layer where the layers are told: one such layer hides in the mean. Where all are like that
    against a lower target, it is the explosion that is reported.
    """

    name = "always_continue"
    explained_by = frozenset({"explosion"})
    FLAT: ClassVar[float] = 0.9
    """Mean share that stays at each pass, above which the trace is called flat."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._flat: list[int] = []
        self._trace: list[float] = []
        self._layers = 1

    @property
    def patience(self) -> int:
        return self.setting.scaled(0.06, 50, 500)  # longer than the explosion's, which is told instead

    def holds(self, reading: Reading) -> bool | None:
        mean = reading.vector("survival")
        traces = reading.matrix("layer_s_trace") or ([mean] if mean else [])
        if not traces or len(traces[0]) < 2:
            return None
        if self.target and len(traces[0]) - self.target < 0.2:
            return None  # all the passes are what is asked for
        self._layers = len(traces)
        self._flat = [index for index, trace in enumerate(traces, start=1) if self._is_flat(trace)]
        self._trace = traces[self._flat[0] - 1] if self._flat else []
        return bool(self._flat)

    def _is_flat(self, trace: list[float]) -> bool:
        return trace[0] > 0 and trace[-1] / trace[0] > self.FLAT ** (len(trace) - 1)

    def words(self) -> Words:
        where = "The gates" if self._layers == 1 else f"The gates of {_layers(self._flat, self._layers)}"
        trace = ", ".join(decimal(value, 2) for value in self._trace)
        return Words(
            title=f"{where} always go on",
            evidence=f"Survival from pass to pass: {trace}. {self.depth_words()}",
            cause="Nothing makes leaving worth while there: the price is too low, or it has not had time to act.",
            command=self.set_price(1),
            afterwards=self.calibrate(),
        )


class Indiscriminate(DepthRule):
    """The depth follows the layer and not the token: in every layer all tokens run equally many passes.

    Judged by what the tokens did. Where that is not told, or the gates are probabilities (and not forecasts of gains,
    which may differ by little and yet sort the tokens), a spread of the gate values under 0.03 says the same.
    """

    name = "no_discrimination"
    explained_by = frozenset({"collapse", "explosion"})
    ALIKE: ClassVar[float] = 0.96
    """Share of a layer's tokens with the same number of passes; exploration moves some 2%."""
    SPREAD: ClassVar[float] = 0.03
    """Standard deviation of the gate values in the layer that discriminates most."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._alike: MovingMean | None = None
        self._spread: MovingMean | None = None

    @property
    def patience(self) -> int:
        return self.setting.scaled(0.1, 50, 500)  # gates take their time to learn

    def holds(self, reading: Reading) -> bool | None:
        histograms, spreads = reading.matrix("layer_histogram"), reading.vector("layer_p_std")
        if not histograms and not spreads:
            return None
        self._alike = self._alike or MovingMean(self.over_steps)
        self._spread = self._spread or MovingMean(self.over_steps)
        if histograms:
            self._alike.add(min(max(shares) for shares in histograms))
        narrow = False
        if spreads and reading.number("credit_gain") is None:
            narrow = self._spread.add(max(spreads)) < self.SPREAD
        between = self.mean > 1.1 and (self.most is None or self.mean < self.most - 0.1)
        return between and (narrow or self._alike.mean > self.ALIKE)

    def words(self) -> Words:
        found = []
        if self._alike and self._alike.count:
            found.append(
                f"In every layer at least {self._alike.mean:.0%} of the tokens run equally many passes."
            )
        if self._spread and self._spread.count:
            found.append(f"Nowhere do the gate values spread by more than {self._spread.mean:.3f}.")
        return Words(
            title="The gates do not tell tokens apart",
            evidence=" ".join([*found, self.depth_words()]),
            cause="The gates see no sign of where a pass helps, or nothing teaches them: a depth fixed for each layer "
            "would do as well. Gates that are taught by the measured gain of a pass are the cure.",
            command="ouro train RUN --run NEW --objective.credit gain",
        )


class HardSoftGap(DepthRule):
    """What runs is not what the gates mean: executed and expected passes differ by more than half a pass.

    The documents compare the deepest token of a batch with the mean expectation; that gap is wide in every healthy
    run. Compared here are means: the depth that the gates asked for by the threshold, and the sum of the survival.
    Gates that foretell gains (`credit_gain` is reported) are no probabilities, and their sum is no depth.
    """

    name = "hard_soft_gap"
    GAP: ClassVar[float] = 0.5

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._soft: MovingMean | None = None

    def holds(self, reading: Reading) -> bool | None:
        soft = reading.number("expected_passes")
        if soft is None or reading.number("credit_gain") is not None:
            return None
        self._soft = self._soft or MovingMean(self.over_steps)
        self._soft.add(soft)
        return abs(self.mean - self._soft.mean) > self.GAP

    def words(self) -> Words:
        soft = self._soft.mean if self._soft else 0.0
        over = self.mean > soft
        return Words(
            title="Executed and expected depth have come apart",
            evidence=f"The survival adds up to {soft:.2f} passes, {self.mean:.2f} are run by the threshold.",
            cause="The gates hover "
            + ("just above" if over else "just below")
            + " the threshold, so a soft answer becomes the same hard one for many tokens, and the price bills "
            "something else than the gradient sees.",
            command="ouro train RUN --run NEW --model.depth.threshold " + ("0.3" if over else "0.05"),
        )


def _layers(numbers: list[int], of: int) -> str:
    """Layers in words, counted from 1."""
    if len(numbers) == of:
        return "all layers"
    if len(numbers) == 1:
        return f"layer {numbers[0]}"
    return f"layers {', '.join(map(str, numbers[:-1]))} and {numbers[-1]}"
