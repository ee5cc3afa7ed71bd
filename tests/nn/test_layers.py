"""nn/ against its slow twins in float64: outputs and gradients.

Both sides compute the same sums in another order, so they differ by float64 rounding only: 1e-10 leaves five
digits of room above what such sums lose.
"""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.nn.attention import Attention, AttentionConfig
from ourospec.nn.cross_entropy import linear_cross_entropy, linear_cross_entropy_by_row, token_nll
from ourospec.nn.init import initialise
from ourospec.nn.matmul_attention import matmul_attention, share
from ourospec.nn.mlp import GELU, SwiGLU
from ourospec.nn.moe import MoE, MoEConfig
from ourospec.nn.norm import RMSNorm
from ourospec.nn.rope import Rotary
from ourospec.nn.visibility import Visibility

spec = importlib.util.spec_from_file_location("layers", Path(__file__).parents[1] / "reference" / "layers.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def documents_of(rows: int, length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.cumsum(torch.rand(rows, length, generator=generator) < 0.3, 1)


def assert_same(fast, slow, inputs):
    """Equal outputs, and equal gradients of a weighted sum with respect to everything."""
    torch.testing.assert_close(fast, slow, **CLOSE)
    weights = torch.randn(fast.shape, dtype=fast.dtype, generator=torch.Generator().manual_seed(9))
    quick = torch.autograd.grad((fast * weights).sum(), inputs, retain_graph=True)
    sure = torch.autograd.grad((slow * weights).sum(), inputs, retain_graph=True)
    for a, b in zip(quick, sure, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


@pytest.mark.parametrize("heads,kv_heads", [(4, 4), (4, 2), (4, 1)])
@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.0])
@pytest.mark.parametrize("window,packed", [(0, False), (0, True), (3, False), (3, True)])
@pytest.mark.parametrize("kernel", ["sdpa", "matmul"])
def test_attention(heads, kv_heads, fraction, window, packed, kernel, monkeypatch):
    torch.manual_seed(0)
    config = AttentionConfig(heads=heads, kv_heads=kv_heads, rotary_fraction=fraction, window=window)
    module = Attention(16, config).double()
    initialise(module, 2)
    x = torch.randn(2, 7, 16, dtype=torch.float64, requires_grad=True)
    documents = documents_of(2, 7, 1) if packed else None
    visibility = Visibility(7, x.device, documents=documents)
    if kernel == "matmul":
        monkeypatch.setattr(module, "_by_kernel", module._by_matmul)
        monkeypatch.setattr("ourospec.nn.visibility.QUERY_BLOCK", 3)
    slow = reference.attention(
        x, x, module.qkv.weight, module.out.weight, heads, kv_heads, int(4 * fraction), window, documents
    )
    assert_same(module(x, visibility), slow, [x, module.qkv.weight, module.out.weight])


def test_attention_with_queries_from_a_later_state():
    torch.manual_seed(0)
    module = Attention(16, AttentionConfig(heads=4, kv_heads=2)).double()
    first, later = torch.randn(2, 2, 5, 16, dtype=torch.float64).requires_grad_().unbind()
    visibility = Visibility(5, first.device)
    _, kv = module.project(first, visibility)
    fast = module.attend(module.query(later, visibility), kv, visibility)
    slow = reference.attention(later, first, module.qkv.weight, module.out.weight, 4, 2, 4, 0, None)
    assert_same(fast, slow, [module.qkv.weight, module.out.weight])


