"""The event file of a run: every event is on its way to the disk before training goes on."""

from __future__ import annotations

import os
import time
import warnings

from ourospec.contracts import Event
from ourospec.runs import RunDirectory
from ourospec.telemetry.events import encode

READ_BLOCK = 1 << 16


class JsonlObserver:
    """Appends events to events.jsonl, a line each, unbuffered: a killed process loses nothing that it wrote.

    A disk without room does not stop the run, nor the log for good: what cannot be written is left out, lines stay
    whole, and when there is room again a warning event says how many are missing.

    Nothing is touched before the first event, so that building an observer is harmless while another process
    holds the run.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._path = run.events
        self._file: int | None = None
        self._size = 0
        self._lost = 0

    def on_event(self, event: Event) -> None:
        """Write the event, or count it as lost where the disk takes no more."""
        lines = encode(event, time.time())
        if self._lost:
            message = f"{self._lost} events before this one are missing: the disk took no more."
            lines = encode(Event("warning", event.step, {"message": message}), time.time()) + lines
        try:
            self._append(lines.encode("utf-8", "replace"))
            self._lost = 0
        except OSError as error:
            self._lost += 1
            if self._lost == 1:
                warnings.warn(
                    f"{self._path} could not be written ({error.strerror or error}); training goes on without.",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def offset(self) -> int:
        """Bytes in the file, all of whole events: what a checkpoint remembers to come back to."""
        if self._file is not None:
            return self._size
        return self._path.stat().st_size if self._path.exists() else 0

    def truncate(self, offset: int) -> None:
        """Forget what was written after the first `offset` bytes.

        A file shorter than that (events were lost) keeps all its whole lines, and one whose lines end elsewhere
        (it was edited) keeps those that end before.

        Raises:
            OSError: the file cannot be changed.
        """
        self._cut(self._open(), offset)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> int:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(
                self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o644
            )
            self._cut(self._file, os.fstat(self._file).st_size)
        return self._file

    def _cut(self, file: int, offset: int) -> None:
        """Keep the whole lines among the first `offset` bytes, and no more."""
        self._size = _end_of_last_line(file, min(offset, os.fstat(file).st_size))
        os.ftruncate(file, self._size)

    def _append(self, data: bytes) -> None:
        file = self._open()
        try:
            written = 0
            while written < len(data):
                written += os.write(file, data[written:])
        except OSError:
            os.ftruncate(file, self._size)
            raise
        self._size += len(data)


def _end_of_last_line(file: int, size: int) -> int:
    """Offset behind the last line end among the first `size` bytes, 0 where there is none."""
    end = size
    while end > 0:
        start = max(0, end - READ_BLOCK)
        os.lseek(file, start, os.SEEK_SET)
        found = os.read(file, end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
