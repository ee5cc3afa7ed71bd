"""How a run is kept to one process, and how it is asked to stop."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from ourospec.errors import ResourceError
from ourospec.runs import RunDirectory
from ourospec.train.durable import explained, replace_file


@contextlib.contextmanager
def hold_lock(run: RunDirectory) -> Iterator[None]:
    """Keep every other process out of the run directory.

    The lock names its holder: host, process id and when that process began, so that the lock of a dead
    process, even one whose id was given to another since, is recognised and taken over.

    Raises:
        ResourceError: a living process holds it, or one on another machine of which nothing can be known;
            or the directory cannot be written to.
    """
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "began": process_began(os.getpid())}
    with explained("Taking the run's lock", run.path):
        run.path.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(run.path):
            _refuse_if_held(run, mine["host"])
            replace_file(run.lock, json.dumps(mine) + "\n")
    try:
        yield
    finally:
        if _holder(run) == mine:
            run.lock.unlink(missing_ok=True)


def process_began(pid: int) -> str | None:
    """A mark that tells a process from a later one of the same id; None where no such process lives.

    On Linux the ticks between boot and its start, which no change of the wall clock touches.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        with contextlib.suppress(OSError, IndexError):
            # The name, in brackets, may itself hold blanks and brackets; 20 fields after it comes the start.
            text = Path(f"/proc/{pid}/stat").read_text()
            return text[text.rindex(")") + 2 :].split()[19]
        return f"{process.create_time():.0f}"
    except psutil.AccessDenied:
        return "unknown"
    except (psutil.NoSuchProcess, ValueError, OverflowError):
        return None


def _holder(run: RunDirectory) -> dict[str, Any] | None:
    """Who the lock names; None where there is no lock or it does not say."""
    try:
        holder = json.loads(run.lock.read_text())
        whole = {name: type(holder[name]) for name in ("host", "pid", "began")}
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return holder if whole == {"host": str, "pid": int, "began": str} else None


def _refuse_if_held(run: RunDirectory, host: str) -> None:
    holder = _holder(run)
    if holder is None:
        return
    if holder["host"] != host:
        raise ResourceError(
            f"{run.path} is locked by process {holder['pid']} on the machine {holder['host']}.",
            f"If that process is no more, remove {run.lock} and try again.",
        )
    if process_began(holder["pid"]) == holder["began"]:
        raise ResourceError(
            f"{run.path} is in use by process {holder['pid']}.",
            f"Wait for it, pause it with: touch {run.pause}\nor choose another directory with --run DIR.",
        )


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Between looking at the lock and taking it nobody else does either, where the system can see to that."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class StopRequest:
    """Whether the run was asked to stop: by SIGINT, SIGTERM, or a file `.pause` in its directory.

    The first signal lets the step in hand finish; a second one raises KeyboardInterrupt at once. Signals are
    heard only where Python lets them be, in the main thread; the file works everywhere. A file left over from
    before is removed on entering, and one that was honoured on leaving.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._signal: str | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._run.pause.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._signal is not None:
            raise KeyboardInterrupt
        self._signal = signal.Signals(number).name

    def reason(self) -> str | None:
        """What asked for the stop; None while nothing did."""
        if self._signal is None and self._run.pause.exists():
            return self._run.pause.name
        return self._signal

    def honoured(self) -> None:
        """The run is saved and about to stop: the file has done its work."""
        self._run.pause.unlink(missing_ok=True)
