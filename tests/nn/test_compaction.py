"""Compacted execution computes what masked execution computes: states, books and gradients, in float64 to 1e-12."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.contracts import Effort, Rehearsal
from ourospec.measure.cost import SavedBytes
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.compaction import execute, pays
from ourospec.nn.depth import AdaptiveLayer, DepthConfig
from ourospec.nn.init import initialise
from ourospec.nn.moe import MoEConfig
from ourospec.nn.visibility import Visibility

EXACT = {"rtol": 1e-12, "atol": 1e-12}
FEATURES = ("state", "update", "direction", "second_difference", "entropy", "top_mass", "agreement")


def a_layer(seed=0, width=16, moe=False, window=0, dtype=torch.float64, kv_heads=2, **depth):
    torch.manual_seed(seed)
    config = {"max_passes": 4, "threshold": 0.2, "gate_bias": 0.5, "learned_passes": True, **depth}
    attention = AttentionConfig(heads=4, kv_heads=kv_heads, window=window)
    experts = MoEConfig(experts=4, top_k=2, hidden=8, shared_hidden=8) if moe else None
    layer = AdaptiveLayer(width, attention, 24, "swiglu", DepthConfig(**config), experts).to(dtype)
    initialise(layer, residual_branches=2)
    if layer.gate is not None:
        with torch.no_grad():  # gates that disagree from token to token
            layer.gate.output.weight.normal_(std=2.0)
            layer.gate.hidden.weight.normal_(std=1.0)
    return layer


def run(layer, h, how, effort, documents=None):
    """State, trace, auxiliary loss, and the gradients of a loss that sees all of them."""
    h = h.clone().requires_grad_(True)
    layer.zero_grad()
    torch.manual_seed(5)  # of the exploration
    with execute(layer, how):
        y, trace, loss = layer(h, Visibility(h.shape[1], h.device, documents=documents), effort)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    total = (y * weights).sum() + sum(bid.square().sum() for bid in trace.bids) + trace.expected_passes.sum()
    (total if loss is None else total + loss).backward()
    grads = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    return y, trace, loss, {"h": h.grad, **grads}


def assert_same(masked, compacted, **close):
    torch.testing.assert_close(compacted[0], masked[0], **close)
    for name in ("passes", "wanted"):
        assert torch.equal(getattr(compacted[1], name), getattr(masked[1], name))
    ran = masked[1].passes
    for name in ("survival", "gates", "bids", "relative"):
        pairs = zip(getattr(compacted[1], name), getattr(masked[1], name), strict=True)
        for index, (found, wanted) in enumerate(pairs):
            # What is said of a pass holds for those who ran it.
            here = ran > index
            torch.testing.assert_close(found * here, wanted * here, **close)
    if masked[2] is not None:
        torch.testing.assert_close(compacted[2], masked[2], **close)
    assert compacted[3].keys() == masked[3].keys()
    for name, wanted in masked[3].items():
        # A gradient adds up many terms; what rounding may do to it grows with the largest of them.
        most = max(1.0, float(wanted.abs().max()))
        torch.testing.assert_close(compacted[3][name] / most, wanted / most, **close, msg=name)


shapes = st.tuples(st.integers(1, 3), st.integers(1, 12))


@settings(deadline=None, max_examples=60)
@given(
    shapes,
    st.integers(0, 10_000),
    st.floats(0.01, 0.95),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["survival", "full"]),
    st.sampled_from([0, 3]),
    st.sampled_from(["use", "explore", "audit", "cheap gate", "limit"]),
)
def test_equals_masked(shape, seed, threshold, packed, moe, weight, window, how):
    features = ("update",) if how == "cheap gate" else FEATURES
    layer = a_layer(
        seed,
        moe=moe,
        window=window,
        weight=weight,
        features=features,
        networks="own" if seed % 2 else "shared",
    )
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(*shape, 16, dtype=torch.float64, generator=generator)
    documents = torch.cumsum(torch.rand(shape, generator=generator) < 0.3, 1) if packed else None
    rehearsals = {
        "explore": Rehearsal(exploration=0.5, ceiling=0.9),
        "audit": Rehearsal(audited=True, floor=0.1),
    }
    limit = 2 if how == "limit" else None
    effort = Effort(threshold=threshold, max_passes=limit, training=rehearsals.get(how))
    assert_same(*(run(layer, h, way, effort, documents) for way in ("masked", "compacted")), **EXACT)


@settings(deadline=None, max_examples=20)
@given(shapes, st.integers(0, 10_000), st.sampled_from(["survival", "full"]))
def test_a_plan_is_followed_packed_or_not(shape, seed, weight):
    layer = a_layer(seed, weight=weight)
    generator = torch.Generator().manual_seed(seed)
    h = torch.randn(*shape, 16, dtype=torch.float64, generator=generator)
    plan = torch.randint(1, 5, shape, generator=generator)
    masked, compacted = (run(layer, h, way, Effort(plan=plan)) for way in ("masked", "compacted"))
    assert torch.equal(masked[1].passes, plan)
    assert_same(masked, compacted, **EXACT)


def test_a_plan_that_repeats_what_the_gates_decided_gives_the_same():
    for weight in ("survival", "full"):
        layer, h = a_layer(weight=weight), torch.randn(2, 9, 16, dtype=torch.float64)
        decided = run(layer, h, "auto", Effort())
        assert decided[1].passes.unique().numel() > 2
        again = run(layer, h, "auto", Effort(plan=decided[1].passes))
        torch.testing.assert_close(again[0], decided[0], **EXACT)


@pytest.mark.parametrize("plan", [torch.ones(1, 9, dtype=torch.long), torch.zeros(2, 9, dtype=torch.long)])
def test_a_plan_that_does_not_fit_is_refused(plan):
    with pytest.raises(Exception, match="plan of passes"):
        run(a_layer(), torch.randn(2, 9, 16, dtype=torch.float64), "auto", Effort(plan=plan))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_the_types_of_training(dtype):
    """float32: sums over other lengths are rounded otherwise, 1e-4 of values around 1. bfloat16 keeps 8 bits."""
    layer = a_layer(dtype=torch.float32, threshold=0.4)
    h = torch.randn(4, 60, 16)
    with torch.autocast("cpu", torch.bfloat16, dtype == torch.bfloat16):
        masked, compacted = (run(layer, h, way, Effort(threshold=0.4)) for way in ("masked", "compacted"))
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 0.1, "atol": 0.1}
    torch.testing.assert_close(compacted[0], masked[0], **close)
    # A survival within rounding of the threshold may fall on either side.
    assert (compacted[1].passes == masked[1].passes).float().mean() > 0.97


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_by_matrix_products(kv_heads, monkeypatch):
    """The kernel of half precision, here in float64, with blocks that end anywhere; the fused one says the same."""
    by_kernel = run(a_layer(kv_heads=kv_heads), _some_states(), "compacted", Effort(), _some_documents())
    monkeypatch.setattr("ourospec.nn.attention.matmul_attention_is_faster", lambda queries: True)
    for block in (1, 3, 100):
        monkeypatch.setattr("ourospec.nn.visibility.PACKED_BLOCK", block)
        layer, h, documents = a_layer(kv_heads=kv_heads), _some_states(), _some_documents()
        masked, compacted = (run(layer, h, way, Effort(), documents) for way in ("masked", "compacted"))
        assert_same(masked, compacted, **EXACT)
        assert_same(by_kernel, compacted, **EXACT)


def _some_states():
    return torch.randn(3, 11, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def _some_documents():
    return torch.cumsum(torch.rand(3, 11, generator=torch.Generator().manual_seed(4)) < 0.2, 1)


def test_keeps_less_for_the_backward_pass():
    layer, h = a_layer(features=("state", "update", "direction")), torch.randn(8, 64, 16, dtype=torch.float64)
    plan = 1 + 3 * (torch.rand(8, 64) < 0.3)
    kept = {}
    for how in ("masked", "compacted"):
        with execute(layer, how), SavedBytes(layer) as saved:
            layer(h, Visibility(64, h.device), Effort(plan=plan))
        kept[how] = saved.total
    assert kept["compacted"] < 0.75 * kept["masked"]


@settings(deadline=None)
@given(st.integers(1, 64), st.integers(2, 2048), st.sampled_from([64, 384, 768]))
def test_packing_pays_where_many_are_gone_and_never_where_none_is(rows, length, width):
    everyone, flops = Visibility(length, torch.device("cpu")), 24.0 * width * width
    assert not pays((rows * length, length), everyone, rows, width, flops)
    if rows * length >= 64:
        few = max(1, rows * length // 20)
        assert pays((few, max(1, length // 15)), everyone, rows, width, flops)


def test_execution_is_put_back_even_after_an_error():
    layer = a_layer()
    with pytest.raises(RuntimeError, match="on purpose"), execute(layer, "masked"):
        assert layer.execution == "masked"
        raise RuntimeError("on purpose")
    assert layer.execution == "auto"


COMPILED = """
import torch
from ourospec.contracts import Effort
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.compaction import execute
from ourospec.nn.depth import AdaptiveLayer, DepthConfig
from ourospec.nn.init import initialise
from ourospec.nn.visibility import Visibility

