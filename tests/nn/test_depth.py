"""The pass loop against its slow twin, and its rules one by one."""

import importlib.util
from pathlib import Path

import pytest
import torch

from ourospec.contracts import Effort, Rehearsal
from ourospec.errors import ConfigError
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.depth import AdaptiveLayer, DepthConfig
from ourospec.nn.gate import READOUTS, Update
from ourospec.nn.init import initialise
from ourospec.nn.moe import MoE, MoEConfig
from ourospec.nn.visibility import Visibility

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
@pytest.mark.parametrize("weight", ["survival", "full"])
@pytest.mark.parametrize("learned", [False, True])
def test_equals_the_loop_over_single_tokens(learned, weight, threshold, packed):
    layer, h = make(gate_bias=0.0, threshold=threshold, weight=weight, learned_passes=learned), states()
    for gains in (*layer.reads, *layer.writes):
        torch.nn.init.normal_(gains, mean=0.7, std=0.2)
    documents = torch.tensor([[0, 0, 1, 1, 1, 2], [0, 0, 0, 0, 1, 1]]) if packed else None
    y, trace, _ = run(layer, h, documents=documents)

    def gate(index, state, before, update, previous):
        earlier = None if previous is None else Update(index - 1, state, before, previous, None)
        return layer.gate(Update(index, state, before, update, earlier)).sigmoid()

    slow, passes = reference.pass_loop(h, layer, documents, gate, threshold=threshold, weight=weight)
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
        assert trace.gates == ()
    assert (run(layer, h)[1].passes == 1).all()


def test_a_rehearsal_asks_the_gates_of_forced_passes_too():
    """They are taught before they are heeded: with the probabilities that they would have given."""
    layer, h = make(gate_bias=0.0, threshold=0.001), states()
    _, free, _ = run(layer, h, Effort(threshold=0.0))
    for passes in (1, 2, 4):
        _, forced, _ = run(layer, h, Effort(forced_passes=passes, training=Rehearsal()))
        assert (forced.passes == passes).all()
        assert len(forced.gates) == min(passes, 3), "the last possible pass asks no gate"
        assert torch.equal(forced.gates[0], free.gates[0])


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


def test_a_rehearsal_keeps_gates_within_floor_and_ceiling():
    shy, bold = make(gate_bias=-50.0).train(), make(gate_bias=50.0).train()
    rehearsal = Effort(training=Rehearsal(floor=0.01, ceiling=0.95))
    for layer, bound, free in ((shy, 0.01, 0.0), (bold, 0.95, 1.0)):
        torch.nn.init.zeros_(layer.gate.output.weight)
        for effort, wanted in ((rehearsal, bound), (Effort(), free)):
            _, trace, _ = run(layer, states(), effort)
            torch.testing.assert_close(trace.gates[0], torch.full_like(trace.gates[0], wanted), **CLOSE)


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
    layer = make(gate_bias=-8.0).train()
    torch.nn.init.zeros_(layer.gate.output.weight)
    torch.manual_seed(0)
    y, trace, _ = run(layer, states(4, 12), Effort(training=Rehearsal(floor=0.01, exploration=0.2)))
    assert 1 < float(trace.passes.double().mean()) < 1.7
    for what in (y.square().sum(), trace.priced_passes.sum()):
        gradient = torch.autograd.grad(what, layer.gate.output.bias, retain_graph=True)[0]
        assert float(gradient.abs()) > 0
    assert (trace.wanted == 1).all(), "what exploration adds was wanted by no gate"
    assert (run(layer, states(4, 12))[1].passes == 1).all(), "nobody explores outside a rehearsal"


def test_passes_with_gains_of_their_own_begin_as_those_that_share_all():
    shared, learned = make(gate_bias=0.0), make(gate_bias=0.0, learned_passes=True)
    learned.load_state_dict(shared.state_dict(), strict=False)
    h = states()
    for effort in (Effort(), Effort(forced_passes=3)):
        # The scales are kept in float32 at first.
        torch.testing.assert_close(
            run(learned, h, effort)[0], run(shared, h, effort)[0], rtol=1e-6, atol=1e-6
        )
    assert len(learned.reads) == len(learned.writes) == 3


def test_forced_passes_teach_gates_that_learn_through_the_survival():
    """Nobody leaves and every pass weighs all of its scale, yet loss and bill tell the gates of it."""
    effort = Effort(forced_passes=3, training=Rehearsal())
    for weight, learns in (("survival", True), ("full", False)):
        layer, h = make(gate_bias=0.0, weight=weight), states()
        y, trace, _ = run(layer, h, effort)
        assert torch.equal(y, run(layer, h, Effort(forced_passes=3))[0])
        assert all((s == 1).all() for s in trace.survival)
        slope = torch.autograd.grad(y.square().sum(), layer.gate.output.bias, allow_unused=True)[0]
        assert (slope is not None and float(slope.abs()) > 0) == learns


