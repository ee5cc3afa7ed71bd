"""Attention of ragged queries: the kernel says what plain loops say, and where it cannot be had nothing is lost."""

import contextlib
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.contracts import Effort
from ourospec.nn import ragged
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.compaction import Packed, execute
from ourospec.nn.depth import AdaptiveLayer, DepthConfig
from ourospec.nn.init import initialise
from ourospec.nn.matmul_attention import matmul_attention, share
from ourospec.nn.ragged import build, kernel, ragged_attention, torch_only
from ourospec.nn.visibility import Visibility
from tests.reference import layers as reference

SOME = torch.zeros(1, 2, 3, 32)
TYPES = [torch.float32, torch.bfloat16]
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 0.016}
"""Of the largest value. float32: gradients of logits are differences of sums over a head's width, which may be 0;
bfloat16 rounds what is kept to 8 bits, twice."""


def need(dtype):
    if kernel(dtype) is None:
        pytest.skip(
            f"no kernel for {dtype} here: it takes AVX-512 (with BF16 or AMX for bfloat16) and a C compiler"
        )


class Case:
    """Some queries of some rows, with keys and values that lie as layers leave them, heads first."""

    def __init__(self, seed, rows, length, heads, groups, width, alive, documents, window, past=0):
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.rand(rows, length, generator=generator) < alive
        chosen[-1, -1] = True  # somebody
        ends = torch.rand(rows, length, generator=generator) < 0.1
        self.whole = Visibility(
            length, torch.device("cpu"), past, torch.cumsum(ends, 1) if documents and not past else None
        )
        count, widest = int(chosen.sum()), int(chosen.sum(1).max())
        self.packed = Packed(chosen, count, widest, self.whole)
        self.rows = (self.packed.tokens // length).tolist()
        self.window = window

        def some(*shape):
            return torch.randn(shape, generator=generator)

        self.queries = some(heads, count, width)
        self.keys, self.values = (some(groups, rows, self.whole.keys, width).transpose(0, 1) for _ in "kv")
        self.grad = some(count, heads * width)

    @property
    def seen(self):
        """[N, S], by the masks that every other kernel uses."""
        allowed = self.whole.allowed(self.window).expand(len(self.packed.alive), -1, -1)
        return allowed.flatten(0, 1)[self.packed.tokens]

    def operands(self, dtype, wide=None):
        values = (self.queries, self.keys, self.values)
        return [x.to(dtype).to(wide or dtype).requires_grad_() for x in values]

    def fast(self, dtype):
        operands = self.operands(dtype)
        out = ragged_attention(*operands, self.packed.visibility.spans(self.window, len(self.keys)))
        return [out, *torch.autograd.grad(out, operands, self.grad.to(dtype))]

    def slow(self, dtype):
        operands = self.operands(dtype, torch.float64)
        out = reference.ragged_attention(*operands, self.seen, self.rows)
        return [out, *torch.autograd.grad(out, operands, self.grad.to(dtype).double())]


def assert_same(case, dtype):
    for found, wanted in zip(case.fast(dtype), case.slow(dtype), strict=True):
        most = max(1.0, float(wanted.detach().abs().max()))
        torch.testing.assert_close(found.double() / most, wanted / most, rtol=0, atol=CLOSE[dtype])


cases = st.builds(
    dict,
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 3),
    length=st.integers(1, 70),
    heads=st.just(4),
    groups=st.sampled_from([1, 2, 4]),
    width=st.sampled_from([32, 64]),
    alive=st.sampled_from([0.0, 0.3, 1.0]),
    documents=st.booleans(),
    window=st.sampled_from([0, 1, 9]),
    past=st.sampled_from([0, 5]),
)


@pytest.mark.parametrize("dtype", TYPES)
@settings(deadline=None, max_examples=20)
@given(cases)
def test_says_what_plain_loops_say(dtype, case):
    need(dtype)
    assert_same(Case(**case), dtype)


@settings(deadline=None)
@given(cases)
def test_spans_are_what_the_masks_allow(case):
    """Here every machine: no kernel needed."""
    drawn = Case(**case)
    starts, first, end = drawn.packed.visibility.spans(drawn.window, case["rows"])
    keys = torch.arange(drawn.whole.keys)
    assert torch.equal((first[:, None] <= keys) & (keys < end[:, None]), drawn.seen)
    assert starts.tolist() == [sum(row < b for row in drawn.rows) for b in range(case["rows"] + 1)]


