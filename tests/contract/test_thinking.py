"""What deciding about depth has to be, over every preset: what training rehearses, gains that are probed, readouts.

As in test_causality.py the models run in float64, where equality up to rounding means 1e-9.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.contracts import Effort, Rehearsal
from ourospec.families import PRESETS
from ourospec.nn.gate import READOUTS

spec = importlib.util.spec_from_file_location("miniature", Path(__file__).parent / "miniature.py")
miniature = importlib.util.module_from_spec(spec)
spec.loader.exec_module(miniature)

TOKENIZER = miniature.tokenizer()
ASCII = 128
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def build(recipe):
    return miniature.disagreeing(recipe, std=0.5).train()


def variants():
    """Every preset with passes to decide about, and what no preset has: all features, keys and values per pass."""
    found = {
        name: build(recipe)
        for name, recipe in miniature.miniatures(gate_bias=0.0).items()
        if hasattr(recipe.model, "depth") and recipe.model.depth.max_passes > 1
    }
    smoke = PRESETS["adaptive_lm/smoke"]()
    features = ("state", "update", "direction", "second_difference", "entropy", "top_mass", "agreement")
    found["all gate features"] = build(miniature.shrink(smoke, features=features, gate_bias=0.0))
    found["keys per pass"] = build(miniature.shrink(smoke, kv="per_pass", gate_bias=0.0))
    return found


MODELS = variants()
GATED = [name for name, model in MODELS.items() if model.layers[0].gate is not None]
gated = pytest.mark.parametrize("name", GATED)
readouts = pytest.mark.parametrize("readout", list(READOUTS))
every_model = pytest.mark.parametrize("name", MODELS)
rows, lengths, seeds = st.integers(1, 3), st.integers(2, 24), st.integers(0, 10_000)
thresholds = st.sampled_from([None, 0.05, 0.3, 0.6])
few = settings(deadline=None, max_examples=4)


def text(batch, length, seed):
    return torch.randint(ASCII, (batch, length), generator=torch.Generator().manual_seed(seed))


def borders(batch, length, seed):
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.cumsum(torch.rand(batch, length, generator=generator) < 0.15, 1)


def read(model, tokens, effort, documents=None, cache=None):
    with torch.no_grad():
        return model(tokens, documents, cache=cache, effort=effort)


def assert_equal(found, wanted):
    """States up to rounding, passes exactly."""
    torch.testing.assert_close(found[0], wanted[0], **CLOSE)
    assert torch.equal(found[1], wanted[1])


@gated
@few
@given(rows, lengths, seeds, thresholds)
def test_a_rehearsal_of_nothing_is_plain_execution(name, batch, length, seed, threshold):
    model, tokens, effort = MODELS[name], text(batch, length, seed), Effort(threshold=threshold)
    documents = borders(batch, length, seed)
    plain = read(model, tokens, effort, documents)
    rehearsed = read(model, tokens, effort._replace(training=Rehearsal()), documents)
    assert torch.equal(rehearsed.states, plain.states)
    assert torch.equal(rehearsed.passes, plain.passes)
    for trace in plain.trace:
        assert torch.equal(trace.wanted, trace.passes), "what is wanted is what is run"


@gated
@few
@given(rows, lengths, seeds, thresholds, st.integers(0, miniature.LAYERS - 1))
def test_an_audit_adds_one_pass_in_its_layer(name, batch, length, seed, threshold, layer):
    model, tokens = MODELS[name], text(batch, length, seed)
    plain = read(model, tokens, Effort(threshold=threshold))
    audit = read(model, tokens, Effort(threshold=threshold, training=Rehearsal(audited_layer=layer)))
    assert torch.equal(audit.passes[:layer], plain.passes[:layer])
    # The same state comes in, so the gates want the same; above, they judge what the audit made of it.
    assert torch.equal(audit.trace[layer].wanted, plain.passes[layer])
    assert torch.equal(audit.passes[layer], (plain.passes[layer] + 1).clamp(max=model.depth.max_passes))
    for index, trace in enumerate(audit.trace):
        if index != layer:
            assert torch.equal(trace.passes, trace.wanted)


@gated
@few
@given(lengths, seeds, st.floats(0.1, 0.9))
def test_exploration_adds_passes_that_nobody_wanted(name, length, seed, share):
    model, tokens = MODELS[name], text(3, length, seed)
    torch.manual_seed(seed)
    trace = read(model, tokens, Effort(training=Rehearsal(exploration=share))).trace[0]
    wanted = read(model, tokens, Effort()).passes[0]
    assert torch.equal(trace.wanted, wanted), "the first layer sees the same states"
    assert (trace.passes >= wanted).all()


def probe(model, tokens, targets, documents, layer, passes, effort):
    gain, logit, at_stake = model.probe_gain(tokens, documents, targets, layer, passes, effort)
    return torch.stack([gain, logit.detach().sigmoid(), at_stake])


@gated
@few
@given(rows, lengths, seeds, thresholds, st.data())
def test_a_probed_gain_is_causal(name, batch, length, seed, threshold, data):
    model, tokens, targets = MODELS[name], text(batch, length, seed), text(batch, length, seed + 7)
    documents = borders(batch, length, seed)
    layer = data.draw(st.integers(0, miniature.LAYERS - 1))
    passes = data.draw(st.integers(1, model.depth.max_passes - 1))
    at, effort = data.draw(st.integers(0, length - 1)), Effort(threshold=threshold)
    before = probe(model, tokens, targets, documents, layer, passes, effort)
    later = tokens.clone()
    later[:, at] = (later[:, at] + 1) % ASCII
    after = probe(model, later, targets, documents, layer, passes, effort)
    torch.testing.assert_close(after[..., :at], before[..., :at], **CLOSE)
    other = targets.clone()
    other[:, at] = (other[:, at] + 1) % ASCII
    elsewhere = torch.arange(length) != at
    after = probe(model, tokens, other, documents, layer, passes, effort)
    torch.testing.assert_close(after[..., elsewhere], before[..., elsewhere], **CLOSE)
    torch.testing.assert_close(after[1], before[1], **CLOSE, msg="no gate sees a target")


@gated
@few
@given(lengths, seeds, thresholds, st.integers(1, 3), st.data())
def test_a_probed_gain_has_no_company(name, length, seed, threshold, company, data):
    model, tokens, targets = (
        MODELS[name],
        text(company + 1, length, seed),
        text(company + 1, length, seed + 7),
    )
    layer = data.draw(st.integers(0, miniature.LAYERS - 1))
    passes = data.draw(st.integers(1, model.depth.max_passes - 1))
    effort = Effort(threshold=threshold)
    batched = probe(model, tokens, targets, None, layer, passes, effort)
    alone = probe(model, tokens[:1], targets[:1], None, layer, passes, effort)
    torch.testing.assert_close(batched[:, :1], alone, **CLOSE)
    # Nor does a document see the one before it.
    ahead = min(length, miniature.LENGTH - length)
    packed_tokens = torch.cat([tokens[1:2, :ahead], tokens[:1]], dim=1)
    packed_targets = torch.cat([targets[1:2, :ahead], targets[:1]], dim=1)
    documents = torch.tensor([[0] * ahead + [1] * length])
    packed = probe(model, packed_tokens, packed_targets, documents, layer, passes, effort)
    torch.testing.assert_close(packed[..., ahead:], alone, **CLOSE)


@readouts
@every_model
@few
@given(rows, lengths, seeds, st.sampled_from([0.02, 0.2, 0.5]), st.data())
def test_a_readout_is_causal_and_has_no_company(name, readout, batch, length, seed, threshold, data):
    model, tokens = MODELS[name], text(batch, length, seed)
    effort = Effort(readout=readout, threshold=threshold)
    whole = read(model, tokens, effort)
    at = data.draw(st.integers(0, length - 1))
    changed = tokens.clone()
    changed[:, at] = (changed[:, at] + 1) % ASCII
    after = read(model, changed, effort)
    assert_equal(
        (after.states[:, :at], after.passes[..., :at]), (whole.states[:, :at], whole.passes[..., :at])
    )
    alone = read(model, tokens[:1], effort)
    assert_equal((whole.states[:1], whole.passes[:, :1]), (alone.states, alone.passes))


@readouts
@pytest.mark.parametrize("name", [name for name in MODELS if name != "keys per pass"])
@few
@given(rows, lengths, seeds, st.sampled_from([0.02, 0.2, 0.5]), st.data())
def test_a_readout_decides_alike_in_cached_decoding(name, readout, batch, length, seed, threshold, data):
    model, tokens = MODELS[name], text(batch, length, seed)
    effort = Effort(readout=readout, threshold=threshold)
    whole = read(model, tokens, effort)
    cache, parts, at = model.new_cache(batch, length), [], 0
    while at < length:
        step = data.draw(st.integers(1, length - at))
        parts.append(read(model, tokens[:, at : at + step], effort, cache=cache))
        at += step
    found = torch.cat([p.states for p in parts], dim=1), torch.cat([p.passes for p in parts], dim=2)
    assert_equal(found, (whole.states, whole.passes))


def test_the_miniatures_and_the_readouts_vary_their_depth():
    """Otherwise the properties above would say little about depth."""
    tokens = text(3, 40, 0)
    for name in GATED:
        assert read(MODELS[name], tokens, Effort()).passes.unique().numel() > 1, name
    for readout in READOUTS:
        seen = {
            passes
            for model in MODELS.values()
            for threshold in (0.02, 0.2, 0.5)
            for passes in read(model, tokens, Effort(readout=readout, threshold=threshold))
            .passes.unique()
            .tolist()
        }
        assert len(seen) > 1, readout
