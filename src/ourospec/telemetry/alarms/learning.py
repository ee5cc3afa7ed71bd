"""Rules that hold for every model: loss, gradient, speed, and the balance of experts."""

from __future__ import annotations

from typing import ClassVar

from ourospec.telemetry.alarms.rule import Rule, Setting, Words
from ourospec.telemetry.averages import MovingMean
from ourospec.telemetry.quantities import count, decimal, scientific
from ourospec.telemetry.reading import FORCED, Reading, unit

WARMUP_SHARE = 0.05
"""Of the run, in which neither loss nor gradient is judged where the trainer does not name its warm-up."""


class LearningRule(Rule):
    """A rule about the steps after the learning rate's warm-up, of which it knows the learning rate."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self.rate: float | None = None
        self._regime: str | None = None

    def warming_up(self, reading: Reading) -> bool:
        """Whether the learning rate is still rising: what happens then is not yet typical of the run."""
        self.rate = self.setting.number("optim", "lr") or max(self.rate or 0.0, reading.number("lr") or 0.0)
        return reading.data.get("lr_phase") == "warmup" or reading.step <= self.setting.scaled(
            WARMUP_SHARE, 10, 500
        )

    def new_regime(self, reading: Reading) -> bool:
        """Whether passes were forced until now and the gates decide from here on, or the other way round.

        Loss and speed then step to another level, as they should.
        """
        regime = FORCED if reading.step_kind == FORCED else "free"
        changed = self._regime not in (None, regime)
        self._regime = regime
        return changed

    def slower(self, factor: float = 0.5) -> str:
        """The command for a lower learning rate, which is another recipe and therefore another run."""
        return lower_rates(self.setting, self.rate, factor)


def lower_rates(setting: Setting, rate: float | None, factor: float) -> str:
    """The command that trains anew with every learning rate times `factor`; `rate` is AdamW's."""
    command = f"ouro train RUN --run NEW --optim.lr {scientific((rate or 1e-3) * factor)}"
    muon = setting.number("optim", "muon", "lr")
    return command if muon is None else f"{command} --optim.muon.lr {scientific(muon * factor)}"