torch.manual_seed(0)
depth = DepthConfig(max_passes=4, threshold=0.2, gate_bias=0.5, learned_passes=True)
layer = AdaptiveLayer(16, AttentionConfig(heads=4), 24, "swiglu", depth).double()
initialise(layer, 2)
with torch.no_grad():
    layer.gate.output.weight.normal_(std=2.0)
for how in ("masked", "compacted"):
    with execute(layer, how):
        compiled = torch.compile(layer, backend="aot_eager", dynamic=True)
        for length in (9, 12):
            h = torch.randn(2, length, 16, dtype=torch.float64, requires_grad=True)
            (y, trace, _), (z, _, _) = (f(h, Visibility(length, h.device), Effort()) for f in (layer, compiled))
            assert trace.passes.unique().numel() > 1
            torch.testing.assert_close(z, y, rtol=1e-12, atol=1e-12)
            found, wanted = (torch.autograd.grad(x.square().sum(), h)[0] for x in (z, y))
            torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
"""


@pytest.mark.slow
def test_compiled_by_layer():
    """Traced by torch.compile, forward and backward, the layer computes the same; in a process without the checks of
    shapes, which look at tensors in ways that cannot be traced."""
    subprocess.run([sys.executable, "-c", COMPILED], check=True, timeout=900)
