"""The pass loop against its slow twin, and its rules one by one."""

import importlib.util
from pathlib import Path

import pytest
import torch

from ourospec.contracts import Effort
from ourospec.errors import ConfigError
from ourospec.nn.attention import AttentionConfig, Visibility
from ourospec.nn.depth import AdaptiveLayer, DepthConfig
from ourospec.nn.init import initialise
from ourospec.nn.moe import MoE, MoEConfig

spec = importlib.util.spec_from_file_location("layers", Path(__file__).parents[1] / "reference" / "layers.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

# Same sums in another order, in float64.
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def make(seed: int = 0, heads: int = 4, **depth) -> AdaptiveLayer:
    torch.manual_seed(seed)
    layer = AdaptiveLayer(16, AttentionConfig(heads=heads), 12, "swiglu", DepthConfig(**depth)).double()
    initialise(layer, 4)
    if layer.gate is not None:
        # A gate that disagrees with itself from token to token, as a trained one does.
        torch.nn.init.normal_(layer.gate.output.weight, std=1.0)
        torch.nn.init.normal_(layer.gate.see_state.weight, std=1.0)
    return layer.eval()


def states(rows: int = 2, length: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(rows, length, 16, dtype=torch.float64, generator=generator).requires_grad_()


def run(layer: AdaptiveLayer, h: torch.Tensor, effort: Effort = Effort(), documents=None):  # noqa: B008
    return layer(h, Visibility(h.shape[1], h.device, documents=documents), effort)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("threshold", [0.05, 0.2, 0.4])
def test_equals_the_loop_over_single_tokens(threshold, packed):
    layer, h = make(gate_bias=0.0, threshold=threshold), states()
    documents = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 1, 1]]) if packed else None
    y, trace, _ = run(layer, h, documents=documents)

    def gate(index, state, before, update, previous):
        return layer.gate(index, state, before, update, previous, None)

    slow, passes = reference.pass_loop(h, layer, documents, gate, threshold=threshold)
    assert torch.equal(trace.passes, passes)
    assert len(set(passes.flatten().tolist())) > 1, "the case must show different depths"
    torch.testing.assert_close(y, slow, **CLOSE)
    weights = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(9))
    inputs = [h, *(p for p in layer.parameters() if p.requires_grad)]
    fast = torch.autograd.grad((y * weights).sum(), inputs, allow_unused=True)
    sure = torch.autograd.grad((slow * weights).sum(), inputs, allow_unused=True)
    for a, b in zip(fast, sure, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, **CLOSE)


def test_survival_sums_to_the_expected_depth_and_bills_the_executed_one():
    layer = make(gate_bias=0.0)
    _, trace, _ = run(layer, states())
    assert torch.equal(trace.survival[0], torch.ones_like(trace.survival[0]))
    torch.testing.assert_close(trace.expected_passes, sum(trace.survival))
    torch.testing.assert_close(trace.priced_passes, trace.passes.double())
    bill = torch.autograd.grad(trace.priced_passes.sum(), layer.gate.output.bias, retain_graph=True)
    soft = torch.autograd.grad(trace.expected_passes.sum(), layer.gate.output.bias)
    assert torch.equal(bill[0], soft[0])
    assert float(bill[0]) > 0


def test_forced_passes_ask_no_gate():
    layer, h = make(gate_bias=-50.0), states()
    for passes in (1, 2, 4):
        _, trace, _ = run(layer, h, Effort(forced_passes=passes))
        assert (trace.passes == passes).all()
        assert all((s == 1).all() for s in trace.survival)
    assert (run(layer, h)[1].passes == 1).all()


def test_one_forced_pass_is_a_plain_block():
    layer, h = make(), states()
    y, _, _ = run(layer, h, Effort(forced_passes=1))
    a = layer.attention(layer.attention_norm(h), Visibility(6, h.device))
    torch.testing.assert_close(y, h + a + layer.mlp(layer.mlp_norm(h + a)), **CLOSE)


def test_fixed_depth_has_no_gate():
    layer = make(halting="fixed", max_passes=3)
    assert layer.gate is None
    assert (run(layer, states())[1].passes == 3).all()
    with pytest.raises(ConfigError, match="has no gates"):
        run(layer, states(), Effort(threshold=0.2))


def test_limits_and_threshold_of_one_call():
    layer, h = make(gate_bias=0.0), states()
    free = run(layer, h)[1].passes
    assert torch.equal(run(layer, h, Effort(max_passes=2))[1].passes, free.clamp(max=2))
    eager, lazy = (run(layer, h, Effort(threshold=t))[1].passes for t in (0.001, 0.9))
    assert (eager >= free).all() and (lazy <= free).all() and eager.sum() > lazy.sum()


