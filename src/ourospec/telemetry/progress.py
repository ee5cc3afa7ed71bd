"""Where a run stands, gathered from its events: what the console shows, whichever way it shows it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from ourospec.telemetry.reading import LIKELIHOODS

SMOOTHED_STEPS = 20
SHORTEST_MEMORY = 30.0
"""Seconds over which the pace is measured at least; later it is the last third of the run."""
SMOOTHED = ("loss", *LIKELIHOODS, "bits_per_byte", "mean_passes", "tokens_per_second", "grad_norm")


class Progress:
    """The latest numbers of a run. Noisy ones are means over the last `SMOOTHED_STEPS` steps.

    Args:
        now: seconds on a clock that is never set back.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._recent: dict[str, deque[float]] = {}
        self._began = 0.0
        self._marks: deque[tuple[float, int]] = deque()
        self.start: Mapping[str, Any] = {}
        self.step = 0
        self.latest: Mapping[str, Any] = {}
        self.evaluation: Mapping[str, Any] = {}
        self.evaluated_at = 0
        self.saved_at: int | None = None
        self.losses: list[float] = []
        """One loss per optimiser step of this process, for a little curve; thinned when it grows long."""
        self._losses_every = 1

    @property
    def total(self) -> int:
        """Optimiser steps of the whole run; 0 while unknown."""
        return int(self.start.get("total_steps") or 0)

    @property
    def adaptive(self) -> bool:
        """Whether depth is worth a word: the objective reports it."""
        return "mean_passes" in self.latest

    def begin(self, step: int, data: Mapping[str, Any]) -> None:
        """The run starts or is resumed."""
        self.start, self.step = data, step
        self._began = self._now()
        self._marks.append((self._began, step))

    def advance(self, step: int, data: Mapping[str, Any]) -> None:
        """One more optimiser step is done."""
        self.step, self.latest = step, data
        for name in SMOOTHED:
            value = data.get(name)
            if isinstance(value, int | float):
                self._recent.setdefault(name, deque(maxlen=SMOOTHED_STEPS)).append(float(value))
        self._keep_loss(self.mean_loss(last=1), step)
        now = self._now()
        self._marks.append((now, step))
        memory = max(SHORTEST_MEMORY, (now - self._began) / 3)
        while len(self._marks) > 2 and now - self._marks[1][0] > memory:
            self._marks.popleft()

    def mean(self, name: str) -> float | None:
        """A number of the step events, averaged over the last steps; None where it is not reported."""
        values = self._recent.get(name)
        return sum(values) / len(values) if values else None

    def tokens_per_second(self) -> float | None:
        """Over the last steps: their tokens by their time, which is the harmonic mean of their speeds."""
        speeds = self._recent.get("tokens_per_second")
        if not speeds or min(speeds) <= 0:
            return None
        return len(speeds) / sum(1 / speed for speed in speeds)

    def mean_loss(self, last: int = SMOOTHED_STEPS) -> float | None:
        """Nats per target: its likelihood alone where the objective says so, else all costs included."""
        told = (self._recent.get(name) for name in (*LIKELIHOODS, "loss"))
        values = list(next((found for found in told if found), ()))[-last:]
        return sum(values) / len(values) if values else None

    def seconds_left(self) -> float | None:
        """At the pace of late, evaluations and saves included; None before there is a pace."""
        if not self.total or len(self._marks) < 2:
            return None
        (began, first), (now, last) = self._marks[0], self._marks[-1]
        if last <= first or now <= began:
            return None
        return (self.total - self.step) * (now - began) / (last - first)

    def _keep_loss(self, loss: float | None, step: int) -> None:
        if loss is None or step % self._losses_every:
            return
        self.losses.append(loss)
        if len(self.losses) >= 1024:
            self.losses = self.losses[::2]
            self._losses_every *= 2
