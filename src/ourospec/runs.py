"""Run directories: where things lie in them, which exist, and what they say. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ourospec.errors import ConfigError

EVENTS_VERSION = 1


@dataclass(frozen=True)
class RunDirectory:
    """The paths of one run. Nothing here writes; whoever owns a file writes it."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The resolved recipe, from which the run can be repeated."""
        return self.path / "recipe.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def events(self) -> Path:
        """One JSON object a line, see telemetry/events.py."""
        return self.path / "events.jsonl"

    @property
    def log(self) -> Path:
        """What a person follows with `tail -f`, see docs/log-guide.md."""
        return self.path / "train.log"

    @property
    def stats(self) -> Path:
        """The latest step as one JSON object, see telemetry/stats_file.py."""
        return self.path / "stats.json"

    @property
    def tensorboard(self) -> Path:
        """A folder, where it was asked for."""
        return self.path / "tensorboard"

    @property
    def wandb(self) -> Path:
        """A folder, where it was asked for: the package's own, and the id of the run in it."""
        return self.path / "wandb"

    @property
    def tokenizer(self) -> Path:
        """A folder: the tokenizer as used, so that the run stands on its own."""
        return self.path / "tokenizer"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.path / "samples"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def calibration(self) -> Path:
        """Which threshold meets which budget, see measure/calibration_record.py."""
        return self.path / "calibration.json"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"

    @property
    def pause(self) -> Path:
        """Create this file to have the run save and stop after the step in hand."""
        return self.path / ".pause"

    def exists(self) -> bool:
        """Whether a run was ever started here."""
        return self.recipe.is_file()

    def read_events(self) -> Iterator[dict[str, Any]]:
        """Every whole event, oldest first. A last line cut off by a crash is left out."""
        if not self.events.is_file():
            return
        with self.events.open(encoding="utf-8") as lines:
            for line in lines:
                if line.endswith("\n"):
                    yield json.loads(line)


def open_run(path: str | Path) -> RunDirectory:
    """An existing run directory.

    Raises:
        ConfigError: there is no run at that path; the message lists the runs that stand beside it.
    """
    run = RunDirectory(Path(path))
    if run.exists():
        return run
    what = "is not a run directory (it has no recipe.json)" if run.path.exists() else "does not exist"
    near = list_runs(run.path.parent)
    beside = f"Runs beside it: {', '.join(str(r.path) for r in near)}" if near else ""
    raise ConfigError(f"{run.path} {what}.", beside or "Start one with: ouro train adaptive_lm/tiny")


def list_runs(folder: str | Path) -> list[RunDirectory]:
    """The runs directly inside a folder, by name."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    runs = (RunDirectory(child) for child in sorted(folder.iterdir()) if child.is_dir())
    return [run for run in runs if run.exists()]