def test_matmul_attention_of_cached_steps():
    """The last T of S positions as queries, T > block and T = 1."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 4, dtype=torch.float64) for _ in range(3))
    whole = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    for length in (1, 4):
        visibility = Visibility(length, q.device, past=9 - length)
        bias = visibility.bias(0, q.dtype)
        torch.testing.assert_close(
            matmul_attention(q[:, :, -length:], k, v, bias, tuple(visibility.blocks())),
            whole[:, :, -length:],
            **CLOSE,
        )


@pytest.mark.parametrize("other_kernel", [False, True])
def test_readers_that_share_keys_add_up_one_gradient(other_kernel, monkeypatch):
    """Two runs over one graph, with readers that see other lengths, and one that gives a gradient of its own."""
    monkeypatch.setattr("ourospec.nn.visibility.QUERY_BLOCK", 3)
    torch.manual_seed(0)
    kept = [torch.randn(2, 3, 9, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    asked = [torch.randn(2, 3, length, 4, dtype=torch.float64) for length in (9, 5, 1)]

    def gradients(keys, values):
        read = []
        for q in asked:
            visibility = Visibility(q.shape[2], q.device, past=9 - q.shape[2])
            bias = visibility.bias(0, q.dtype)
            if other_kernel and q.shape[2] == 5:
                read.append(torch.nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=bias))
            else:
                read.append(matmul_attention(q, keys, values, bias, tuple(visibility.blocks())))
        loss = sum(x.square().sum() for x in read)
        return [torch.autograd.grad(loss, kept, retain_graph=True) for _ in range(2)]

    for found, wanted in zip(gradients(*share(*kept)), gradients(*kept), strict=True):
        for mine, plain in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, plain, **CLOSE)


@pytest.mark.parametrize("tiles", [True, False])
def test_half_precision_takes_the_faster_kernel_and_says_the_same(tiles, monkeypatch):
    """Plain products with gradients; without them the fused kernel where it has tiles. Both on any machine."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    module, taken = Attention(16, AttentionConfig(heads=4, window=5)), []
    initialise(module, 2)
    for name in ("_by_kernel", "_by_matmul"):
        kernel = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, name=name, kernel=kernel: taken.append(name) or kernel(*a)
        )
    x = torch.randn(2, 11, 16)
    visibility = Visibility(11, x.device, documents=documents_of(2, 11, 1))
    with torch.autocast("cpu", torch.bfloat16):
        trained = module(x, visibility)
        with torch.no_grad():
            scored = module(x, visibility)
    assert taken == ["_by_matmul", "_by_kernel" if tiles else "_by_matmul"]
    torch.testing.assert_close(scored, trained.detach(), rtol=0.02, atol=0.02)
    torch.testing.assert_close(scored.float(), module(x, visibility).detach(), rtol=0.05, atol=0.05)


@given(st.integers(1, 40), st.integers(0, 12), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_statistics_by_definition(length, window, seed):
    torch.manual_seed(seed)
    module = Attention(8, AttentionConfig(heads=2, window=window)).double()
    x = torch.randn(1, length, 8, dtype=torch.float64)
    documents = documents_of(1, length, seed)
    visibility = Visibility(length, x.device, documents=documents)
    q, kv = module.project(x, visibility)
    found = module.statistics(q, kv, visibility, rows=7)
    allowed = visibility.allowed(window)[0]
    for t in range(length):
        seen = allowed[t].nonzero()[:, 0]
        p = ((q[0, :, t, None] * kv.keys[0][:, seen]).sum(-1) / 4**0.5).softmax(-1).detach()
        n = len(seen)
        entropy = float(-(p * p.log()).sum(-1).mean()) / math.log(max(n, 2))
        top = float(p.topk(min(16, n)).values.sum(-1).mean()) - min(1.0, 16 / n)
        agreement = max(0.0, 1 - float(p.std(0, unbiased=False).sum()))
        assert float(found.entropy[0, t]) == pytest.approx(entropy, abs=1e-9)
        assert float(found.top_mass[0, t]) == pytest.approx(top, abs=1e-9)
        assert float(found.agreement[0, t]) == pytest.approx(agreement, abs=1e-9)


def test_rotary_turns_by_relative_position_only():
    rotary = Rotary(8)
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64).unbind()

    def turn(x, position):
        return rotary(x, 1, torch.tensor([position]), position + 1)[0]

    scores = [float((turn(q, start + 5) * turn(k, start)).sum()) for start in (0, 3, 1000, 100_000)]
    assert scores == pytest.approx([scores[0]] * 4, abs=1e-9)


@pytest.mark.parametrize("kind", [SwiGLU, GELU])
def test_mlp(kind):
    torch.manual_seed(0)
    module = kind(6, 10).double()
    x = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    weights = list(module.parameters())
    by_hand = reference.swiglu if kind is SwiGLU else reference.gelu
    slow = torch.stack([by_hand(row, *weights) for row in x.view(-1, 6)]).view(x.shape)
    assert_same(module(x), slow, [x, *weights])


