"""What every language model has to be: causal, and indifferent to its company. Properties over every preset.

Models run in float64 here, so equality up to rounding means 1e-9 on logits of order 1. Equal passes are demanded
exactly: a token whose survival lies within rounding of the threshold would be a fluke that hypothesis's shrinking
would show.
"""

import copy
import functools
import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.contracts import Effort
from ourospec.families import PRESETS
from ourospec.nn.compaction import execute

spec = importlib.util.spec_from_file_location("miniature", Path(__file__).parent / "miniature.py")
miniature = importlib.util.module_from_spec(spec)
spec.loader.exec_module(miniature)

TOKENIZER = miniature.tokenizer()
# The character embedding does not see what is outside its alphabet: to it, such tokens are one.
ASCII = 128
CLOSE = {"rtol": 1e-9, "atol": 1e-9}
FREE = {"gate_bias": 0.0}


def build(recipe):
    return miniature.disagreeing(recipe, std=1.0).eval()


def variants():
    """Every preset, and adaptive_lm/smoke with what no preset has: windows, grouped and partial heads, features."""
    base = miniature.miniatures(**FREE)
    smoke = PRESETS["adaptive_lm/smoke"]()
    features = ("state", "update", "direction", "second_difference", "entropy", "top_mass", "agreement")
    base["all gate features"] = miniature.shrink(smoke, features=features, **FREE)
    base["keys per pass"] = miniature.shrink(smoke, kv="per_pass", **FREE)
    base["batch rule, scored"] = miniature.shrink(smoke, halting="batch", weight="survival", **FREE)
    base["own networks"] = miniature.shrink(smoke, networks="own", **FREE)
    base["fixed by layer"] = miniature.shrink(
        PRESETS["adaptive_lm/tiny_fixed_2"](), by_layer=(1, 2), networks="own", **FREE
    )
    shrunk = miniature.shrink(smoke, **FREE)
    attention = shrunk.model.attention.model_copy(update={"kv_heads": 1, "window": 7, "rotary_fraction": 0.5})
    base["window, grouped, partial"] = shrunk.model_copy(
        update={"model": shrunk.model.model_copy(update={"attention": attention})}
    )
    return {name: build(recipe) for name, recipe in base.items()}


MODELS = variants()
every_model = pytest.mark.parametrize("name", MODELS)
GATED = [
    name
    for name, model in MODELS.items()
    if any(
        part.endswith(("gate.output.weight", "halt.weight")) and not part.startswith("memory_gate")
        for part, _ in model.named_parameters()
    )
]
rows = st.integers(1, 3)
lengths = st.integers(2, miniature.LENGTH)
seeds = st.integers(0, 10_000)
few = settings(deadline=None, max_examples=6)


def text(batch: int, length: int, seed: int) -> torch.Tensor:
    return torch.randint(ASCII, (batch, length), generator=torch.Generator().manual_seed(seed))


