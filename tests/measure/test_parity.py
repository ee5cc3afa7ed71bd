"""A device that computes as the CPU does agrees; one that computes wrongly is found, in forward or backward."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ourospec.contracts import Clock, Effort, Output
from ourospec.device import choose_device
from ourospec.measure import parity
from ourospec.measure.parity import ParityRow, compare_with_cpu, device_parity

CPU = choose_device("cpu", "float32")
# Half precision on the CPU stands for another device; the faults below show up only under its autocast.
OTHER = choose_device("cpu", "bfloat16")


def elsewhere() -> bool:
    return torch.is_autocast_enabled("cpu")


class Faulty(parity._SmallModel):
    """The small model with a kernel that is wrong on the other device."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault

    def forward(self, tokens: Tensor, documents: Tensor | None, effort: Effort | None) -> Output:
        if elsewhere() and self.fault == "documents are not kept apart":
            documents = None
        output = super().forward(tokens, documents, effort)
        if not elsewhere():
            return output
        states = output.states
        if self.fault == "backward has the wrong sign":
            states = Flip.apply(states)
        elif self.fault == "not a number":
            states = states * math.nan
        elif self.fault == "one row is computed wrongly":
            states = torch.cat([states[:-1], states[-1:].flip(1)])
        return output._replace(states=states)


class Flip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


def rows_of(model: nn.Module, policy: Any = OTHER, steps: int = 3) -> list[ParityRow]:
    torch.manual_seed(0)
    batches = [parity._SmallBatch.draw() for _ in range(steps)]
    return device_parity(model, parity._AllPasses(), batches, [policy])


def test_the_cpu_equals_itself_to_the_last_bit() -> None:
    result = compare_with_cpu("cpu")
    assert result["agrees"]
    exact = [row for row in result["rows"] if row["precision"] == "float32"]
    assert len(exact) == 4
    assert all(row["loss_difference"] == row["grad_difference"] == 0 for row in exact)
    assert "float32" in result["explanation"]
    json.dumps(result)


@pytest.mark.parametrize("seed", range(4))
def test_half_precision_stays_within_its_tolerance(seed: int) -> None:
    torch.manual_seed(seed)
    rows = rows_of(parity._SmallModel())
    assert [row.step for row in rows] == [0, 1, 2]
    assert all(row.precision == "bfloat16" and row.agrees for row in rows)
    assert all(row.grad_difference > 0 for row in rows)


@pytest.mark.parametrize(
    "fault",
    [
        "backward has the wrong sign",
        "not a number",
        "documents are not kept apart",
        "one row is computed wrongly",
    ],
)
def test_a_wrong_kernel_is_found(fault: str) -> None:
    rows = rows_of(Faulty(fault))
    assert not rows[0].agrees
    assert rows[0].worst > 3 * parity.TOLERANCES["bfloat16"]
    assert "at most" in parity.explain(rows)


def test_a_fault_is_the_devices_not_the_models() -> None:
    assert all(row.agrees for row in rows_of(Faulty("none of these")))


def test_differences_that_add_up_over_steps_are_seen() -> None:
    """Equal weights at step 0, and each later step starts where the device's own step ended."""
    torch.manual_seed(0)
    # One batch again and again: going up instead of down on it shows at once.
    batches = [parity._SmallBatch.draw()] * 3
    rows = device_parity(Faulty("backward has the wrong sign"), parity._AllPasses(), batches, [OTHER])
    assert rows[0].loss_difference < 1e-3 < rows[2].loss_difference


def test_the_model_and_the_generators_are_left_alone() -> None:
    model = parity._SmallModel().eval()
    before = copy.deepcopy(model.state_dict())
    rows_of(model)
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    state = torch.get_rng_state()
    compare_with_cpu("cpu", steps=1)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_small_model_lets_nobody_leave() -> None:
    model, batch = parity._SmallModel(), parity._SmallBatch.draw()
    output = model(batch.tokens, batch.documents, parity._AllPasses().effort(Clock(0, 1)))
    assert output.passes.unique().tolist() == [2]
