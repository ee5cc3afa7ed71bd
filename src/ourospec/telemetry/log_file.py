"""train.log: what a person reads along while a run trains, and looks up afterwards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ourospec.contracts import Event
from ourospec.runs import RunDirectory
from ourospec.telemetry import log_lines
from ourospec.telemetry.background import Background


class LogFile:
    """Writes the lines of telemetry/log_lines.py a moment after each event, so that no step waits for the disk.

    A run that starts afresh begins its log afresh. A resumed one cuts off the steps that will come again, so that no
    step is told twice, and goes on behind a line that says so. A killed process may lose the last moment's lines.

    Nothing is touched before the first event. A disk without room costs lines, not the run.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._path = run.log
        self._file: BinaryIO | None = None
        self._deadband: bool | None = None
        self._background = Background[Event](self._write, str(self._path))

    def on_event(self, event: Event) -> None:
        """Have the event's lines written, if it has any."""
        if event.kind in ("start", "step", "warning", "end"):
            self._background.put(event)

    def close(self) -> None:
        """Return when everything is written."""
        self._background.close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, events: Sequence[Event]) -> None:
        lines: list[str] = []
        for event in events:
            if event.kind == "start":
                self._begin(event)
            lines += self._lines(event)
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
        _append(self._file, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace"))

    def _lines(self, event: Event) -> list[str]:
        if event.kind == "start":
            return log_lines.start_lines(event)
        if event.kind == "warning":
            return [log_lines.warning_line(event)]
        if event.kind == "end":
            return [log_lines.end_line(event)]
        lines = log_lines.step_lines(event, self._deadband)
        self._deadband = event.data.get("deadband") is True
        return lines

    def _begin(self, event: Event) -> None:
        """Open the file at the end of what is to stay of it."""
        if self._file is not None:
            self._file.close()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        resumed = event.data.get("resumed_from") is not None
        self._file = self._path.open("r+b" if resumed and self._path.exists() else "wb", buffering=0)
        kept, self._deadband = _keep(self._path, event.step) if resumed else (0, False)
        self._file.truncate(kept)
        self._file.seek(kept)


def _append(file: BinaryIO, data: bytes) -> None:
    """Write all of it or, where the disk takes no more, nothing of it, so that lines stay whole."""
    size = file.seek(0, os.SEEK_END)
    try:
        while data:
            data = data[file.write(data) :]
    except OSError:
        file.truncate(size)
        raise


def _keep(path: Path, step: int) -> tuple[int, bool | None]:
    """How many bytes of a log tell of steps up to `step`, and whether the deadband was engaged in the last of them.

    All that is told of a step stands behind its STEP line and before the next one. The second is None where the log
    holds no step.
    """
    size, deadband = 0, None
    marker = log_lines.STEP.encode()
    with path.open("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                break
            if line.startswith(marker):
                number = line.removeprefix(marker).split()[0]
                if not number.isdigit() or int(number) > step:
                    break
                deadband = log_lines.DEADBAND.encode() in line
            size += len(line)
    return size, deadband