@pytest.mark.parametrize("effort", [Effort(max_passes=5), Effort(forced_passes=0), Effort(forced_passes=9)])
def test_impossible_efforts_are_refused(effort):
    with pytest.raises(ConfigError, match="runs 1 to 4 in each layer"):
        run(make(), states(), effort)


@pytest.mark.parametrize("threshold", [-0.1, 7.0])
def test_impossible_thresholds_are_refused(threshold):
    with pytest.raises(ConfigError, match="between 0 and 1"):
        run(make(), states(), Effort(threshold=threshold))


def test_training_keeps_gates_within_floor_and_ceiling():
    shy, bold = make(gate_bias=-50.0).train(), make(gate_bias=50.0).train()
    for layer, bound in ((shy, 0.01), (bold, 0.95)):
        torch.nn.init.zeros_(layer.gate.output.weight)
        _, trace, _ = run(layer, states())
        torch.testing.assert_close(trace.gates[0], torch.full_like(trace.gates[0], bound))
    _, trace, _ = run(shy, states(), Effort(forced_passes=2))
    assert float(trace.gates[0].detach().max()) < 0.01, "the floor is not for forced passes"


def test_batch_rule_updates_the_dead_and_ends_together():
    """The documentation's rule: s·dh for every token, until at most 2% are above the threshold."""
    layer, h = make(gate_bias=0.0, halting="batch").train(), states()
    y, trace, _ = run(layer, h)
    assert torch.equal(trace.passes, sum((s >= 0.10).long() for s in trace.survival))
    by_token = layer.eval()
    y_token, trace_token, _ = run(by_token, h)
    dead = trace_token.passes < len(trace.survival)
    assert dead.any()
    assert (trace.survival[-1][dead] > 0).all()
    assert (y - y_token)[dead].abs().max() > 1e-6


def test_later_passes_read_the_first_keys_unless_told_otherwise():
    h = states()
    still, moving = make(), make(kv="per_pass")
    moving.load_state_dict(still.state_dict())
    effort = Effort(forced_passes=2)
    assert (run(still, h, effort)[0] - run(moving, h, effort)[0]).abs().max() > 1e-6
    one = Effort(forced_passes=1)
    torch.testing.assert_close(run(still, h, one)[0], run(moving, h, one)[0], **CLOSE)


def test_a_scale_for_every_pass_is_demanded():
    with pytest.raises(ValueError, match="5 passes need as many scales"):
        DepthConfig(max_passes=5)


def test_gate_starts_near_its_bias_and_every_weight_has_a_gradient():
    torch.manual_seed(0)
    features = ("state", "update", "direction", "second_difference", "entropy", "top_mass", "agreement")
    config = DepthConfig(features=features, threshold=0.001)
    layer = AdaptiveLayer(16, AttentionConfig(heads=4), 12, "swiglu", config).double()
    initialise(layer, 4)
    _, trace, _ = run(layer, states(2, 24))
    assert float(trace.gates[0].detach().mean()) == pytest.approx(0.119, abs=0.02)
    trace.expected_passes.sum().backward()
    gradients = {name: p.grad for name, p in layer.gate.named_parameters()}
    assert all(g is not None and g.abs().max() > 0 for g in gradients.values()), gradients


def test_a_closed_gate_can_be_opened_again():
    """Even where every gate is under floor and threshold, those explored give a gradient to loss and price."""
    layer = make(gate_bias=-8.0, exploration=0.2).train()
    torch.nn.init.zeros_(layer.gate.output.weight)
    y, trace, _ = run(layer, states(4, 12))
    assert 1 < float(trace.passes.double().mean()) < 1.7
    for what in (y.square().sum(), trace.priced_passes.sum()):
        gradient = torch.autograd.grad(what, layer.gate.output.bias, retain_graph=True)[0]
        assert float(gradient.abs()) > 0
    assert (run(layer.eval(), states(4, 12))[1].passes == 1).all(), "nobody explores outside training"


def test_the_balance_is_about_those_who_are_still_there():
    torch.manual_seed(0)
    moe = MoE(16, MoEConfig(experts=4, top_k=2, hidden=3, balance=1.0)).double()
    x, there = torch.randn(10, 16, dtype=torch.float64), torch.arange(10) < 4
    torch.testing.assert_close(moe(x, there)[1], moe(x[:4])[1])
    torch.testing.assert_close(moe(x, there)[0], moe(x)[0])


def test_features_see_nothing_that_takes_a_gradient():
    layer = make(gate_bias=0.0)
    h = states()
    _, trace, _ = run(layer, h)
    trace.expected_passes.sum().backward()
    assert h.grad is None or float(h.grad.abs().max()) == 0
    assert layer.attention.qkv.weight.grad is None
