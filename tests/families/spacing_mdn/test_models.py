"""Both models: causal, indifferent to their company, and registers that stand where they are said to stand."""

import math

import numpy as np
import pytest
import torch

from ourospec.data.spacings import Series, heights_of
from ourospec.errors import ConfigError
from ourospec.families.spacing_mdn.proxies import ProxyTask
from ourospec.families.spacing_mdn.registers import Ablation, NoRegisters, PostfixRegisters, PrefixRegisters
from ourospec.families.spacing_mdn.tones import TonesConfig, TonesModel
from ourospec.families.spacing_mdn.transformer import SpacingTransformer, TransformerConfig

CONTEXT = 16
REGISTERS = {
    "none": NoRegisters(),
    "prefix": PrefixRegisters(count=4),
    "postfix": PostfixRegisters(count=4),
    "anonymous": PostfixRegisters(count=4, anonymous=True),
    "tasked": PostfixRegisters(count=8, ids="permute_per_batch", task=ProxyTask()),
}


def series(count: int, seed: int = 0) -> Series:
    spacings = np.random.default_rng(seed).gamma(6.0, 1 / 6, count)
    return Series(heights_of(2_000.0 + np.concatenate([[0.0], np.cumsum(spacings)])), spacings)


def transformer(registers, **changes) -> SpacingTransformer:
    torch.manual_seed(1)
    sizes = {"width": 16, "layers": 2, "heads": 2, "mlp_hidden": 24, "context": CONTEXT} | changes
    model = SpacingTransformer(TransformerConfig(registers=registers, **sizes)).double().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def tones() -> TonesModel:
    torch.manual_seed(1)
    model = TonesModel(TonesConfig(tones=3, highest=3.0, windows=(4, CONTEXT), lags=5, width=16, layers=2))
    data = series(600)
    model.prepare([data], [data.cut(0, 60), data.cut(300, 360)])
    return model.double().eval()


MODELS = {**{name: transformer(place) for name, place in REGISTERS.items()}, "tones": tones()}
every_model = pytest.mark.parametrize("name", MODELS)