@pytest.mark.parametrize("shared", [0, 5])
def test_moe(shared):
    torch.manual_seed(0)
    module = MoE(6, MoEConfig(experts=4, top_k=2, hidden=3, shared_hidden=shared, balance=1.0)).double()
    x = torch.randn(2, 9, 6, dtype=torch.float64, requires_grad=True)
    y, loss = module(x)
    weights = [(e.gate_up.weight, e.down.weight) for e in module.experts]
    common = (module.shared.gate_up.weight, module.shared.down.weight) if shared else None
    slow, slow_loss = reference.moe(x.reshape(-1, 6), module.router.weight, weights, common, 2)
    parameters = [x, *module.parameters()]
    assert_same(y, slow.view(x.shape), parameters)
    torch.testing.assert_close(loss, slow_loss, **CLOSE)
    assert_same(loss, slow_loss, [module.router.weight])


def test_moe_row_does_not_depend_on_its_company():
    torch.manual_seed(0)
    module = MoE(6, MoEConfig(experts=4, top_k=2, hidden=3, shared_hidden=0)).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    together, _ = module(x)
    for row in range(5):
        torch.testing.assert_close(module(x[row : row + 1])[0][0], together[row], **CLOSE)


def test_balance_is_one_when_even_and_larger_when_not():
    module = MoE(4, MoEConfig(experts=4, top_k=1, hidden=2, shared_hidden=0, balance=1.0)).double()
    with torch.no_grad():
        module.router.weight.copy_(10 * torch.eye(4))
    even = module(torch.eye(4, dtype=torch.float64))[1]
    skewed = module(torch.eye(4, dtype=torch.float64)[[0, 0, 0, 1]])[1]
    assert float(even.detach()) == pytest.approx(1.0, abs=1e-6)
    assert float(skewed.detach()) > 1.5


def test_norm():
    torch.manual_seed(0)
    module = RMSNorm(5).double()
    with torch.no_grad():
        module.gain.uniform_(0.5, 2)
    x = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert_same(module(x), reference.rms_norm(x, module.gain), [x, module.gain])
    further = torch.rand(5, dtype=torch.float64, requires_grad=True)
    slow = reference.rms_norm(x, module.gain) * further
    assert_same(module(x, further), slow, [x, module.gain, further])


@given(st.integers(1, 30), st.integers(2, 50), st.integers(0, 99))
@settings(deadline=None, max_examples=25)
def test_cross_entropy(rows, vocabulary, seed):
    torch.manual_seed(seed)
    states = torch.randn(rows, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, 6, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(-1, vocabulary, (rows,))
    targets[0] = 0  # at least one to be learned from
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ourospec.nn.cross_entropy.CHUNK_ELEMENTS", 7 * vocabulary)
        fast = linear_cross_entropy(states, weight, targets)
        each = token_nll(states, weight, targets)
        total, by_row, right = linear_cross_entropy_by_row(states, weight, targets)
    assert_same(fast, reference.cross_entropy(states, weight, targets), [states, weight])
    torch.testing.assert_close(each.sum(), fast.detach(), **CLOSE)
    torch.testing.assert_close(by_row, each, **CLOSE)
    likeliest = (states @ weight.T).argmax(1)
    assert torch.equal(right, (likeliest == targets) & (targets >= 0))
    assert not by_row.requires_grad
    assert_same(total, reference.cross_entropy(states, weight, targets), [states, weight])


def test_no_pass_of_the_head_holds_all_logits():
    """The largest tensor made on the way is a chunk of logits or a gradient, never rows x vocabulary."""
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            for tensor in result if isinstance(result, tuple | list) else [result]:
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return result

    states = torch.randn(64, 8, requires_grad=True)
    weight = torch.randn(1000, 8, requires_grad=True)
    with pytest.MonkeyPatch.context() as patch, Watch():
        patch.setattr("ourospec.nn.cross_entropy.CHUNK_ELEMENTS", 8_000)
        linear_cross_entropy(states, weight, torch.randint(1000, (64,))).backward()
    assert largest == 8_000
