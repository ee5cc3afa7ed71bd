"""A run in TensorBoard: `tensorboard --logdir RUN/tensorboard`. Needs the package of that name, but no torch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ourospec.contracts import Event
from ourospec.errors import ResourceError
from ourospec.runs import RunDirectory
from ourospec.telemetry.background import Background
from ourospec.telemetry.scalars import LAYERS_EVERY, curves

FLUSH_SECONDS = 5.0


class TensorBoardObserver:
    """Writes the curves of telemetry/scalars.py and, as a histogram, how many passes were run.

    Every start writes a file of its own and begins it by telling TensorBoard to forget the steps that come again.
    Nothing is touched before the first event.

    Raises:
        ResourceError: the package is not installed.
    """

    def __init__(self, run: RunDirectory) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError:
            raise ResourceError(
                "Writing for TensorBoard needs the library tensorboard, which is not installed.",
                "Install it with: pip install 'ourospec[tensorboard]' (or leave --tensorboard out)",
            ) from None
        self._event: Any = event_pb2
        self._summary: Any = summary_pb2
        self._open = RecordWriter
        self._folder = run.tensorboard
        self._writer: Any = None
        self._flushed = 0.0
        self._background = Background[tuple[float, Event]](self._write, str(self._folder))

    def on_event(self, event: Event) -> None:
        """Have the event written, if there is a curve in it."""
        if event.kind in ("start", "step", "eval"):
            self._background.put((time.time(), event))

    def close(self) -> None:
        """Finish the file."""
        self._background.close()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write(self, items: Sequence[tuple[float, Event]]) -> None:
        for when, event in items:
            if event.kind == "start":
                self._begin(when, event)
            elif self._writer is not None:
                self._record(when, event.step, summary=self._summarise(event))
        # Flushed now and then and not at every step: a reader wants whole minutes, not single points.
        if self._writer is not None and time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._writer.flush()
            self._flushed = time.monotonic()

    def _begin(self, when: float, event: Event) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if self._writer is not None:
            self._writer.close()
        self._writer = self._open(_next_file(self._folder).open("wb"))
        self._record(when, event.step, file_version="brain.Event:2")
        # TensorBoard drops what it has of this step and later ones.
        again = self._event.SessionLog(status=self._event.SessionLog.START)
        self._record(when, event.step + 1, session_log=again)

    def _record(self, when: float, step: int, **content: Any) -> None:
        self._writer.write(self._event.Event(wall_time=when, step=step, **content).SerializeToString())

    def _summarise(self, event: Event) -> Any:
        summary = self._summary.Summary
        values = [summary.Value(tag=name, simple_value=value) for name, value in curves(event).items()]
        shares = event.data.get("depth_histogram")
        if event.kind == "step" and shares and event.step % LAYERS_EVERY == 0:
            values.append(summary.Value(tag="depth/passes", histo=self._histogram(shares)))
        return summary(value=values)

    def _histogram(self, shares: Sequence[float]) -> Any:
        """The share of (token, layer) pairs that ran 1, 2, ... passes, each in a bar of width 1 around its number."""
        passes = range(1, len(shares) + 1)
        return self._summary.HistogramProto(
            min=1,
            max=len(shares),
            num=sum(shares),
            sum=sum(k * share for k, share in zip(passes, shares, strict=True)),
            sum_squares=sum(k * k * share for k, share in zip(passes, shares, strict=True)),
            bucket_limit=[0.5, *(k + 0.5 for k in passes)],
            bucket=[0.0, *shares],
        )


def _next_file(folder: Path) -> Path:
    """A new name behind those that are there; TensorBoard reads them in the order of their names.

    Its own writer would put the name of the machine in it, which a run directory does not tell.
    """
    numbers = [
        int(path.name.rpartition(".")[2])
        for path in folder.glob("events.out.tfevents.*")
        if path.name.rpartition(".")[2].isdecimal()
    ]
    return folder / f"events.out.tfevents.{max(numbers, default=0) + 1:010d}"
