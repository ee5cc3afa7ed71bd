"""Everything together: against its slow twin, and saved and restored to the last bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from ourospec.errors import ConfigError
from ourospec.optim.adamw import build_adamw
from ourospec.optim.config import GrokfastConfig, MuonConfig, OptimConfig, QKClipConfig
from ourospec.optim.optimiser import Optimiser, build_optimiser, state_bytes
from ourospec.optim.schedule import learning_rate
from ourospec.train.step import clip

from .everything import PLAIN, everything, give, gradients, settings, twin_of

WAYS = {
    "adamw": settings(muon=False, strength=None),
    "grokfast": settings(muon=False, strength=2.0),
    "muon": settings(muon=True, strength=None),
    "mugrokfast": settings(muon=True, strength=0.5),
}


def advance(model: nn.Module, optimiser: Optimiser, step: int, total: int = 10) -> dict[str, float]:
    """As the trainer does it: clip, rates, update, forget."""
    give(model, gradients(step, model))
    found = [p.grad for p in model.parameters() if p.grad is not None]
    clip(found, float(torch.nn.utils.get_total_norm(found)), optimiser.config.clip_norm)
    rates = optimiser.set_rates(step, total)
    optimiser.step()
    optimiser.zero_grad()
    return rates


@pytest.mark.parametrize("config", WAYS.values(), ids=WAYS)
def test_five_steps_are_those_of_the_slow_twin(config: OptimConfig) -> None:
    model = everything()
    optimiser, twin = build_optimiser(model, config, PLAIN), twin_of(model, config)
    for step in range(5):
        advance(model, optimiser, step)
        twin.step(gradients(step, model))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), twin.weights[name], rtol=1e-9, atol=1e-11, msg=name)


def test_adamw_alone_keeps_what_adamw_keeps() -> None:
    config, ours, plain = settings(muon=False, strength=None), everything(), everything()
    optimiser, adamw = build_optimiser(ours, config, PLAIN), build_adamw(plain, config, PLAIN)
    for step in range(3):
        for model, one in ((ours, optimiser), (plain, adamw)):
            give(model, gradients(step, model))
            one.step()
    assert bits(optimiser.state_dict()) == bits(adamw.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), plain.parameters(), strict=True))


def bits(value: Any) -> Any:
    """With tensors as bytes, and dicts as their items in order."""
    if isinstance(value, torch.Tensor):
        return value.numpy().tobytes()
    if isinstance(value, dict):
        return [(key, bits(part)) for key, part in value.items()]
    return [bits(part) for part in value] if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("config", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("stopped", [0, 1, 3])
def test_what_was_saved_goes_on_to_the_last_bit(config: OptimConfig, stopped: int) -> None:
    whole, first = everything(), everything()
    ahead, behind = build_optimiser(whole, config, PLAIN), build_optimiser(first, config, PLAIN)
    for step in range(6):
        advance(whole, ahead, step)
    for step in range(stopped):
        advance(first, behind, step)
    second = everything()
    second.load_state_dict(first.state_dict())
    resumed = build_optimiser(second, config, PLAIN)
    resumed.load_state_dict(behind.state_dict())
    assert bits(resumed.state_dict()) == bits(behind.state_dict())
    for step in range(stopped, 6):
        advance(second, resumed, step)
    assert bits(resumed.state_dict()) == bits(ahead.state_dict())
    assert bits(dict(second.state_dict())) == bits(dict(whole.state_dict()))


@pytest.mark.parametrize("forgotten", ["slow_gradient", "momentum_buffer", "exp_avg"])
def test_forgetting_any_of_it_would_show(forgotten: str) -> None:
    config = WAYS["mugrokfast"]
    model, other = everything(), everything()
    optimiser, resumed = (build_optimiser(one, config, PLAIN) for one in (model, other))
    for step in range(3):
        advance(model, optimiser, step)
    other.load_state_dict(model.state_dict())
    saved = optimiser.state_dict()
    for kept in saved["state"].values():
        if forgotten in kept:
            kept[forgotten] = torch.zeros_like(kept[forgotten])
    resumed.load_state_dict(saved)
    for one, by in ((model, optimiser), (other, resumed)):
        advance(one, by, 3)
    assert bits(dict(model.state_dict())) != bits(dict(other.state_dict()))


def test_a_parameter_without_a_gradient_is_left_alone_and_remembered_by_nobody() -> None:
    model = everything()
    optimiser = build_optimiser(model, WAYS["mugrokfast"], PLAIN)
    missing = {"square.weight", "norm.weight"}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step in range(2):
        give(model, {n: g for n, g in gradients(step, model).items() if n not in missing})
        optimiser.step()
        optimiser.zero_grad()
    for name, parameter in model.named_parameters():
        moved = parameter.requires_grad and name not in missing
        assert torch.equal(parameter, before[name]) != moved, name
    saved = optimiser.state_dict()
    names = [name for group in saved["param_groups"] for name in group["param_names"]]
    assert {names[number] for number in range(len(names)) if number not in saved["state"]} == missing
    again = build_optimiser(everything(), WAYS["mugrokfast"], PLAIN)
    again.load_state_dict(saved)
    assert bits(again.state_dict()) == bits(saved)


def test_both_rates_follow_the_schedule_and_reach_the_update() -> None:
    config = settings(muon=True, strength=None).model_copy(
        update={"warmup_fraction": 0.5, "final_lr_fraction": 0.1, "weight_decay": 0.0}
    )
    model = everything()
    optimiser = build_optimiser(model, config, PLAIN)
    for step in range(10):
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        rates = advance(model, optimiser, step)
        assert rates == {
            "lr": learning_rate(step, config, 10),
            "muon_lr": learning_rate(step, config, 10, 3e-2),
        }
        moved = {name: (p.detach() - before[name]) for name, p in model.named_parameters()}
        assert rates["muon_lr"] == pytest.approx(3 * rates["lr"])
        # A square matrix moves by singular values of at most 1.21 rates, an entry under AdamW's by a few.
        assert 0.5 < float(torch.linalg.matrix_norm(moved["wide.weight"], 2)) / rates["muon_lr"] < 1.25
        assert 0.1 < float(moved["readout.weight"].abs().max()) / rates["lr"] < 5


def test_groups_of_another_choice_are_refused() -> None:
    saved = build_optimiser(everything(), WAYS["adamw"], PLAIN).state_dict()
    with pytest.raises(ValueError, match="2 groups were saved; here are 3"):
        build_optimiser(everything(), WAYS["muon"], PLAIN).load_state_dict(saved)


def test_what_finds_nothing_to_do_is_refused() -> None:
    gains = nn.Sequential(nn.LayerNorm(4))
    with pytest.raises(ConfigError, match="no matrix") as caught:
        build_optimiser(gains, OptimConfig(muon=MuonConfig()), PLAIN)
    assert "--optim.muon off" in caught.value.remedy
    with pytest.raises(ConfigError, match="no attention") as caught:
        build_optimiser(gains, OptimConfig(qk_clip=QKClipConfig()), PLAIN)
    assert "--optim.qk-clip off" in caught.value.remedy


def test_a_model_of_matrices_alone_needs_no_adamw() -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False))
    optimiser = build_optimiser(model, OptimConfig(muon=MuonConfig()), PLAIN)
    assert optimiser.set_rates(0, 1).keys() == {"muon_lr"}


@pytest.mark.parametrize("config", WAYS.values(), ids=WAYS)
def test_what_is_kept_is_as_large_as_was_said(config: OptimConfig) -> None:
    model = everything()
    optimiser = build_optimiser(model, config, PLAIN)
    advance(model, optimiser, 0)
    kept = sum(
        tensor.numel() * tensor.element_size()
        for values in optimiser.state_dict()["state"].values()
        for name, tensor in values.items()
        if name != "step"
    )
    assert kept == state_bytes(model, config)


def test_grokfast_is_there_for_adamw_alone() -> None:
    """The update is that of AdamW on gradients that were amplified by hand."""
    config = OptimConfig(grokfast=GrokfastConfig(decay=0.5, strength=1.0))
    model, plain = everything(), everything()
    optimiser = build_optimiser(model, config, PLAIN)
    adamw = build_adamw(plain, config, PLAIN)
    slow = None
    for step in range(3):
        found = gradients(step, model)
        give(model, found)
        optimiser.step()
        slow = found if slow is None else {n: 0.5 * slow[n] + 0.5 * g for n, g in found.items()}
        give(plain, {n: g + slow[n] for n, g in found.items()})
        adamw.step()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