class ExplodingGradient(LearningRule):
    """The gradient before clipping is far longer than the clip: over 10 times, or over twice and rising.

    Twice alone, as the documents have it, is no flag: many healthy runs are clipped at every step.
    """

    name = "exploding_gradient"
    FAR: ClassVar[float] = 10.0
    OVER: ClassVar[float] = 2.0
    RISING: ClassVar[float] = 1.5
    """Over its own mean of four times as many steps."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._clip: float | None = None
        self._quick: MovingMean | None = None
        self._slow: MovingMean | None = None

    def judge(self, reading: Reading) -> bool | None:
        norm, clipped = reading.number("grad_norm"), reading.number("grad_norm_clipped")
        if norm is None or self.warming_up(reading):
            return None
        if clipped is not None and clipped < 0.999 * norm:
            self._clip = clipped
        clip = self.setting.number("optim", "clip_norm") or self._clip
        if self._quick is None or self._slow is None:
            steps = self.setting.scaled(0.02, 10, 100)
            self._quick, self._slow = MovingMean(steps), MovingMean(5 * steps)
        quick, slow = self._quick.add(norm), self._slow.add(norm)
        if not clip or not self._quick.full:
            return None
        self._clip = clip
        far = quick > self.FAR * clip
        self._level = "severe" if far else "warning"
        return far or (quick > self.OVER * clip and quick > self.RISING * slow)

    def words(self) -> Words:
        quick, slow = (self._quick.mean, self._slow.mean) if self._quick and self._slow else (0.0, 0.0)
        return Words(
            title="The gradient is exploding",
            evidence=f"Its norm before clipping is {quick:.2f} on average, {quick / (self._clip or 1):.1f} times the "
            f"clip of {self._clip:g}; over the last steps before, it was {slow:.2f}.",
            cause="The learning rate is too high for this stage, or a part of the loss has become very steep.",
            command=self.slower(),
        )


class LossNotFalling(LearningRule):
    """The training loss stands still early in the run, or rises at any time.

    Means over blocks of steps are compared, two comparisons in a row. Late in a run a loss that stands still is how
    runs end, so only a rise counts then. A change of depth between the blocks excuses the loss: thinking less is
    allowed to cost.
    """

    name = "loss_not_falling"
    STILL: ClassVar[float] = 0.002
    """Share of the loss that a block has to gain on the one before, in the first half of the run."""
    RISEN: ClassVar[float] = 0.01
    """Share of the loss by which it has to rise to be called rising."""
    DEPTH: ClassVar[float] = 0.05
    """Relative change of depth that excuses a loss."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._block: tuple[MovingMean, MovingMean] | None = None
        self._before: tuple[float, float, float] | None = None
        self._told = (0.0, 0.0, False)

    @property
    def patience(self) -> int:
        return 2

    @property
    def _length(self) -> int:
        return self.setting.scaled(0.08, 50, 2000)

    def judge(self, reading: Reading) -> bool | None:
        loss = reading.loss if reading.kind == "step" else None
        if loss is None or self.warming_up(reading):
            return None
        if self.new_regime(reading):
            self._block = self._before = None
        if self._block is None:
            self._block = MovingMean(self._length), MovingMean(self._length)
        losses, depths = self._block
        losses.add(loss)
        depths.add(reading.number("mean_passes") or 1.0)
        if losses.count < self._length:
            return None
        block, before = (losses.mean, losses.error, depths.mean), self._before
        self._block, self._before = None, block
        return None if before is None else self._compare(before, block, reading.step)

    def _compare(
        self, before: tuple[float, float, float], block: tuple[float, float, float], step: int
    ) -> bool:
        (old, old_error, old_depth), (new, new_error, depth) = before, block
        noise = 3 * (old_error**2 + new_error**2) ** 0.5
        rising = new > old + max(noise, self.RISEN * abs(old))
        early = step < 0.5 * self.setting.total_steps
        still = early and new > old - self.STILL * abs(old)
        self._told = old, new, rising
        return (rising or still) and abs(depth / max(old_depth, 1e-9) - 1) < self.DEPTH

    def words(self) -> Words:
        old, new, rising = self._told
        return Words(
            title="The loss is rising" if rising else "The loss does not fall",
            evidence=f"Over the last {self._length} steps it was {new:.3f} nats on average, before that {old:.3f}.",
            cause="The learning rate is too high, and undoes what was learned."
            if rising
            else "The learning rate is too low or too high, or the data hold nothing more that the model could learn.",
            command=self.slower(),
        )


class LossSpike(LearningRule):
    """The loss stands far above its level for several steps in a row."""

    name = "loss_spike"
    HIGH: ClassVar[float] = 0.1
    """Share of the loss above its level, at least."""

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._level_mean: MovingMean | None = None
        self._last = 0.0

    @property
    def patience(self) -> int:
        return 5

    def judge(self, reading: Reading) -> bool | None:
        loss = reading.loss if reading.kind == "step" else None
        if loss is None or self.warming_up(reading):
            return None
        if self.new_regime(reading) or self._level_mean is None:
            self._level_mean = MovingMean(self.setting.scaled(0.05, 30, 200))
        level = self._level_mean
        self._last = loss
        high = level.full and loss > level.mean + max(self.HIGH * abs(level.mean), 4 * level.deviation)
        if not high:
            level.add(loss)  # a spike is no part of the level that it is measured against
        return high

    def words(self) -> Words:
        level = self._level_mean.mean if self._level_mean else 0.0
        return Words(
            title="The loss has jumped",
            evidence=f"It stands at {self._last:.3f} nats; before, it was {level:.3f} on average.",
            cause="An update went too far: the learning rate is high for this stage, or a stretch of data is unlike "
            "the rest.",
            command=self.slower(),
        )