@pytest.mark.parametrize("dtype", TYPES)
def test_a_query_is_its_own(dtype):
    """Bit for bit: neither its row's other queries nor what it does not see reaches it, nor the number of threads."""
    need(dtype)
    case = Case(0, 3, 70, 4, 2, 32, 1.0, False, 0)
    queries, keys, values = case.operands(dtype)
    threads = torch.get_num_threads()
    with torch.no_grad():
        spans = case.packed.visibility.spans(0, 3)
        whole = ragged_attention(queries, keys, values, spans)
        torch.set_num_threads(threads + 1)
        assert torch.equal(
            whole, ragged_attention(queries, keys, values, case.packed.visibility.spans(0, len(case.keys)))
        )
        torch.set_num_threads(threads)
        chosen = torch.zeros(3, 70, dtype=torch.bool)
        chosen[1, [3, 40]] = True
        few = Packed(chosen, 2, 2, case.whole)
        keys[:, :, 41:] = 7.0
        values[:, :, 41:] = -7.0
        alone = ragged_attention(queries[:, few.tokens], keys, values, few.visibility.spans(0, 3))
    assert torch.equal(alone, whole[few.tokens])


@pytest.mark.parametrize("dtype", TYPES)
def test_what_is_no_number_stays_so_and_reaches_nobody_else(dtype):
    """A model that diverges is seen to."""
    need(dtype)
    case = Case(0, 2, 40, 4, 2, 32, 1.0, False, 0)
    spans = case.packed.visibility.spans(0, 2)
    with torch.no_grad():
        queries, keys, values = case.operands(dtype)
        queries[1, 7] = torch.nan
        keys[1, 0, 30] = torch.inf
        out = ragged_attention(queries, keys, values, spans).unflatten(1, (4, 32))
    wrong = out.isnan().any(-1)
    assert wrong[7].tolist() == [False, True, False, False]
    assert wrong[40 + 30 :, :2].any() and not wrong[40 : 40 + 30].any()
    assert wrong.sum() == 1 + wrong[40 + 30 :, :2].sum()


@pytest.mark.parametrize("dtype", TYPES)
def test_readers_that_share_keys_add_up_one_gradient(dtype):
    """Two ragged readers and one of another kernel; run twice over one graph."""
    need(dtype)
    cases = [Case(3, 2, 40, 4, 4, 32, alive, False, 0) for alive in (0.5, 0.2)]
    kept = cases[0].operands(dtype)[1:]
    asked = torch.randn(2, 4, 40, 32).to(dtype)

    def gradients(keys, values):
        bias, blocks = cases[0].whole.bias(0, dtype), tuple(cases[0].whole.blocks())
        loss = matmul_attention(asked, keys, values, bias, blocks).float().square().sum()
        for case in cases:
            queries = case.queries.to(dtype)
            read = ragged_attention(queries, keys, values, case.packed.visibility.spans(0, len(case.keys)))
            loss = loss + read.float().square().sum()
        return [torch.autograd.grad(loss, kept, retain_graph=True) for _ in range(2)]

    for found, wanted in zip(gradients(*share(*kept)), gradients(*kept), strict=True):
        for mine, plain in zip(found, wanted, strict=True):
            most = float(plain.abs().max())
            torch.testing.assert_close(mine / most, plain / most, rtol=0, atol=CLOSE[dtype])


def layer_of(heads=2, width=64):
    torch.manual_seed(0)
    depth = DepthConfig(max_passes=4, threshold=0.5, learned_passes=True)
    layer = AdaptiveLayer(width, AttentionConfig(heads=heads), 96, "swiglu", depth)
    initialise(layer, 2)
    return layer


def run(layer, how, dtype, alive=0.3):
    """State and gradients of a layer whose tokens run one pass or four."""
    generator = torch.Generator().manual_seed(1)
    h = torch.randn(3, 70, 64, generator=generator).requires_grad_()
    plan = 1 + 3 * (torch.rand(3, 70, generator=generator) < alive)
    layer.zero_grad()
    with execute(layer, how), torch.autocast("cpu", torch.bfloat16, dtype == torch.bfloat16):
        y = layer(h, Visibility(70, h.device), Effort(plan=plan))[0]
    (y * torch.linspace(-1, 1, y.numel()).view(y.shape)).sum().backward()
    named = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    return {"y": y.detach(), "h": h.grad, **named}


@pytest.mark.parametrize("alive", [0.05, 0.3, 0.95])
@pytest.mark.parametrize("dtype", TYPES)
def test_a_layer_computes_the_same_with_it_without_it_and_masked(dtype, alive, monkeypatch):
    need(dtype)
    layer, taken = layer_of(), []

    def counted(*arguments):
        taken.append(1)
        return ragged_attention(*arguments)

    monkeypatch.setattr("ourospec.nn.attention.ragged_attention", counted)
    masked, compacted = (run(layer, how, dtype, alive) for how in ("masked", "compacted"))
    # Of masked passes all are like the first; packed ones take it where a row has several left.
    assert len(taken) == (5 if alive == 0.05 else 8)
    taken.clear()
    with torch_only():
        padded = run(layer, "compacted", dtype, alive)
    assert not taken
    close = 1e-5 if dtype == torch.float32 else 0.03
    for name, wanted in masked.items():
        most = max(1.0, float(wanted.abs().max()))
        for found in (compacted[name], padded[name]):
            torch.testing.assert_close(found / most, wanted / most, rtol=0, atol=close, msg=name)


