"""The console without a terminal behind it (a log file, a pipe, a notebook): a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from ourospec.telemetry import wording
from ourospec.telemetry.plain_text import visible
from ourospec.telemetry.progress import Progress
from ourospec.telemetry.quantities import clock

INDENT = "    "


class PlainView:
    """Writes whole lines, without colour and without going back.

    Args:
        every: seconds between two lines about the steps.
        now: seconds on a clock that is never set back.
    """

    def __init__(self, stream: TextIO, every: float, now: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._every, self._now = stream, every, now
        self._last = -every

    def begin(self, progress: Progress) -> None:
        """The run starts."""
        self._say(f"{wording.title(progress.start)}: {wording.opening(progress.start)}")
        if corpus := wording.corpus(progress.start):
            self._say(", ".join(f"{name} {value}" for name, value in corpus))

    def step(self, progress: Progress) -> None:
        """A step is done; say so if it is time, or the first or last."""
        now = self._now()
        if now - self._last < self._every and progress.step != progress.total:
            return
        self._last = now
        where = f"step {progress.step:>{len(str(progress.total))}}/{progress.total}"
        numbers = "  ".join(f"{name} {value}" for name, value in wording.readings(progress))
        elapsed = clock(progress.latest.get("seconds"))
        self._say(f"{where}  {numbers}  trained {elapsed}  left {wording.left(progress)}")

    def evaluation(self, progress: Progress) -> None:
        """Held-out text was scored."""
        scores = wording.scores(progress.evaluation, adaptive=progress.adaptive)
        numbers = ", ".join(f"{name} {value}" for name, value in scores)
        self._say(f"{wording.split_name(progress.evaluation)} at step {progress.evaluated_at}: {numbers}")

    def samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Texts were drawn."""
        for sample in samples:
            text = visible(sample.get("prompt", "") + sample.get("text", "")).rstrip()
            self._say(
                f"sample at step {step}:\n" + "\n".join((INDENT + line).rstrip() for line in text.split("\n"))
            )

    def checkpoint(self, step: int, data: Mapping[str, Any]) -> None:
        """The run was saved."""
        self._say(f"saved at step {step}: {visible(wording.saved(data))}")

    def warning(self, message: str) -> None:
        """Something is not as it should be."""
        self._say(f"warning: {visible(message)}")

    def end(self, progress: Progress, data: Mapping[str, Any]) -> None:
        """The run is over."""
        rows = wording.summary(progress, data)
        width = max(len(name) for name, _ in rows)
        self._say(f"{data.get('status', 'ended')} after step {progress.step} of {progress.total}")
        for name, value in rows:
            self._say(f"  {name:{width}}  {value}")

    def close(self) -> None:
        """Nothing is held."""

    def _say(self, text: str) -> None:
        encoding = self._stream.encoding if getattr(self._stream, "encoding", None) else "utf-8"
        # A terminal of another alphabet shows ? for what it lacks, rather than ending the report.
        print(text.encode(encoding, "replace").decode(encoding), file=self._stream, flush=True)