class Diverged(Rule):
    """The run ended because loss or gradient was no longer a finite number."""

    name = "diverged"
    severity = "severe"

    @property
    def patience(self) -> int:
        return 1

    def judge(self, reading: Reading) -> bool | None:
        return reading.data.get("status") == "diverged" if reading.kind == "end" else None

    def words(self) -> Words:
        rate = self.setting.number("optim", "lr")
        return Words(
            title="The run diverged",
            evidence="Loss or gradient was no longer finite; the update was not made, and the last checkpoint stays.",
            cause="The learning rate is too high. The step comes again when the run is resumed, as every step is "
            "determined.",
            command=lower_rates(self.setting, rate, 1 / 3),
        )


class Slow(LearningRule):
    """Fewer than half the tokens per second that this run was used to, without more work per token."""

    name = "slow"
    HALF: ClassVar[float] = 0.5

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._speed: MovingMean | None = None
        self._work: MovingMean | None = None
        self._usual = (0.0, 0.0)
        self._unit = "token"

    @property
    def patience(self) -> int:
        return 20

    def judge(self, reading: Reading) -> bool | None:
        if reading.kind == "start":  # perhaps on another machine
            self._unit = unit(reading.data)
            self._speed = self._work = None
            self._usual = (0.0, 0.0)
            return False
        speed = reading.number("tokens_per_second") if reading.kind == "step" else None
        if speed is None:
            return None
        if self._speed is None or self._work is None:
            self._speed, self._work = MovingMean(20), MovingMean(20)
        # A batch takes as long as its deepest token, or as the passes really run: whichever excuses more, excuses.
        passes = reading.number("exec_passes") or reading.number("mean_passes") or 1.0
        now = self._speed.add(speed), self._work.add(speed * passes)
        if not self._speed.full:
            return None
        self._usual = max(self._usual[0], now[0]), max(self._usual[1], now[1])
        return all(here < self.HALF * usual for here, usual in zip(now, self._usual, strict=True))

    def words(self) -> Words:
        speed = self._speed.mean if self._speed else 0.0
        return Words(
            title="Training has become slow",
            evidence=f"{count(speed)} {self._unit}s/s over the last 20 steps, {count(self._usual[0])} at its best.",
            cause="Another program takes the processor, memory has run short and is swapped, or the machine runs hot.",
            command="ouro doctor",
        )


class RouterImbalance(Rule):
    """A few experts get most of the tokens: the router's loss per call is well above its value at balance.

    The documents flag AUX > 0.1, a sum over layers and passes whose balanced value grows with depth. Per call it is
    the weight of the loss when all experts are used alike, and up to so many times more as there are experts.
    """

    name = "router_imbalance"
    OVER: ClassVar[float] = 1.5

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        self._loss: MovingMean | None = None
        self._least = float("inf")

    def judge(self, reading: Reading) -> bool | None:
        loss = reading.number("aux_per_call")
        if loss is None or loss <= 0:
            return None
        self._loss = self._loss or MovingMean(self.setting.scaled(0.02, 10, 100))
        mean = self._loss.add(loss)
        if not self._loss.full:
            return None
        self._least = min(self._least, mean)
        return mean > self.OVER * self._balanced

    @property
    def _balanced(self) -> float:
        """The recipe's weight; where it is not at hand the least that was seen, since routers begin balanced."""
        return self.setting.number("model", "moe", "balance") or self._least

    def words(self) -> Words:
        loss = self._loss.mean if self._loss else 0.0
        weight = scientific(3 * self._balanced)
        return Words(
            title="The experts are used unevenly",
            evidence=f"The balancing loss is {scientific(loss)} per call, {decimal(loss / self._balanced, 1)} times "
            f"its value at balance ({scientific(self._balanced)}).",
            cause="The router prefers a few experts and the balancing loss is too weak to spread the tokens.",
            command=f"ouro train RUN --run NEW --model.moe.balance {weight}",
        )
