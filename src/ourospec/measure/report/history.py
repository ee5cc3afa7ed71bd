"""Everything that a report tells, read once from a run directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ourospec.errors import DataError
from ourospec.measure.report.series import Series
from ourospec.runs import RunDirectory
from ourospec.telemetry.alarms import Watch
from ourospec.telemetry.diagnosis import Diagnosis
from ourospec.telemetry.events import Record, read_records
from ourospec.telemetry.reading import AUDIT, FORCED, Reading

OF_THE_GATES = ("survival", "layer_s_trace", "gate", "near_floor", "layer_p_mean", "layer_p_std")
"""Readings that say nothing where passes are forced: the gates were not heeded."""
OF_THE_POLICY = (
    *OF_THE_GATES, "mean_passes", "expected_passes", "exec_passes", "gap", "passes_by_layer", "depth_histogram",
    "layer_histogram", "delta_ce", "delta_h",
)  # fmt: skip
"""Readings that in an audit tell of one layer's extra pass, not of what the gates wanted."""


@dataclass(frozen=True)
class Moment:
    """An event that stands on its own: an evaluation, a round of samples, a warning."""

    step: int
    data: Mapping[str, Any]


@dataclass
class History:
    """A run, as its files tell it."""

    folder: str
    """Name of the run directory."""
    recipe: Mapping[str, Any]
    environment: Mapping[str, Any]
    """Of the last start; empty where none was recorded."""
    start: Mapping[str, Any] = field(default_factory=dict)
    """Of the last start."""
    resumed: list[int] = field(default_factory=list)
    """The steps at which the run was taken up again."""
    began: float = 0.0
    """Seconds since 1970."""
    last_heard: float = 0.0
    """Seconds since 1970, of the last event."""
    step: int = 0
    latest: Mapping[str, Any] = field(default_factory=dict)
    """Of the last optimiser step."""
    series: dict[str, Series] = field(default_factory=dict)
    """By name, what the step events report, but for steps in which it would mislead."""
    decided_from: int | None = None
    """The first step that the gates decided."""
    priced_from: int | None = None
    """The first step in which passes had a price that answers to the depth."""
    resting: list[tuple[int, int]] = field(default_factory=list)
    """First and last step of each stretch in which the price's deadband was engaged."""
    evaluations: list[Moment] = field(default_factory=list)
    samples: list[Moment] = field(default_factory=list)
    warnings: list[Moment] = field(default_factory=list)
    status: str = "unfinished"
    """complete, interrupted, diverged, failed; "unfinished" while it trains or after it was killed."""
    diagnosis: Diagnosis = field(default_factory=lambda: Diagnosis(Watch()))
    """What the red flags say."""

    @property
    def title(self) -> str:
        """The run by family and preset; by its folder where the recipe names neither."""
        names = [str(self.recipe[key]) for key in ("family", "name") if self.recipe.get(key)]
        return " / ".join(names) or self.folder

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run, 0 while unknown."""
        return int(self.start.get("total_steps") or 0)

    @property
    def evaluation(self) -> Moment | None:
        """The last one."""
        return self.evaluations[-1] if self.evaluations else None

    @property
    def max_passes(self) -> int:
        """Passes that a layer can run; 1 for a model that has no choice."""
        for name in ("depth_histogram", "survival"):
            if name in self.series and self.series[name].vectors:
                return self.series[name].values.shape[1]
        return 1

    @property
    def adaptive(self) -> bool:
        """Whether there is depth to speak of."""
        return self.max_passes > 1

    def late(self, name: str, share: float = 0.1) -> np.ndarray | None:
        """Mean of a vector or matrix over the last part of the run; None where it is not reported."""
        found = self.series.get(name)
        if found is None or not len(found) or not (found.vectors or found.matrices):
            return None
        return found.values[-max(1, round(share * len(found))) :].mean(0)

    def mean_of_late(self, name: str, share: float = 0.1) -> float | None:
        """Mean over the last part of the run of what the step events report; None where they do not."""
        found = self.series.get(name)
        if found is None or not len(found) or found.vectors or found.matrices:
            return None
        late = found.values[-max(1, round(share * len(found))) :]
        return float(late.mean())

    def take(self, record: Record) -> None:
        """Take in the next event."""
        self.diagnosis.take(record)
        self.last_heard = record.time
        self.began = self.began or record.time
        moment = Moment(record.step, record.data)
        if record.kind == "step":
            self.step, self.latest = record.step, record.data
            self._take_readings(record)
        elif record.kind == "start":
            self.start, self.status = record.data, "unfinished"
            if record.data.get("resumed_from") is not None:
                self.resumed.append(record.step)
        elif record.kind == "end":
            self.status = str(record.data.get("status", "unfinished"))
        elif record.kind in ("eval", "sample", "warning"):
            named = {"eval": self.evaluations, "sample": self.samples, "warning": self.warnings}
            named[record.kind].append(moment)

    def _take_readings(self, record: Record) -> None:
        kind = record.data.get("step_kind")
        left_out = {FORCED: OF_THE_GATES, AUDIT: OF_THE_POLICY}.get(kind, ()) if isinstance(kind, str) else ()
        for name, value in record.data.items():
            if name not in left_out and _numeric(value):
                self.series.setdefault(name, Series()).add(record.step, value)
        self._take_market(Reading(record.kind, record.step, record.data))

    def _take_market(self, reading: Reading) -> None:
        if reading.gated and self.decided_from is None:
            self.decided_from = reading.step
        if reading.number("control_error") is not None and self.priced_from is None:
            self.priced_from = reading.step
        gain = reading.number("delta_ce")
        if gain is not None and reading.step_kind != AUDIT:
            self.series.setdefault("win_rate", Series()).add(reading.step, float(gain > 0))
        if reading.flag("deadband"):
            if self.resting and self.resting[-1][1] == reading.step - 1:
                self.resting[-1] = (self.resting[-1][0], reading.step)
            else:
                self.resting.append((reading.step, reading.step))


def read_history(run: RunDirectory) -> History:
    """The history of a run.

    Raises:
        DataError: its files cannot be read, or tell nothing yet.
    """
    environment = _read_json(run.environment) if run.environment.is_file() else {}
    starts = environment.get("starts") or [{}]
    recipe = _read_json(run.recipe)
    history = History(run.path.resolve().name, recipe, starts[-1], diagnosis=Diagnosis(Watch(recipe)))
    for record in read_records(run):
        history.take(record)
    if not history.began:
        raise DataError(
            f"{run.path} holds no events yet: there is nothing to report.", "Train it first: ouro train"
        )
    return history


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", "Restore the file; the run cannot do without it."
        ) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no JSON object.", "Restore the file; the run cannot do without it.")
    return found


def _numeric(value: Any) -> bool:
    """Whether it is a number, a vector or a matrix of numbers."""
    if not isinstance(value, list):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if value and all(isinstance(row, list) for row in value):
        return len({len(row) for row in value}) == 1 and all(_vector(row) for row in value)
    return _vector(value)


def _vector(value: list[Any]) -> bool:
    return bool(value) and all(not isinstance(item, list) and _numeric(item) for item in value)
