"""The parts of a claim that take time: each done once, kept whole, found again after a kill.

A part is a function of its inputs, and is kept under their digest. So a claim file that is changed keeps what the
change does not touch, and nothing stale is ever read.
"""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ourospec import __version__
from ourospec.errors import ResourceError
from ourospec.storage import write_whole

FORMAT = 2
"""Of the results; what was kept in an older one is done again."""


@dataclass(frozen=True)
class Part:
    """One thing to be done."""

    name: str
    """For people: what is told."""
    work: Callable[..., Any]
    """A function of a module, so that another process can find it: (folder, **inputs) -> JSON-ready."""
    inputs: Mapping[str, Any]
    """JSON-ready; all that the result depends on."""

    @property
    def digest(self) -> str:
        """Of the inputs, the work and the version of the package."""
        told = json.dumps([__version__, FORMAT, self.work.__qualname__, self.inputs], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:12]


@dataclass
class Workshop:
    """Does parts, several at a time where asked to.

    Args:
        folder: where the parts and the runs are.
        jobs: processes; 1 works in this one, with all its threads, more give each a single thread.
        tell: hears of each part that is begun or done.
    """

    folder: Path
    jobs: int = 1
    tell: Callable[[str], None] = lambda _: None
    _pool: ProcessPoolExecutor | None = field(default=None, init=False)

    def __enter__(self) -> Workshop:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def do(self, parts: Sequence[Part]) -> list[Any]:
        """The results, in order; only what is not kept yet is done.

        Raises:
            OuroError: what a part raised; the parts that are done are kept.
            ResourceError: a process was killed.
        """
        # Two parts may be one: a trial that is as long as the run is the run.
        missing = {part.digest: part for part in parts if self._recall(part) is None}
        done = len({part.digest for part in parts}) - len(missing)
        if self.jobs == 1 or len(missing) < 2:
            for number, part in enumerate(missing.values(), start=1):
                self.tell(f"{part.name} ({done + number} of {done + len(missing)})")
                self._keep(part, part.work(self.folder, **part.inputs))
        elif missing:
            self._do_together(list(missing.values()))
        return [self._recall(part) for part in parts]

    def _do_together(self, parts: list[Part]) -> None:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self.jobs, context, initializer=_begin_worker)
        futures: dict[Future[Any], Part] = {
            self._pool.submit(part.work, self.folder, **part.inputs): part for part in parts
        }
        self.tell(f"{len(parts)} parts, {self.jobs} at a time, {parts[0].name} first")
        try:
            for number, future in enumerate(as_completed(futures), start=1):
                self._keep(futures[future], future.result())
                self.tell(f"{futures[future].name}: done ({number} of {len(parts)})")
        except BrokenProcessPool as error:
            raise ResourceError(
                "A working process was killed, perhaps for want of memory.",
                "Give the same command again, with fewer --jobs; what is done is kept.",
            ) from error
        finally:
            for future in futures:
                future.cancel()

    def _path(self, part: Part) -> Path:
        return self.folder / "parts" / f"{part.work.__name__}-{part.digest}.json"

    def _recall(self, part: Part) -> Any:
        try:
            return json.loads(self._path(part).read_text(encoding="utf-8"))["result"]
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _keep(self, part: Part, result: Any) -> None:
        if result is None:
            raise ValueError(f"{part.name} has no result")
        kept = {"part": part.name, "inputs": part.inputs, "result": result}
        try:
            write_whole(self._path(part), json.dumps(kept, allow_nan=False).encode())
        except OSError as error:
            raise ResourceError(
                f"{self._path(part)} could not be written: {error.strerror or error}.",
                "Make room, or choose another place with --out DIR.",
            ) from error


def finite(value: float) -> float | None:
    """A number as JSON can say it."""
    return value if math.isfinite(value) else None


def _begin_worker() -> None:
    """One thread for each process, and none that outlives the process that it works for."""
    import torch

    import ourospec.families  # noqa: F401  (makes their recipes readable)

    torch.set_num_threads(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
