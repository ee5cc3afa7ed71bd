"""A run as a person watches it: live on a terminal, in plain lines anywhere else."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TextIO

from ourospec.contracts import Event
from ourospec.telemetry.alarms import Finding, Watch
from ourospec.telemetry.plain_view import PlainView
from ourospec.telemetry.progress import Progress


class View(Protocol):
    """One way of showing a run."""

    def begin(self, progress: Progress) -> None: ...

    def step(self, progress: Progress) -> None: ...

    def evaluation(self, progress: Progress) -> None: ...

    def samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None: ...

    def checkpoint(self, step: int, data: Mapping[str, Any]) -> None: ...

    def warning(self, message: str) -> None: ...

    def end(self, progress: Progress, data: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


class ConsoleObserver:
    """Shows loss, bits per byte, tokens per second, mean depth and time left; samples, warnings and the end.

    Args:
        stream: where to write; stdout when None.
        every: seconds between two lines about the steps, where the stream is no terminal.
        quiet: say nothing but warnings.
        recipe: as recipe.json has it, where it is at hand: red flags know their thresholds better by it.
        run: the run directory, for the commands that red flags suggest.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        every: float = 10.0,
        quiet: bool = False,
        recipe: Mapping[str, Any] | None = None,
        run: str = "RUN",
    ) -> None:
        self._view = choose_view(stream or sys.stdout, every)
        self._progress = Progress()
        self._quiet = quiet
        self._watch, self._run = Watch(recipe), run

    def on_event(self, event: Event) -> None:
        """Take the event in and show it."""
        if event.kind == "warning":
            self._view.warning(str(event.data.get("message", "")))
        elif not self._quiet:
            self._show(event)
        for finding in self._watch.take(*event):
            self._view.warning(in_a_line(finding, self._run))

    def close(self) -> None:
        """Give the terminal back."""
        self._view.close()

    def _show(self, event: Event) -> None:
        progress, data = self._progress, event.data
        if event.kind == "step":
            progress.advance(event.step, data)
            self._view.step(progress)
        elif event.kind == "start":
            progress.begin(event.step, data)
            self._view.begin(progress)
        elif event.kind == "eval":
            progress.evaluation, progress.evaluated_at = data, event.step
            self._view.evaluation(progress)
        elif event.kind == "sample":
            self._view.samples(event.step, data.get("samples", ()))
        elif event.kind == "checkpoint":
            progress.saved_at = event.step
            self._view.checkpoint(event.step, data)
        elif event.kind == "end":
            self._view.end(progress, data)


def in_a_line(finding: Finding, run: str) -> str:
    """A red flag as a warning: what, with which numbers, and what to try."""
    return f"{finding.title} (step {finding.step:,}). {finding.evidence} Try: {finding.advice(run)}"


def choose_view(stream: TextIO, every: float) -> View:
    """Live on a terminal that can move its cursor, plain otherwise."""
    if not stream.isatty():
        return PlainView(stream, every)
    from rich.console import Console

    from ourospec.telemetry.live_view import LiveView

    console = Console(file=stream, highlight=False)
    return PlainView(stream, every) if console.is_dumb_terminal else LiveView(console)
