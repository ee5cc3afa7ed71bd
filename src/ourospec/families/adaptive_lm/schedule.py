"""When what begins: forced passes, the price, the clamps, the audits. Every moment by step or by share of the run."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ourospec.config import Config
from ourospec.contracts import Clock, Effort, Rehearsal

Kind = Literal["forced", "policy", "audit"]


class Schedule(Config):
    """The phases of a run, in the order of Ouro-Spec's documentation.

    Warm-up: every token is forced through the same number of passes; the gates are asked and taught, not heeded.
    Then the gates decide. Then passes have a price, and a share of the steps are audits: in one layer, a different one
    each time, every token runs one more pass than its gates want, and the controller does not hear of it.
    """

    unit: Literal["fraction", "steps"] = "fraction"
    """What the moments below are counted in: share of the run, or optimiser steps."""
    forced_passes: Annotated[int, Field(ge=0)] = 2
    """Passes of every token during the warm-up; 0 for no warm-up."""
    forced_until: Annotated[float, Field(ge=0)] = 0.3
    """End of the warm-up; the whole run (fraction 1, or all its steps) trains a model of fixed depth."""
    price_from: Annotated[float, Field(ge=0)] = 0.35
    """When the price and the audits begin."""
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Least continue probability while training."""
    ceiling: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Greatest continue probability while training, until `ceiling_until`."""
    ceiling_until: Annotated[float, Field(ge=0)] = 0.4
    """When the ceiling falls away."""
    exploration: Annotated[float, Field(ge=0, lt=1)] = 0.02
    """Share of the tokens about to leave that run one more pass all the same, while training. Without it nobody
    would learn what they miss."""
    audit_share: Annotated[float, Field(ge=0, le=0.5)] = 0.05
    """Share of the priced steps that are audits."""
    first_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Survival threshold at the end of the warm-up; it moves in a line to model.depth.threshold."""
    threshold_until: Annotated[float, Field(ge=0)] = 0.0
    """When it arrives there; 0: it stands there from the start."""
    hard_kill: bool = False
    """One pass everywhere from the first step to the last: the baseline without recurrence."""

    @model_validator(mode="after")
    def _in_order(self) -> Schedule:
        if self.forced_passes and self.price_from < self.forced_until and not self._only_warm_up:
            raise ValueError(
                f"price_from ({self.price_from:g}) lies before forced_until ({self.forced_until:g}): "
                "nobody decides yet whom a price could tell anything"
            )
        moments = {"forced_until": self.forced_until, "price_from": self.price_from}
        late = [name for name, value in moments.items() if self.unit == "fraction" and value > 1]
        if late:
            raise ValueError(f"{late[0]} is beyond the end of the run; set unit steps to count in steps")
        return self

    def forced(self, clock: Clock) -> bool:
        """Whether the next step belongs to the warm-up. One that lasts to the end has not ended there, either."""
        whole = 1 if self.unit == "fraction" else clock.total
        lasts = self.forced_until >= whole or not self._past(self.forced_until, clock)
        return bool(self.forced_passes) and lasts

    def priced(self, clock: Clock) -> bool:
        """Whether passes have a price in the next step."""
        return not self.hard_kill and not self.forced(clock) and self._past(self.price_from, clock)

    def audited_layer(self, clock: Clock, layers: int) -> int | None:
        """The layer that the next step audits, None where it is none.

        One step in each block of 1/audit_share, at a place that is a pure function of the block, so that a resumed
        run audits what an uninterrupted one does; the layers take turns from block to block.
        """
        if not self.audit_share or not self.priced(clock):
            return None
        length = round(1 / self.audit_share)
        block, place = divmod(clock.step, length)
        # Knuth's multiplicative hash: neighbouring blocks are audited at unrelated places.
        chosen = (block * 2_654_435_761 & 0xFFFFFFFF) * length >> 32
        return block % layers if place == chosen else None

    def kind(self, clock: Clock, layers: int) -> Kind:
        """What the next step is."""
        if self.hard_kill or self.forced(clock):
            return "forced"
        return "policy" if self.audited_layer(clock, layers) is None else "audit"

    def forcing(self, clock: Clock, max_passes: int) -> Effort | None:
        """The effort of a step whose passes are forced, None where the gates decide."""
        if self.hard_kill:
            return Effort(forced_passes=1)
        return Effort(forced_passes=min(self.forced_passes, max_passes)) if self.forced(clock) else None

    def threshold(self, clock: Clock, final: float) -> float | None:
        """The annealed survival threshold, None once it has arrived at the model's own."""
        if self._past(self.threshold_until, clock):
            return None
        begin, now = (0.0 if not self.forced_passes else self.forced_until), self._now(clock)
        share = max(0.0, min(1.0, (now - begin) / max(self.threshold_until - begin, 1e-9)))
        return self.first_threshold + share * (final - self.first_threshold)

    def rehearsal(self, clock: Clock, layers: int, watched_rows: int) -> Rehearsal:
        """What training does besides; the ceiling holds until its time is over."""
        ceiling = 1.0 if self._past(self.ceiling_until, clock) else self.ceiling
        audited = self.audited_layer(clock, layers)
        return Rehearsal(
            floor=self.floor,
            ceiling=ceiling,
            exploration=0.0 if audited is not None else self.exploration,
            audited_layer=audited,
            watched_rows=watched_rows,
        )

    @property
    def _only_warm_up(self) -> bool:
        return self.unit == "fraction" and self.forced_until == 1

    def _now(self, clock: Clock) -> float:
        return clock.fraction if self.unit == "fraction" else float(clock.step)

    def _past(self, moment: float, clock: Clock) -> bool:
        return self._now(clock) >= moment
