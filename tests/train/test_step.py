"""The optimiser step: exact accumulation, one look, refusal before the update."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ourospec.contracts import Clock, Mean, Step
from ourospec.device import DevicePolicy
from ourospec.errors import DataError, DivergedError
from ourospec.train.step import Reading, accumulate, clip, look, refuse_divergence

from .toy import ToyBatch

CPU = DevicePolicy(torch.device("cpu"), None, fused_optimizer=True)
CLOCK = Clock(3, 10)


class Squares:
    """Σ (w·x - y)² over the targets that count; carries how often it was called."""

    def __call__(self, model: nn.Module, batch: ToyBatch, carry: Any, clock: Clock) -> Step:
        valid = batch.targets >= 0
        error = (model(batch.tokens).squeeze(-1) - batch.targets)[valid]
        metrics = {
            "mean_error": Mean(error.sum(), batch.num_targets),
            "by_column": Mean((batch.tokens * valid.unsqueeze(-1)).sum((0, 1)), valid.sum()),
        }
        return Step(error.square().sum(), batch.num_targets, metrics, (carry or 0) + 1)

    def update(self, metrics: Any, clock: Clock) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        assert not state


def batch_of(rows: Tensor, counts: list[int]) -> ToyBatch:
    """Rows of 4 positions with 3 features; only the first counts[i] targets of row i count."""
    targets = torch.full(rows.shape[:2], -100.0, dtype=torch.float64)
    for row, count in enumerate(counts):
        targets[row, :count] = torch.arange(count) + 1.0
    return ToyBatch(rows, targets)


def split(batch: ToyBatch, sizes: list[int]) -> list[ToyBatch]:
    return [
        ToyBatch(*parts) for parts in zip(batch.tokens.split(sizes), batch.targets.split(sizes), strict=True)
    ]


@settings(deadline=None)  # the first call warms PyTorch up
@given(counts=st.lists(st.integers(0, 4), min_size=6, max_size=6), cut=st.integers(1, 5))
def test_accumulation_gives_the_gradient_of_the_whole_batch(counts: list[int], cut: int) -> None:
    if sum(counts) == 0:
        counts[0] = 1
    rows = torch.randn(6, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    whole = batch_of(rows, counts)
    gradients, readings = [], []
    for batches in ([whole], split(whole, [cut, 6 - cut]), split(whole, [1] * 6)):
        model = nn.Linear(3, 1).double()
        nn.init.constant_(model.weight, 0.5)
        nn.init.constant_(model.bias, -0.25)
        totals = accumulate(model, Squares(), batches, None, CLOCK, CPU)
        assert totals.carry == len(batches)
        assert model.weight.grad is not None and model.bias.grad is not None
        gradients.append(torch.cat([model.weight.grad.flatten(), model.bias.grad]))
        readings.append(look(totals, [model.weight.grad, model.bias.grad]))
    prediction = (rows * 0.5).sum(-1) - 0.25
    valid = whole.targets >= 0
    error = (prediction - whole.targets)[valid]
    by_hand = 2 * torch.cat([error @ rows[valid], error.sum().reshape(1)]) / valid.sum()
    for gradient, reading in zip(gradients, readings, strict=True):
        # The sums are the same but for their order: a few ulps of float64.
        torch.testing.assert_close(gradient, by_hand, rtol=1e-12, atol=1e-12)
        # Readings are float32.
        assert reading.loss == pytest.approx(error.square().mean().item(), rel=1e-6)
        assert reading.grad_norm == pytest.approx(by_hand.norm().item(), rel=1e-6)
        assert reading.num_targets == sum(counts)
        assert reading.metrics["mean_error"] == pytest.approx(error.mean().item(), rel=1e-5, abs=1e-6)
        assert reading.metrics["by_column"] == pytest.approx(rows[valid].mean(0).tolist(), rel=1e-5, abs=1e-6)


def test_all_numbers_come_to_the_host_in_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(3, 1).double()
    batch = batch_of(torch.randn(2, 4, 3, dtype=torch.float64), [4, 2])
    transfers = []
    for name in ("item", "tolist", "cpu", "numpy", "__float__", "__int__", "__bool__"):
        original = getattr(Tensor, name)

        def counted(tensor: Tensor, *args: Any, _name: str = name, _original: Any = original) -> Any:
            transfers.append(_name)
            return _original(tensor, *args)

        monkeypatch.setattr(Tensor, name, counted)
    batch_targets = batch.num_targets
    monkeypatch.setattr(ToyBatch, "num_targets", batch_targets)
    totals = accumulate(model, Squares(), [batch], None, CLOCK, CPU)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    transfers.clear()
    reading = look(totals, gradients)
    clip(gradients, reading.grad_norm, 0.1)
    assert transfers == ["tolist"]


def test_a_batch_without_targets_is_refused() -> None:
    batch = batch_of(torch.randn(2, 4, 3, dtype=torch.float64), [0, 0])
    with pytest.raises(DataError, match="step 3 holds no target"):
        accumulate(nn.Linear(3, 1).double(), Squares(), [batch], None, CLOCK, CPU)


def test_an_objective_that_counts_differently_is_refused() -> None:
    class Miscounting(Squares):
        def __call__(self, *args: Any) -> Step:
            return super().__call__(*args)._replace(num_targets=99)

    batch = batch_of(torch.randn(2, 4, 3, dtype=torch.float64), [4, 2])
    with pytest.raises(ValueError, match="counts 99 targets, the batch 6"):
        accumulate(nn.Linear(3, 1).double(), Miscounting(), [batch], None, CLOCK, CPU)


@pytest.mark.parametrize("loss, norm", [(math.nan, 1.0), (math.inf, 1.0), (2.0, math.nan), (2.0, math.inf)])
def test_numbers_that_are_none_are_refused_with_all_that_helps(loss: float, norm: float) -> None:
    with pytest.raises(DivergedError) as caught:
        refuse_divergence(Reading(loss, norm, 5, {}), CLOCK, "runs/x/checkpoints/step-00000003")
    message = str(caught.value)
    assert f"Step 4 of 10 has loss {loss} and gradient norm {norm}" in message
    assert "step-00000003" in message and "--optim.lr" in message


def test_finite_numbers_pass() -> None:
    refuse_divergence(Reading(2.0, 0.0, 5, {}), CLOCK, "none yet")


@pytest.mark.parametrize("longest, after", [(0.0, 5.0), (10.0, 5.0), (5.0, 5.0), (1.0, 1.0)])
def test_clipping_scales_the_whole_gradient(longest: float, after: float) -> None:
    gradients = [torch.tensor([3.0]), torch.tensor([[0.0, 4.0]])]
    assert clip(gradients, 5.0, longest) == after
    assert torch.cat([g.flatten() for g in gradients]).tolist() == pytest.approx(
        [0.6 * after, 0.0, 0.8 * after]
    )


def test_the_forward_pass_runs_in_the_precision_of_the_policy() -> None:
    seen = []

    class Watching(Squares):
        def __call__(self, model: nn.Module, batch: ToyBatch, carry: Any, clock: Clock) -> Step:
            out = model(batch.tokens)
            seen.append(out.dtype)
            return Step(out.float().sum(), batch.num_targets, {})

    batch = batch_of(torch.randn(2, 4, 3), [4, 2])
    policy = DevicePolicy(torch.device("cpu"), torch.bfloat16, fused_optimizer=True)
    model = nn.Linear(3, 1)
    accumulate(model, Watching(), [batch], None, CLOCK, policy)
    assert seen == [torch.bfloat16]
    assert model.weight.grad is not None and model.weight.grad.dtype == torch.float32
