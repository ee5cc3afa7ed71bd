"""A plan measures without training, and its parts add up."""

from __future__ import annotations

import json
import mmap
import time
from dataclasses import dataclass
from typing import Any, Self

import pytest
import torch
from torch import Tensor

from ourospec.contracts import Clock, Mean, Step
from ourospec.device import DevicePolicy
from ourospec.measure.plan import PHASES, Workload, plan_run
from ourospec.optim.config import OptimConfig

from .toy import END, Bigram


@dataclass(frozen=True)
class Rows:
    tokens: Tensor
    num_targets: int

    def to(self, device: torch.device) -> Self:
        return type(self)(self.tokens.to(device), self.num_targets)


class Stream:
    fingerprint = "toy"

    def batches(self, step: int) -> list[Rows]:
        drawn = torch.arange(2 * 11).view(2, 11) % END
        return [Rows(drawn, 20), Rows(drawn[:1], 10)]


class Objective:
    """The bigram's loss; remembers the clocks, and takes its time."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.clocks: list[Clock] = []
        self.seconds = seconds

    def __call__(self, model: Any, batch: Rows, carry: Any, clock: Clock) -> Step:
        self.clocks.append(clock)
        time.sleep(self.seconds)
        logits = model.logits(model(batch.tokens[:, :-1]).states)
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.tokens[:, 1:].flatten(), reduction="sum"
        )
        return Step(loss, batch.num_targets, {"loss": Mean(loss.detach(), batch.num_targets)})


def workload(model: Bigram, policy: DevicePolicy, objective: Any, ema_decay: float = 0.0) -> Workload:
    optim = OptimConfig(ema_decay=ema_decay)
    return Workload(model, objective, Stream(), policy, optim, steps=100, window=10, keep_checkpoints=2)


def test_the_numbers_of_a_plan(bigram: Bigram, policy: DevicePolicy) -> None:
    plan = plan_run(workload(bigram, policy, Objective(), ema_decay=0.9), seconds=0.2)
    weights = 4 * 81
    assert plan.parameters == {"other": 81}
    assert plan.tokens_per_step == 30
    assert plan.flops_per_token == 100 + 10 + 20 + 2 * 5.5
    assert plan.flops_per_further_pass == 1 + 2 * 5.5 + 5
    assert plan.memory.total == 5 * weights + plan.memory.activations + plan.memory.working
    assert plan.memory.activations > 0
    assert (plan.checkpoint, plan.disk) == (4 * weights, 3 * 4 * weights)
    assert plan.seconds == pytest.approx(100 * plan.pace.seconds_per_step)
    assert plan.pace.peak > 1_000_000
    data = plan.as_data()
    assert data["hours"] == pytest.approx(plan.seconds / 3600)
    assert data["parameters_total"] == 81
    json.dumps(data)


def test_planning_leaves_the_weights_alone(bigram: Bigram, policy: DevicePolicy) -> None:
    before = bigram.table.detach().clone()
    plan_run(workload(bigram, policy, Objective()), seconds=0.1)
    assert torch.equal(bigram.table, before)
    assert bigram.table.grad is None


def test_memory_at_the_peak_is_what_the_steps_took(bigram: Bigram, policy: DevicePolicy) -> None:
    class Greedy(Objective):
        def __call__(self, model: Any, batch: Rows, carry: Any, clock: Clock) -> Step:
            # A kernel's workspace, of pages that this process cannot have kept from before.
            with mmap.mmap(-1, 64 << 20) as workspace:
                workspace.write(bytes(1 << 20) * 64)
                time.sleep(0.03)
                return super().__call__(model, batch, carry, clock)

    plan = plan_run(workload(bigram, policy, Greedy()), seconds=0.5)
    assert 0 < plan.pace.growth <= plan.pace.peak
    assert plan.memory.working > 30 << 20


def test_a_step_is_timed_as_all_its_micro_batches(bigram: Bigram, policy: DevicePolicy) -> None:
    plan = plan_run(workload(bigram, policy, Objective(seconds=0.02)), seconds=0.5)
    assert plan.pace.seconds_per_step >= 2 * 0.02
    assert plan.tokens_per_second == pytest.approx(30 / plan.pace.seconds_per_step)


def test_time_is_taken_in_all_phases_of_the_run(bigram: Bigram, policy: DevicePolicy) -> None:
    objective = Objective()
    plan = plan_run(workload(bigram, policy, objective), seconds=1.0)
    assert plan.pace.micro_batches >= len(PHASES)
    assert {clock.step for clock in objective.clocks} >= {int(100 * share) for share in PHASES}


def test_a_budget_of_nothing_still_measures_once(bigram: Bigram, policy: DevicePolicy) -> None:
    plan = plan_run(workload(bigram, policy, Objective(seconds=0.01)), seconds=0.0)
    assert plan.pace.micro_batches == 1
    assert plan.pace.spread == 0
    assert plan.pace.seconds_per_step > 0.02
