"""The gate between a branch and memory, against its slow twin in float64."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch

from ourospec.nn.init import initialise
from ourospec.nn.memory import MemoryGate, NormalisedGateConfig, SeedGateConfig

spec = importlib.util.spec_from_file_location("memory", Path(__file__).parents[2] / "reference" / "memory.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
CONFIGS = {"normalised": NormalisedGateConfig(hidden=7), "seed": SeedGateConfig(hidden=7)}
KINDS = pytest.mark.parametrize("kind", list(CONFIGS))


def gate_of(kind):
    torch.manual_seed(0)
    module = MemoryGate(6, CONFIGS[kind]).double()
    initialise(module, 1)
    return module


@KINDS
def test_equals_its_slow_twin(kind):
    module = gate_of(kind)
    y, m = torch.randn(2, 2, 5, 6, dtype=torch.float64).mul(3).requires_grad_().unbind()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    mixed = module(y, m)
    states, entropy = reference.memory_gate(y, m, module)
    torch.testing.assert_close(mixed.states, states, **CLOSE)
    torch.testing.assert_close(mixed.entropy, entropy, **CLOSE)
    weights = torch.randn(states.shape, dtype=torch.float64)
    inputs = [y, m, *module.parameters()]
    fast, slow = (
        torch.autograd.grad((s * weights).sum() + e.sum(), inputs)
        for s, e in ((mixed.states, mixed.entropy), (states, entropy))
    )
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_prefers_the_branch_in_the_beginning_and_the_seeds_form_does_not():
    y, m = torch.randn(2, 4, 50, 6, dtype=torch.float64).unbind()
    assert float(gate_of("normalised")(y, m).share.mean().detach()) == pytest.approx(0.88, abs=0.06)
    assert float(gate_of("seed")(y, m).share.mean().detach()) == pytest.approx(0.5, abs=0.06)


def test_scales_of_branches_matter_to_the_seeds_form_only():
    y, m = torch.randn(2, 1, 5, 6, dtype=torch.float64).unbind()
    one, other = gate_of("normalised")(y, m), gate_of("normalised")(y, 100 * m)
    torch.testing.assert_close(one.states, other.states, rtol=1e-4, atol=1e-4)
    assert (gate_of("seed")(y, m).states - gate_of("seed")(y, 100 * m).states).abs().max() > 1


def test_the_entropy_of_a_closed_gate_is_none_and_of_an_undecided_one_ln_2():
    module = gate_of("seed").float()
    y, m = torch.randn(2, 1, 3, 6).unbind()
    for bias, entropy in ((0.0, math.log(2)), (300.0, 0.0), (-300.0, 0.0)):
        with torch.no_grad():
            module.output.weight.zero_()
            module.output.bias.fill_(bias)
        found = module(y, m).entropy
        torch.testing.assert_close(found, torch.full_like(found, entropy))
        found.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_has_the_seeds_parameters():
    module = MemoryGate(256, SeedGateConfig())
    assert sum(p.numel() for p in module.parameters()) == 98_688


@KINDS
def test_share_and_entropy_are_float32_under_autocast(kind):
    module = gate_of(kind).float()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(*torch.randn(2, 2, 5, 6).unbind())
    assert {tensor.dtype for tensor in mixed} == {torch.float32}