def rows(count: int, length: int = CONTEXT, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    made = [series(length, seed + i) for i in range(count)]
    past = torch.from_numpy(np.stack([one.spacings for one in made]))
    return past, torch.from_numpy(np.stack([one.heights for one in made]))


def changed_after(past, heights, at: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Other spacings from index `at` on."""
    later = past.clone()
    later[:, at:] = later[:, at:].flip(1) * 1.1
    gaps = heights.diff(dim=1)
    gaps[:, at:] = gaps[:, at:].flip(1) * 1.1
    return later, torch.cat([heights[:, :1], heights[:, :1] + gaps.cumsum(1)], dim=1)


@every_model
@torch.no_grad()
def test_nothing_is_seen_of_what_comes_later(name):
    model = MODELS[name]
    length = CONTEXT if name != "tones" else CONTEXT + 12
    past, heights = rows(3, length)
    at = length - 4
    before = model(past, heights, each=True).each
    after = model(*changed_after(past, heights, at), each=True).each
    # The last positions of both follow the past's own ends.
    same = before.means.shape[1] - (length - at)
    for one, other in zip(before, after, strict=True):
        torch.testing.assert_close(one[:, :same], other[:, :same], rtol=1e-9, atol=1e-9)
    assert not torch.allclose(before.means[:, same:], after.means[:, same:])


@every_model
@torch.no_grad()
def test_a_row_does_not_depend_on_the_others(name):
    model = MODELS[name]
    past, heights = rows(5)
    alone = model.predict(past[2:3], heights[2:3])
    together = model.predict(past, heights).at(slice(2, 3))
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@every_model
@torch.no_grad()
def test_the_last_of_each_is_the_last(name):
    model = MODELS[name]
    found = model(*rows(2), each=True)
    if name in ("none", "prefix", "tones"):
        torch.testing.assert_close(found.each.at((slice(None), -1)).means, found.last.means)
    else:
        # The registers' readout is not what the last spacing says.
        assert not torch.allclose(found.each.at((slice(None), -1)).means, found.last.means)


@torch.no_grad()
def test_registers_before_the_spacings_are_the_same_for_all_pasts_and_those_behind_are_not():
    seen = {}
    for name in ("prefix", "postfix"):
        model = MODELS[name]
        grabbed = []
        hook = model.norm.register_forward_hook(lambda *found, grabbed=grabbed: grabbed.append(found[2]))
        model.predict(*rows(2))
        hook.remove()
        seen[name] = grabbed[0]
    torch.testing.assert_close(seen["prefix"][0, :4], seen["prefix"][1, :4])
    assert not torch.allclose(seen["postfix"][0, -4:], seen["postfix"][1, -4:])


@torch.no_grad()
@pytest.mark.parametrize(("name", "told_apart"), [("postfix", True), ("anonymous", False)])
def test_only_anonymous_registers_can_be_exchanged(name, told_apart):
    """Whole registers change places, identity and all; only position and order are left to tell them apart."""
    model = transformer(REGISTERS[name])
    data = rows(2)
    torch.nn.init.zeros_(model.readout)
    before = model.predict(*data).means
    for vectors in (model.registers.content, model.registers.ids):
        vectors.copy_(vectors[[2, 0, 3, 1]])
    assert torch.allclose(before, model.predict(*data).means, atol=1e-9) != told_apart


@torch.no_grad()
def test_ablations_do_what_they_say():
    registers = transformer(REGISTERS["postfix"]).registers
    whole = registers(Ablation())
    torch.testing.assert_close(whole, (registers.content + registers.ids) * 0.3)
    off = registers(Ablation(slots_off=(1, 3)))
    assert (off[[1, 3]] == 0).all() and torch.equal(off[[0, 2]], whole[[0, 2]])
    mean = registers(Ablation(slots_off=(1,), replacement="mean"))
    torch.testing.assert_close(mean[1], whole.mean(0))
    torch.testing.assert_close(registers(Ablation(content="zeroed")), registers.ids * 0.3)
    torch.testing.assert_close(registers(Ablation(ids="off")), registers.content * 0.3)
    turned = registers(Ablation(id_order=(3, 2, 1, 0)))
    torch.testing.assert_close(turned, (registers.content + registers.ids.flip(0)) * 0.3)
    for wrong in (Ablation(slots_off=(4,)), Ablation(id_order=(0, 0, 1, 2))):
        with pytest.raises(ConfigError):
            registers(wrong)


def test_registers_carry_their_own_identities_unless_they_are_told_others():
    """So that diagnostic J compares other orders with one and the same; what trains them says which they carry."""
    registers = transformer(REGISTERS["tasked"]).registers
    wanted = (registers.content + registers.ids) * 0.3
    for mode in (False, True):
        torch.testing.assert_close(registers.train(mode)(Ablation()), wanted)


def test_identities_are_orthogonal_from_the_start():
    """Nothing that is initialised later overwrites them."""
    model = SpacingTransformer(TransformerConfig(registers=PostfixRegisters(), width=64, heads=4, layers=1))
    ids = torch.nn.functional.normalize(model.registers.ids.detach(), dim=1)
    torch.testing.assert_close(ids @ ids.T, torch.eye(8), atol=1e-5, rtol=0)


@torch.no_grad()
def test_attention_of_registers_adds_up_and_respects_anonymity():
    past, heights = rows(2)
    weights = MODELS["anonymous"].slot_attention(past, heights)
    assert weights.shape == (2, 4, CONTEXT)
    # What is not on the spacings is on the register itself.
    assert (weights.sum(-1) < 1).all() and (weights > 0).all()
    with pytest.raises(ConfigError, match="behind the spacings"):
        MODELS["prefix"].slot_attention(past, heights)


@torch.no_grad()
def test_tones_are_heard_as_defined():
    """z = (1/w) Σ exp(i f (t_n − t_{n−k})), k < w, in plain loops."""
    model = MODELS["tones"]
    _, heights = rows(1, CONTEXT + 3)
    found = model._tones(heights, 4)[0]
    t = heights[0].numpy()
    for end in range(4):
        last = len(t) - 4 + end
        for w, window in enumerate((4, CONTEXT)):
            for j, f in enumerate(model.frequencies.tolist()):
                z = sum(np.exp(1j * f * (t[last] - t[last - k])) for k in range(window)) / window
                assert found[end, w, j, 0].item() == pytest.approx(z.real, abs=1e-9)
                assert found[end, w, j, 1].item() == pytest.approx(z.imag, abs=1e-9)


@torch.no_grad()
def test_the_tones_model_looks_back_on_its_context_alone():
    model = MODELS["tones"]
    past, heights = rows(2, CONTEXT + 9)
    long = model.predict(past, heights)
    short = model.predict(past[:, -CONTEXT:], heights[:, -CONTEXT - 1 :])
    torch.testing.assert_close(long.means, short.means, rtol=1e-9, atol=1e-9)
    with pytest.raises(ConfigError, match="looks back on 16"):
        model.predict(past[:, :5], heights[:, :6])
    with pytest.raises(ConfigError, match="no registers"):
        model.predict(past, heights, Ablation(slots_off=(0,)))


def test_heights_reach_a_transformer_that_reads_them_and_no_other():
    past, heights = rows(2)
    with torch.no_grad():
        for inputs in ("spacing", "height", "gap"):
            model = transformer(NoRegisters(), inputs=inputs)
            low, high = model.predict(past, heights).means, model.predict(past, 3 * heights).means
            assert torch.equal(low, high) == (inputs == "spacing")


@every_model
def test_every_parameter_that_is_trained_has_a_gradient(name):
    model = MODELS[name]
    model.train()
    model.zero_grad(set_to_none=True)
    past, heights = rows(3)
    found = model(past, heights, each=True)
    loss = -found.last.log_prob(past[:, 0]).sum()
    if found.slots is not None and model.proxies is not None:
        loss = loss + model.proxies(found.slots, past, ProxyTask())
    loss.backward()
    model.eval()
    without = [
        n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert without == []
    assert math.isfinite(float(loss.detach()))