def borders(batch: int, length: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.cumsum(torch.rand(batch, length, generator=generator) < 0.15, 1)


def read(model, tokens, documents=None, cache=None, effort=None):
    with torch.no_grad():
        output = model(tokens, documents, cache=cache, effort=effort)
        return model.logits(output.states), output.passes


def assert_equal(found, wanted):
    torch.testing.assert_close(found[0], wanted[0], **CLOSE)
    assert torch.equal(found[1], wanted[1])


@every_model
@few
@given(rows, lengths, seeds, st.booleans(), st.data())
def test_changing_a_token_changes_nothing_before_it(name, batch, length, seed, packed, data):
    model, tokens = MODELS[name], text(batch, length, seed)
    documents = borders(batch, length, seed) if packed else None
    at = data.draw(st.integers(0, length - 1))
    changed = tokens.clone()
    changed[:, at] = (changed[:, at] + 1 + seed % (ASCII - 1)) % ASCII
    before, after = read(model, tokens, documents), read(model, changed, documents)
    assert_equal((after[0][:, :at], after[1][:, :, :at]), (before[0][:, :at], before[1][:, :, :at]))
    assert not torch.equal(before[0][:, at], after[0][:, at]), "the changed token itself is seen"


@every_model
@few
@given(lengths, seeds, st.integers(1, 3), st.integers(0, 9))
def test_a_row_alone_in_a_batch_and_padded(name, length, seed, company, padding):
    model = MODELS[name]
    length = min(length, miniature.LENGTH - padding)
    tokens = text(company + 1, length, seed)
    alone = read(model, tokens[:1])
    batched = read(model, tokens)
    assert_equal((batched[0][:1], batched[1][:, :1]), alone)
    padded = torch.cat([tokens, text(company + 1, padding, seed + 1)], dim=1)
    longer = read(model, padded)
    assert_equal((longer[0][:1, :length], longer[1][:, :1, :length]), alone)


@every_model
@few
@given(st.integers(1, 20), st.integers(1, 20), seeds)
def test_a_document_packed_after_others(name, ahead, length, seed):
    model = MODELS[name]
    other, own = text(1, ahead, seed), text(1, length, seed + 1)
    alone = read(model, own)
    documents = torch.tensor([[0] * ahead + [1] * length])
    packed = read(model, torch.cat([other, own], dim=1), documents)
    assert_equal((packed[0][:, ahead:], packed[1][:, :, ahead:]), alone)


@every_model
@few
@given(rows, lengths, seeds, st.data())
def test_prefill_and_cached_steps_equal_the_full_forward(name, batch, length, seed, data):
    model, tokens = MODELS[name], text(batch, length, seed)
    if name == "keys per pass":
        with pytest.raises(Exception, match="cannot be cached"):
            model.new_cache(batch, length)
        return
    whole = read(model, tokens)
    cache = model.new_cache(batch, length)
    parts, at = [], 0
    while at < length:
        step = data.draw(st.integers(1, length - at))
        parts.append(read(model, tokens[:, at : at + step], cache=cache))
        at += step
    logits, passes = zip(*parts, strict=True)
    assert_equal((torch.cat(logits, dim=1), torch.cat(passes, dim=2)), whole)


@every_model
@few
@given(rows, lengths, seeds, st.booleans(), st.floats(0.05, 0.95), st.data())
def test_compacted_equals_masked_whole_and_cached(name, batch, length, seed, packed, threshold, data):
    """To 1e-12 of the logits' spread, with the same passes for every token; see also tests/nn/test_compaction.py."""
    model, tokens = MODELS[name], text(batch, length, seed)
    effort = Effort(threshold=threshold) if name in GATED else None
    documents = borders(batch, length, seed) if packed else None
    found = {}
    at = data.draw(st.integers(1, length))
    for how in ("masked", "compacted"):
        with execute(model, how):
            parts = [read(model, tokens, documents, effort=effort)]
            if name != "keys per pass":
                cache = model.new_cache(batch, length)
                parts += [read(model, tokens[:, :at], cache=cache, effort=effort)]
                parts += [
                    read(model, tokens[:, i : i + 1], cache=cache, effort=effort) for i in range(at, length)
                ]
            found[how] = parts
    for masked, compacted in zip(found["masked"], found["compacted"], strict=True):
        spread = float(masked[0].std())
        torch.testing.assert_close(compacted[0] / spread, masked[0] / spread, rtol=1e-12, atol=1e-12)
        assert torch.equal(compacted[1], masked[1])


@every_model
@few
@given(rows, lengths, seeds, st.data())
def test_the_same_with_attention_by_matrix_products(name, batch, length, seed, data):
    """The kernel that half precision takes on a CPU, here in float64: full, packed and cached."""
    model, tokens = MODELS[name], text(batch, length, seed)
    documents = borders(batch, length, seed)
    wanted = read(model, tokens), read(model, tokens, documents)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ourospec.nn.attention.matmul_attention_is_faster", lambda queries: True)
        patch.setattr("ourospec.nn.visibility.QUERY_BLOCK", data.draw(st.integers(1, length)))
        assert_equal(read(model, tokens), wanted[0])
        assert_equal(read(model, tokens, documents), wanted[1])
        if name != "keys per pass":
            cache, at = model.new_cache(batch, length), data.draw(st.integers(1, length))
            parts = [read(model, tokens[:, :at], cache=cache)]
            parts += [read(model, tokens[:, i : i + 1], cache=cache) for i in range(at, length)]
            logits, passes = zip(*parts, strict=True)
            assert_equal((torch.cat(logits, dim=1), torch.cat(passes, dim=2)), wanted[0])


@every_model
@few
@given(st.integers(2, miniature.LENGTH), seeds, st.data())
def test_half_precision_lets_no_bit_through_from_later(name, length, seed, data):
    """In bfloat16 rounding could hide a small leak; so no bit at all may change before the changed token."""
    model = half(name)
    tokens, at = text(2, length, seed), data.draw(st.integers(1, length - 1))
    changed = tokens.clone()
    changed[:, at:] = (changed[:, at:] + 1) % ASCII
    with torch.autocast("cpu", torch.bfloat16):
        before, after = read(model, tokens), read(model, changed)
    assert torch.equal(before[0][:, :at], after[0][:, :at])
    assert torch.equal(before[1][:, :, :at], after[1][:, :, :at])


@functools.cache
def half(name):
    return copy.deepcopy(MODELS[name]).float()


@pytest.mark.parametrize("name", GATED)
@few
@given(rows, lengths, seeds, st.floats(0.01, 0.99))
def test_limits_hold_for_any_threshold(name, batch, length, seed, threshold):
    model, tokens = MODELS[name], text(batch, length, seed)
    _, passes = read(model, tokens, effort=Effort(threshold=threshold, max_passes=2))
    assert passes.min() >= 1 and passes.max() <= 2


def test_the_miniatures_vary_their_depth():
    """Otherwise the properties above would say little about depth."""
    varied = [name for name, model in MODELS.items() if read(model, text(3, 40, 0))[1].unique().numel() > 1]
    assert len(varied) >= 8, varied
