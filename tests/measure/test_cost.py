"""FLOPs worked out from the structure are those that torch counts while the model runs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ourospec.contracts import Effort
from ourospec.families.adaptive_lm.model import AdaptiveConfig, AdaptiveLM
from ourospec.families.dense_lm.model import DenseConfig, DenseLM
from ourospec.measure.cost import (
    SavedBytes,
    checkpoint_bytes,
    executed_flops,
    memory_plan,
    parameters_by_part,
)
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.cost import FlopTable, ModelCost
from ourospec.nn.depth import DepthConfig
from ourospec.nn.moe import MoEConfig
from ourospec.optim.config import GrokfastConfig, MuonConfig, OptimConfig

from .toy import Bigram

ROWS, LENGTH, VOCABULARY = 2, 24, 64
AVERAGED = OptimConfig(ema_decay=0.9)
CONTEXT = float(LENGTH)
ATTENTION = AttentionConfig(heads=4, kv_heads=2)


def dense(**settings: Any) -> DenseLM:
    config = DenseConfig(width=32, layers=3, attention=ATTENTION, mlp_hidden=80, **settings)
    return DenseLM(config, VOCABULARY, [b"x"] * VOCABULARY)


def adaptive(**settings: Any) -> AdaptiveLM:
    config = AdaptiveConfig(width=32, layers=3, attention=ATTENTION, mlp_hidden=80, **settings)
    return AdaptiveLM(config, VOCABULARY, [b"x"] * VOCABULARY)


def counted(model: Any, effort: Effort | None = None) -> float:
    """FLOPs per token as torch's counter sees them; it counts attention to all T keys, masked or not.

    It does not know the CPU's fused attention kernel, so that is replaced by plain products.
    """
    tokens = torch.randint(VOCABULARY, (ROWS, LENGTH))
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model.logits(model.eval()(tokens, effort=effort).states)
    return counter.get_total_flops() / (ROWS * LENGTH)


@pytest.mark.parametrize("activation", ["swiglu", "gelu"])
def test_a_dense_model_costs_what_torch_counts(activation: str) -> None:
    model = dense(activation=activation)
    assert model.cost(CONTEXT).uniform() == pytest.approx(counted(model), rel=1e-9)


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_an_adaptive_model_costs_what_torch_counts(passes: int) -> None:
    """With no gate to ask: what is fixed, the first pass, and each later one."""
    model = adaptive(depth=DepthConfig(halting="fixed"))
    effort = Effort(forced_passes=passes)
    assert model.cost(CONTEXT).uniform(float(passes)) == pytest.approx(counted(model, effort), rel=1e-9)


@pytest.mark.parametrize("passes", [1, 2, 3])
def test_gates_are_counted_with_each_pass(passes: int) -> None:
    model = adaptive()
    effort = Effort(max_passes=passes, threshold=0.0)  # everyone runs them all, and the gates are asked
    # Beyond what is counted per token, a gate multiplies its pass embedding once per call.
    assert model.cost(CONTEXT).uniform(float(passes)) == pytest.approx(counted(model, effort), rel=2e-3)


def test_experts_are_counted_as_far_as_a_token_visits_them() -> None:
    experts = MoEConfig(experts=6, top_k=2, hidden=24, shared_hidden=16)
    model = adaptive(moe=experts, depth=DepthConfig(halting="fixed"))
    counts = counted(model, Effort(forced_passes=2))
    assert model.cost(CONTEXT).uniform(2.0) == pytest.approx(counts, rel=1e-9)


def test_a_sliding_window_costs_no_more_than_its_keys() -> None:
    narrow = dense()
    for block in narrow.blocks:
        block.attention.window = 8  # pyright: ignore
    assert narrow.cost(24.0).uniform() == narrow.cost(8.0).uniform() < dense().cost(24.0).uniform()
    assert narrow.cost(4.0).uniform() == dense().cost(4.0).uniform()


def test_executed_flops_are_the_mean_over_tokens() -> None:
    cost = ModelCost(10.0, (4.0, 5.0), (1.0, 2.0))
    passes = torch.tensor([[[1, 2, 3]], [[1, 1, 4]]])
    assert executed_flops(cost, passes) == pytest.approx(
        10 + 4 + 5 + (0 + 1 + 2) / 3 * 1 + (0 + 0 + 3) / 3 * 2
    )


def test_the_table_counts_each_position_at_its_own_context() -> None:
    table = FlopTable(Bigram().cost)
    passes = torch.tensor([[[1, 3], [2, 1]], [[1, 1], [1, 2]]])
    first = [100 + 10 + 1 + 20 + 1, 100 + 10 + 2 + 20 + 2]
    assert table.of(passes).tolist() == [
        [first[0], first[1] + 2 * (1 + 2 * 2)],
        [first[0] + 1 * (1 + 2 * 1), first[1] + 5],
    ]
    assert table.of(passes[..., :1]).tolist() == [[first[0]], [first[0] + 3]]
    whole = FlopTable(Bigram().cost).of(passes)
    assert torch.equal(FlopTable(Bigram().cost).of(passes[..., 1:], past=1), whole[:, 1:])


@pytest.mark.parametrize(
    "model", [dense(), dense(tied=True), adaptive(), Bigram()], ids=["dense", "tied", "adaptive", "own"]
)
def test_parts_add_up_to_the_model(model: nn.Module) -> None:
    parts = parameters_by_part(model)
    assert sum(parts.values()) == sum(p.numel() for p in model.parameters())
    assert all(count > 0 for count in parts.values())


def test_a_tied_table_counts_once() -> None:
    assert (
        parameters_by_part(dense())["head"] - parameters_by_part(dense(tied=True))["head"] == VOCABULARY * 32
    )


def test_memory_and_disk() -> None:
    model = nn.Linear(10, 10, bias=False)
    plan = memory_plan(model, AVERAGED, activations=1000, growth=2500)
    assert (plan.weights, plan.gradients, plan.optimizer, plan.average) == (400, 400, 800, 400)
    assert plan.working == 2500 - 1200 - 1000
    assert plan.total == 400 + 2500 + 400
    unmeasured = memory_plan(model, OptimConfig())
    assert (unmeasured.average, unmeasured.working, unmeasured.total) == (0, 0, 1600)
    assert checkpoint_bytes(model, OptimConfig()) == 1200
    assert checkpoint_bytes(model, AVERAGED) == 1600


def test_memory_and_disk_are_of_the_optimiser_that_runs() -> None:
    model = nn.Sequential(nn.Linear(10, 10, bias=False), nn.Embedding(5, 10))
    muon, slow = OptimConfig(muon=MuonConfig()), OptimConfig(muon=MuonConfig(), grokfast=GrokfastConfig())
    assert memory_plan(model, OptimConfig()).optimizer == 2 * 600
    assert memory_plan(model, muon).optimizer == 400 + 2 * 200
    assert memory_plan(model, slow).optimizer == 2 * 400 + 3 * 200
    assert checkpoint_bytes(model, slow) == 600 + 1400


def test_saved_bytes_count_each_storage_once_and_no_parameters() -> None:
    model = nn.Linear(6, 4)
    x = torch.randn(5, 6)
    with SavedBytes(model) as saved:
        y = model(x)  # keeps x for the weight's gradient
        z = y.exp()  # keeps its result
        (z * z.view(-1).view(5, 4)).sum()  # keeps z twice, through views of one storage
    assert saved.total == 4 * (5 * 6 + 5 * 4)


def test_saved_bytes_grow_with_the_rows_of_a_batch() -> None:
    model = dense()

    def held(rows: int) -> int:
        with SavedBytes(model) as saved:
            output = model(torch.randint(VOCABULARY, (rows, LENGTH)))
            model.head.loss(output.states, torch.zeros(rows, LENGTH, dtype=torch.long))
        return saved.total

    one, two, four = held(1), held(2), held(4)
    assert four - two == pytest.approx(2 * (two - one), rel=0.01)
