"""What a run will take, before it is run: parameters, FLOPs, memory, disk and time, from a few seconds of work."""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any, Self

import psutil
import torch
from torch import nn

from ourospec.contracts import Batch, Clock, Objective, Stream
from ourospec.device import DevicePolicy
from ourospec.measure.cost import (
    MemoryPlan,
    SavedBytes,
    checkpoint_bytes,
    disk_bytes,
    memory_plan,
    parameters_by_part,
)
from ourospec.optim.config import OptimConfig, QKClipConfig
from ourospec.optim.optimiser import Optimiser, build_optimiser

# Points of the run at which time is measured in turn: a model may think longer in one phase than in another.
PHASES = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Workload:
    """What is to be planned: a model and everything that its training depends on."""

    model: nn.Module
    objective: Objective
    stream: Stream
    policy: DevicePolicy
    optim: OptimConfig
    steps: int
    """Optimiser steps of the run."""
    window: int
    """Positions per row."""
    keep_checkpoints: int
    keep_best: bool = False


@dataclass(frozen=True)
class Pace:
    """What was measured."""

    seconds_per_step: float
    """Of a whole optimiser step: its micro-batches and the update."""
    spread: float
    """Interquartile range of the micro-batches' times, as a share of their median; 0 when there was only one."""
    micro_batches: int
    """Micro-batches timed."""
    activations: int
    """Bytes kept for the backward pass of one micro-batch."""
    growth: int
    """Bytes by which memory grew at most, the weights being there already."""
    peak: int
    """Bytes: on a CPU the most that this process held, elsewhere the most that was allocated on the device."""


@dataclass(frozen=True)
class RunPlan:
    """The numbers behind `ouro plan`. Bytes, seconds and FLOPs."""

    parameters: dict[str, int]
    """By part; they add up to the whole."""
    tokens_per_step: int
    flops_per_token: float
    """Forward, every layer running one pass, at the mean context of a window."""
    flops_per_further_pass: float
    """Forward, what one more pass in every layer adds; 0 in a plain model."""
    memory: MemoryPlan
    pace: Pace
    checkpoint: int
    """One checkpoint."""
    disk: int
    """Checkpoints of the run at their most: while a new one is written the old ones are still there."""
    seconds: float
    """All optimiser steps, without evaluations, samples and checkpoints."""

    @property
    def tokens_per_second(self) -> float:
        return self.tokens_per_step / self.pace.seconds_per_step

    def as_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            **asdict(self),
            "parameters_total": sum(self.parameters.values()),
            "memory_total": self.memory.total,
            "tokens_per_second": self.tokens_per_second,
            "hours": self.seconds / 3600,
        }


def plan_run(work: Workload, seconds: float = 10.0) -> RunPlan:
    """Measure for about `seconds` (at least two micro-batches and an update), and work out the rest.

    The weights stay as they are.
    """
    batches = work.stream.batches(0)
    pace = measure_pace(work, batches, seconds)
    checkpoint = checkpoint_bytes(work.model, work.optim)
    model: Any = work.model
    # A query in the middle of a window of T positions sees (T + 1)/2 keys, itself included.
    cost = model.cost((work.window + 1) / 2)
    return RunPlan(
        parameters=parameters_by_part(work.model),
        tokens_per_step=sum(batch.num_targets for batch in batches),
        flops_per_token=cost.uniform(1.0),
        flops_per_further_pass=sum(cost.later_pass),
        memory=memory_plan(work.model, work.optim, activations=pace.activations, growth=pace.growth),
        pace=pace,
        checkpoint=checkpoint,
        disk=disk_bytes(work.model, work.optim, work.keep_checkpoints, keep_best=work.keep_best),
        seconds=pace.seconds_per_step * work.steps,
    )


def measure_pace(work: Workload, batches: Sequence[Batch], seconds: float) -> Pace:
    """Time micro-batches through forward and backward, and the update, on the device where training will run.

    Args:
        batches: the micro-batches of one optimiser step.
        seconds: to spend; never less than a warm-up, one timed micro-batch and one update.
    """
    model = work.model.to(work.policy.device).train()
    # At a learning rate of 0 only a limit for logits would change weights: it is watched for, and never reached.
    unlimited = work.optim.qk_clip and QKClipConfig(limit=math.inf)
    optim = work.optim.model_copy(update={"qk_clip": unlimited})
    optimizer = build_optimiser(model, optim, work.policy)
    end = time.perf_counter() + seconds
    clocks = cycle(Clock(int(share * work.steps), work.steps) for share in PHASES)
    turns = cycle(batches)
    with _Peak(work.policy) as peak:
        activations = _warm_up(work, next(turns))
        update = _update_seconds(work, optimizer)
        times = [_micro_batch_seconds(work, next(turns), next(clocks))]
        while time.perf_counter() + times[-1] < end:
            times.append(_micro_batch_seconds(work, next(turns), next(clocks)))
    optimizer.zero_grad()
    # The mean, not the median: phases differ, and a run goes through all of them.
    step = len(batches) * statistics.fmean(times) + update
    return Pace(step, _spread(times), len(times), activations, peak.growth, peak.bytes)


def _loss(work: Workload, batch: Batch, clock: Clock) -> torch.Tensor:
    with work.policy.autocast():
        step = work.objective(work.model, batch.to(work.policy.device), None, clock)
    return step.loss_sum / max(step.num_targets, 1)


def _warm_up(work: Workload, batch: Batch) -> int:
    """A first micro-batch, which also opens the gradients; returns the bytes kept for its backward pass."""
    with SavedBytes(work.model) as saved:
        loss = _loss(work, batch, Clock(0, work.steps))
    loss.backward()
    work.policy.synchronize()
    return saved.total


def _micro_batch_seconds(work: Workload, batch: Batch, clock: Clock) -> float:
    start = time.perf_counter()
    _loss(work, batch, clock).backward()
    work.policy.synchronize()
    return time.perf_counter() - start


def _update_seconds(work: Workload, optimizer: Optimiser) -> float:
    """Of the second update: the first one also opens the optimiser's state."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0  # what is timed should not move the model
    elapsed = 0.0
    for _ in range(2):
        start = time.perf_counter()
        torch.nn.utils.get_total_norm([p.grad for p in work.model.parameters() if p.grad is not None])
        optimizer.step()
        work.policy.synchronize()
        elapsed = time.perf_counter() - start
    return elapsed


def _spread(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, median, high = statistics.quantiles(times, n=4)
    return (high - low) / median


class _Peak:
    """Watches memory while the context is open: a thread that reads it every few milliseconds."""

    def __init__(self, policy: DevicePolicy, interval: float = 0.01) -> None:
        self.bytes = self._start = 0
        self._policy, self._interval = policy, interval
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._process = psutil.Process()

    def __enter__(self) -> Self:
        if self._policy.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._policy.device)
        self._read()
        self._start = self.bytes
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self._read()

    @property
    def growth(self) -> int:
        """Bytes at the peak beyond those at the start."""
        return self.bytes - self._start

    def _watch(self) -> None:
        while not self._done.wait(self._interval):
            self._read()

    def _read(self) -> None:
        kind = self._policy.device.type
        if kind == "cuda":
            held = torch.cuda.max_memory_allocated(self._policy.device)
        elif kind == "mps":
            held = torch.mps.driver_allocated_memory()
        else:
            held = self._process.memory_info().rss
        self.bytes = max(self.bytes, held)