def test_logits_are_watched_with_it_and_without():
    """QK-clip looks at all logits, which the kernel does not keep; in rows of many packed queries and of few."""
    seen = []
    for only in (contextlib.nullcontext(), torch_only()):
        layer = layer_of()
        layer.attention.watch_logits()
        with only:
            for alive in (0.05, 0.3, 0.95):
                run(layer, "compacted", torch.float32, alive)
        seen.append(layer.attention.limit_logits(1e-3))
    torch.testing.assert_close(*seen)


class TestBuild:
    """How the machine code comes about, and what happens where it cannot."""

    @pytest.fixture(autouse=True)
    def afresh(self):
        kernel.cache_clear()
        yield
        kernel.cache_clear()

    def test_without_a_compiler_layers_run_on_torchs_kernels(self, monkeypatch):
        monkeypatch.setattr(build.shutil, "which", lambda name: None)
        assert kernel(torch.float32) is None and not ragged.knows(SOME, SOME)
        masked, compacted = (run(layer_of(), how, torch.float32) for how in ("masked", "compacted"))
        torch.testing.assert_close(compacted["y"], masked["y"], rtol=1e-5, atol=1e-5)

    def test_a_compiler_that_fails_is_as_good_as_none(self, monkeypatch, tmp_path):
        need(torch.float32)
        kernel.cache_clear()
        monkeypatch.setattr(build, "KEPT", (tmp_path,))
        monkeypatch.setattr(build, "FLAGS", ("--no-such-flag",))
        assert kernel(torch.float32) is None
        assert list(tmp_path.iterdir()) == []

    def test_is_compiled_once_and_kept_where_one_may_write(self, monkeypatch, tmp_path):
        need(torch.float32)
        kernel.cache_clear()
        occupied = tmp_path / "file"
        occupied.write_text("not a folder")
        monkeypatch.setattr(build, "KEPT", (occupied, tmp_path / "kept"))
        assert kernel(torch.float32) is not None
        (library,) = (tmp_path / "kept").iterdir()
        kernel.cache_clear()

        def refused(*arguments, **options):
            raise AssertionError("compiled again")

        monkeypatch.setattr(subprocess, "run", refused)
        assert kernel(torch.float32) is not None
        assert [*(tmp_path / "kept").iterdir()] == [library]

    def test_other_code_or_another_processor_is_compiled_anew(self, monkeypatch, tmp_path):
        need(torch.float32)
        flags = (*build.FLAGS, "-DBF16=0")
        names = {build.compiled(flags, tmp_path).name}
        monkeypatch.setattr(build, "processor", lambda: "another")
        names.add(build.compiled(flags, tmp_path).name)
        monkeypatch.setattr(build, "SOURCES", (*build.SOURCES, Path(__file__)))
        names.add(build.compiled(flags, tmp_path).name)
        assert len(names) == 3

    def test_half_precision_without_tiles(self, monkeypatch, tmp_path):
        """As on a processor that has AVX-512 BF16 and no AMX."""
        need(torch.bfloat16)
        if not torch.cpu._is_avx512_bf16_supported():
            pytest.skip("no AVX-512 BF16 here")
        kernel.cache_clear()
        monkeypatch.setattr(build, "KEPT", (tmp_path,))
        monkeypatch.setattr(build, "FLAGS", (*build.FLAGS, "-mno-amx-tile", "-mno-amx-bf16", "-mno-amx-int8"))
        for seed, alive in ((0, 0.3), (1, 1.0)):
            assert_same(Case(seed, 2, 70, 4, 2, 64, alive, True, 9), torch.bfloat16)
        assert len([*tmp_path.iterdir()]) == 1

    def test_only_types_and_widths_that_it_was_written_for(self):
        assert not ragged.knows(SOME.double(), SOME.double())
        assert not ragged.knows(SOME[..., :24], SOME[..., :24])
        assert ragged.knows(SOME, SOME) == build.can_build(torch.float32)

    def test_no_memory_is_said(self, monkeypatch):
        need(torch.float32)
        case = Case(0, 1, 5, 4, 4, 32, 1.0, False, 0)

        class Full:
            forward = staticmethod(lambda *arguments: 1)

        monkeypatch.setattr(ragged, "kernel", lambda dtype: Full)
        with pytest.raises(ragged.ResourceError, match="no memory"):
            case.fast(torch.float32)
