"""The few numbers by which a run's health is judged, over the last part of its steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ourospec.telemetry.quantities import count, decimal, scientific
from ourospec.telemetry.reading import POLICY, Reading, unit

LATE = 0.2
"""Share of the steps that the signs are about."""
SMOOTHED = 10
"""Policy steps behind one depth when its swing is measured: the text of a single batch is easy or hard by chance."""


class Sign(NamedTuple):
    """One of them: for a program a number, for a person a sentence."""

    name: str
    number: float | None
    words: str


class Step(NamedTuple):
    """What is kept of a step until the end is known."""

    step: int
    loss: float | None
    speed: float | None
    gradient: float | None


class Decision(NamedTuple):
    """What is kept of a step that the gates decided."""

    step: int
    policy: bool
    depth: float | None
    target: float | None
    price: float | None
    gain: float | None
    near_floor: float | None
    spread: float | None
    deadband: bool | None
    deadband_steps: float | None


class VitalSigns:
    """Collects the steps of a run: a few numbers for each."""

    def __init__(self) -> None:
        self.forced = 0
        """Steps whose passes were forced."""
        self._unit = "token"
        self._steps: list[Step] = []
        self._decisions: list[Decision] = []

    def take(self, reading: Reading) -> None:
        """Take in the next event."""
        if reading.kind == "start":
            self._unit = unit(reading.data)
        if reading.kind != "step":
            return
        numbers = (reading.loss, reading.number("tokens_per_second"), reading.number("grad_norm"))
        self._steps.append(Step(reading.step, *numbers))
        self.forced += reading.step_kind == "forced"
        if reading.gated:
            after = reading.number("price_next")
            self._decisions.append(
                Decision(
                    reading.step,
                    reading.step_kind == POLICY,
                    reading.depth,
                    reading.target,
                    reading.number("price") if after is None else after,
                    reading.number("delta_ce"),
                    reading.number("near_floor"),
                    max(reading.vector("layer_p_std") or [0.0]) if reading.vector("layer_p_std") else None,
                    reading.flag("deadband") if "deadband" in reading.data else None,
                    reading.number("deadband_steps"),
                )
            )

    @property
    def decided(self) -> int:
        """Steps that the gates decided."""
        return len(self._decisions)

    def signs(self) -> list[Sign]:
        """The signs that the run has numbers for, the depth's first."""
        return [*self._of_depth(), *self._of_learning()]

    def span(self) -> tuple[int, int, int] | None:
        """(number, first, last) of the policy steps that the signs are about."""
        late = self._late()
        return (len(late), late[0].step, late[-1].step) if late else None

    def _late(self) -> list[Decision]:
        policy = [decision for decision in self._decisions if decision.policy]
        return policy[-max(1, round(LATE * len(policy))) :] if policy else []

    def _of_depth(self) -> list[Sign]:
        late = self._late()
        if not late:
            return []
        depths, last = _known([d.depth for d in late]), late[-1]
        found: list[Sign] = []
        if depths:
            found.append(_depth(_mean(depths), last.target))
            found += _swing(depths, last.target)
        if last.deadband is not None and last.target:
            steps = round(last.deadband_steps or 0)
            words = f"engaged for {steps:,} policy steps" if last.deadband else "not engaged"
            found.append(Sign("deadband", float(last.deadband), words))
        if last.price is not None:
            prices = _known([d.price for d in late])
            words = f"{scientific(last.price)} nats per pass; {scientific(min(prices))} to {scientific(max(prices))}"
            found.append(Sign("price", last.price, words))
        gains = _known([d.gain for d in late])
        if gains:
            wins = _mean([float(gain > 0) for gain in gains])
            found.append(Sign("win rate", wins, f"{wins:.0%} of the steps gain by their passes"))
            words = f"{_mean(gains):+.4f} nats per token against one pass everywhere"
            found.append(Sign("delta_ce", _mean(gains), words))
        near = _known([d.near_floor for d in late])
        if near:
            found.append(
                Sign("near_floor", _mean(near), f"{_mean(near):.0%} of the gate values are at most 0.05")
            )
        spread = _known([d.spread for d in late])
        if spread:
            words = f"{_mean(spread):.3f}, in the layer whose gate values spread most"
            found.append(Sign("p_std", _mean(spread), words))
        return found

    def _of_learning(self) -> list[Sign]:
        late = self._steps[-max(1, round(LATE * len(self._steps))) :] if self._steps else []
        losses, norms = _known([s.loss for s in late]), _known([s.gradient for s in late])
        speeds = _known([s.speed for s in late])
        found = []
        if losses:
            first = _known([s.loss for s in self._steps[: len(late)]])
            before = decimal(_mean(first) if first else None)
            words = f"{decimal(_mean(losses))} nats per {self._unit}; {before} in as many steps at the start"
            found.append(Sign("loss", _mean(losses), words))
        if norms:
            found.append(Sign("grad_norm", _mean(norms), f"{_mean(norms):.2f} before clipping"))
        if speeds:
            found.append(Sign(f"{self._unit}s_per_second", _mean(speeds), count(_mean(speeds))))
        return found


def _depth(mean: float, target: float | None) -> Sign:
    words = f"{mean:.3f} passes per token and layer"
    if target:
        words += f"; target {target:.3f}, {mean / target - 1:+.1%}"
    return Sign("depth", mean, words)


def _swing(depths: Sequence[float], target: float | None) -> list[Sign]:
    """Half the way from the lowest to the highest of the smoothed depths, as a share of the target or the mean."""
    starts = range(0, len(depths) - SMOOTHED + 1, SMOOTHED)
    means = [_mean(depths[start : start + SMOOTHED]) for start in starts]
    if len(means) < 2:
        return []
    swing = (max(means) - min(means)) / 2 / (target or _mean(depths))
    return [Sign("swing", swing, f"±{swing:.1%} around its middle, over means of {SMOOTHED} steps")]


def _known(values: Sequence[Any]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
