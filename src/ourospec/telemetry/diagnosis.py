"""A run replayed through the red flags: what went wrong, when, and whether it still does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ourospec.errors import DataError
from ourospec.runs import RunDirectory
from ourospec.telemetry.alarms import Episode, Watch
from ourospec.telemetry.events import Record, read_records
from ourospec.telemetry.reading import Reading
from ourospec.telemetry.vital_signs import VitalSigns


@dataclass
class Diagnosis:
    """What the events of a run say of its health."""

    watch: Watch
    start: Mapping[str, Any] = field(default_factory=dict)
    """Of the last start."""
    status: str = "unfinished"
    """As the end says it; "unfinished" while the run trains, or after it was killed."""
    step: int = 0
    episodes: list[Episode] = field(default_factory=list)
    """Findings in the order in which they were noticed, each with its end."""
    signs: VitalSigns = field(default_factory=VitalSigns)

    @property
    def complete(self) -> bool:
        """Whether the run has reached its end, so that commands which go on with it do nothing."""
        return self.status == "complete"

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run, 0 while unknown."""
        return int(self.start.get("total_steps") or 0)

    @property
    def ordered(self) -> list[Episode]:
        """What still holds before what is over, severe before the rest, then by time."""
        return sorted(
            self.episodes,
            key=lambda e: (e.until is not None, e.finding.severity != "severe", e.finding.since),
        )

    def take(self, record: Record) -> None:
        """Take in the next event."""
        self.step = max(self.step, record.step)
        if record.kind == "start":
            self.start, self.status = record.data, "unfinished"
        elif record.kind == "end":
            self.status = str(record.data.get("status", "unfinished"))
        self.signs.take(Reading(record.kind, record.step, record.data))
        found = self.watch.take(record.kind, record.step, record.data)
        active = self.watch.active
        for episode in self.episodes:
            if episode.until is None and episode.finding.rule not in active:
                episode.until = record.step
        self.episodes += [Episode(finding) for finding in found]

    def stage(self) -> str:
        """What the gates are doing, in a sentence; empty for a model without any."""
        if self.signs.decided:
            return ""
        if self.signs.forced:
            return "Passes are still forced; of the gates nothing can be said before they decide."
        return ""


def diagnose(run: RunDirectory) -> Diagnosis:
    """Replay a run's events.

    Raises:
        DataError: its recipe or events cannot be read, or there are no events yet.
    """
    diagnosis = Diagnosis(Watch(_recipe(run)))
    empty = True
    for record in read_records(run):
        diagnosis.take(record)
        empty = False
    if empty:
        raise DataError(
            f"{run.path} holds no events yet: there is nothing to diagnose.",
            f"Train it first: ouro train {run.path}",
        )
    return diagnosis


def _recipe(run: RunDirectory) -> dict[str, Any]:
    """The recipe as data, whatever its family; empty where it is damaged, as the events are what counts."""
    try:
        found = json.loads(run.recipe.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