def test_a_rehearsal_that_rehearses_nothing_changes_nothing():
    for weight in ("survival", "full"):
        layer, h = make(gate_bias=0.0, weight=weight), states()
        (y, trace, _), (y_again, again, _) = run(layer, h), run(layer, h, Effort(training=Rehearsal()))
        assert torch.equal(y, y_again)
        for name in ("passes", "wanted"):
            assert torch.equal(getattr(trace, name), getattr(again, name))
        for name in ("survival", "gates"):
            parts = zip(getattr(trace, name), getattr(again, name), strict=True)
            assert all(torch.equal(one, other) for one, other in parts)
        assert torch.equal(trace.wanted, trace.passes)


def test_an_audit_gives_each_token_one_pass_more_than_its_gates_want():
    layer, h = make(gate_bias=0.0, threshold=0.3, weight="full"), states(4, 12)
    _, plain, _ = run(layer, h)
    _, audit, _ = run(layer, h, Effort(training=Rehearsal(audited=True)))
    assert set(plain.passes.flatten().tolist()) == {1, 2, 3, 4}, "the case must show different depths"
    assert torch.equal(audit.wanted, plain.passes)
    assert torch.equal(audit.passes, (plain.passes + 1).clamp(max=4))
    for b, t in (plain.passes < 4).nonzero().tolist():
        last = int(plain.passes[b, t]) - 1
        entered = [float(s[b, t].detach()) for s in audit.survival]
        assert entered[last + 1] == entered[last], "with the survival that the last wanted pass had"


def test_what_is_said_of_an_update_by_hand():
    layer, h = make(gate_bias=0.0), states()
    effort = Effort(forced_passes=3, training=Rehearsal(watched_rows=1))
    _, trace, _ = run(layer, h, effort)
    after = [h, *(run(layer, h, Effort(forced_passes=k))[0] for k in (1, 2, 3))]
    torch.testing.assert_close(trace.first, after[1])
    for k in range(3):
        size = (after[k + 1] - after[k]).norm(dim=-1) / after[k].norm(dim=-1)
        torch.testing.assert_close(trace.relative[k], size, rtol=1e-7, atol=1e-7)
    state = layer.attention_norm(h[:1])
    see = Visibility(6, h.device)
    queries, kv = layer.attention.project(state, see)
    torch.testing.assert_close(trace.entropy, layer.attention.statistics(queries, kv, see).entropy)
    assert trace.entropy.shape == (1, 6)


def slow_readout(name, change, before, previous):
    """By the formulas, one vector at a time."""
    if name == "update":
        size = min(10.0, float(change.norm() / before.norm()))
        return min(1.0, 2 * size / (1 + size))
    if previous is None:
        return 1.0
    if name == "direction":
        return (1 - float(change @ previous / (change.norm() * previous.norm()))) / 2
    return float((change - previous).norm() / (change.norm() + previous.norm()))


@pytest.mark.parametrize("halting", ["token", "fixed"])
@pytest.mark.parametrize("name", list(READOUTS))
def test_a_readout_decides_by_its_formula(name, halting):
    """In place of gates, and where there are none."""
    layer, h = make(halting=halting, weight="full"), states()
    everything = Effort(readout=name, threshold=0.0)
    after = [h, *(run(layer, h, everything._replace(max_passes=k))[0] for k in (1, 2, 3, 4))]
    after = [state.detach() for state in after]
    changes = [after[k + 1] - after[k] for k in range(4)]
    p = run(layer, h, everything)[1].gates
    assert len(p) == 3
    for b in range(2):
        for t in range(6):
            for k in range(3):
                previous = changes[k - 1][b, t] if k else None
                slow = slow_readout(name, changes[k][b, t], after[k][b, t], previous)
                assert float(p[k][b, t]) == pytest.approx(slow, abs=1e-6)
    threshold = float(torch.stack(p).prod(0).median())
    _, trace, _ = run(layer, h, Effort(readout=name, threshold=threshold))
    s, wanted = torch.ones(2, 6, dtype=torch.float64), torch.ones(2, 6, dtype=torch.long)
    for part in p:
        s = s * part
        wanted += s >= threshold
    assert torch.equal(trace.passes, wanted), "survival only falls, so this counts the passes"


def test_an_unknown_readout_is_refused():
    with pytest.raises(ConfigError, match="no readout 'mood'"):
        run(make(), states(), Effort(readout="mood"))


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
