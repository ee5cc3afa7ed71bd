"""What associative memories are good for, and where they would break."""

import pytest
import torch
from pydantic import ValidationError

from ourospec.nn.init import initialise
from ourospec.nn.memory import DeltaMemoryConfig, EmaMemoryConfig, TitansMemoryConfig, build_memory


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def by_hand(kind, momentum=0.5, **sizes):
    """A memory of one head that reads keys, values and gates from its input as they stand there: [k; v; logits]."""
    config = {"delta": DeltaMemoryConfig, "titans": TitansMemoryConfig}[kind]
    more = {"momentum": momentum} if kind == "titans" else {}
    config = config(heads=1, key_width=8, value_width=8, chunk=16, **sizes, **more)
    module = build_memory(config, 16 + 3).double()
    eye = torch.eye(8, dtype=torch.float64)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
        for row, column in ((0, 0), (8, 0), (16, 8)):
            module.qkv.weight[row : row + 8, column : column + 8] = eye
        module.gate.weight[:, 16 : 16 + module.gates] = torch.eye(module.gates)
        module.out.weight[:8] = eye
    return module


def tokens(keys, values, write, forget=-60.0, move=-60.0):
    """[1, T, 16 + 3], with logits of the gates."""
    logits = torch.tensor([write, forget, move], dtype=torch.float64).expand(len(keys), 3)
    return torch.cat([keys, values, logits], dim=1)[None]


def asked(keys):
    """Tokens that write nothing."""
    return tokens(keys, torch.zeros_like(keys), write=-60.0)


def read(module, *parts):
    return module(torch.cat(parts, dim=1))[0][0, :, :8].detach()


@pytest.mark.parametrize("kind", ["delta", "titans"])
def test_as_many_keys_as_are_wide_are_recalled_and_the_latest_value_counts(kind):
    """In steps of full strength and without momentum; a second value under a key replaces the first."""
    torch.manual_seed(0)
    keys = 1e3 * torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64)).Q
    first, second = torch.randn(2, 8, 8, dtype=torch.float64).unbind()
    write = [tokens(keys, values, write=60.0) for values in (first, second)]
    torch.testing.assert_close(read(by_hand(kind), write[0], asked(keys))[-8:], first)
    torch.testing.assert_close(read(by_hand(kind), *write, asked(keys))[-8:], second)


def test_a_weaker_write_leaves_some_of_the_old():
    keys = 1e3 * torch.eye(8, dtype=torch.float64)
    old, new = torch.randn(2, 8, 8, dtype=torch.float64).unbind()
    parts = [tokens(keys, values, write=60.0) for values in (old, new)]
    found = read(by_hand("delta", write_strength=0.25), *parts, asked(keys))[-8:]
    torch.testing.assert_close(found, 0.75 * 0.25 * old + 0.25 * new)


def test_without_momentum_and_forgetting_titans_is_the_delta_rule():
    torch.manual_seed(0)
    x = tokens(torch.randn(40, 8), torch.randn(40, 8), write=0.3).double()
    torch.testing.assert_close(read(by_hand("titans"), x), read(by_hand("delta"), x))
    moving = tokens(x[0, :, :8], x[0, :, 8:16], write=0.3, move=2.0)
    assert (read(by_hand("titans"), moving) - read(by_hand("titans"), x)).abs().max() > 0.1


def test_a_surprise_goes_on_and_adds_up_to_one_write():
    key, value = 1e3 * torch.eye(8, dtype=torch.float64)[:1], torch.ones(1, 8, dtype=torch.float64)
    others = 1e3 * torch.eye(8, dtype=torch.float64)[1:2].expand(30, 8)
    silent = tokens(others, torch.zeros_like(others), write=-60.0, move=60.0)
    found = read(by_hand("titans"), tokens(key, value, write=60.0, move=60.0), silent, asked(key))
    assert float(found[0, 0]) == pytest.approx(0.5)  # η = ½ holds half of it back
    assert float(found[-1, 0]) == pytest.approx(1.0)


def test_the_factor_of_momentum_keeps_repeating_keys_bounded():
    """A momentum of 0.7 and full strength on 5 keys in turn, values of 0: the error of what was held."""
    eye = torch.eye(8, dtype=torch.float64)
    keys = eye[torch.arange(300) % 5]
    module = by_hand("titans", momentum=0.7)
    state = module.empty_state(1, keys.device, torch.float64)
    state.memory[0, 0, 0] = eye
    x = tokens(1e3 * keys, 0 * keys, write=60.0, move=60.0)
    with torch.no_grad():
        assert float(module(x, state)[1].memory[0, 0, 0].norm()) <= float(eye.norm())
    memory, momentum = eye, 0 * eye  # the same without the factor, as the formula stands
    for key in keys:
        momentum = 0.7 * momentum - torch.outer(key, memory.T @ key)
        memory = memory + momentum
    assert float(memory.norm()) > 1e3


@pytest.mark.parametrize("kind", ["delta", "titans"])
def test_float32_holds_over_long_texts_that_repeat_themselves(kind):
    """One key again and again makes the triangular systems as badly conditioned as they get."""
    torch.manual_seed(0)
    key = torch.randn(1, 8, dtype=torch.float64)
    keys = torch.cat([key.expand(600, 8), torch.randn(424, 8)]).double()
    x = tokens(keys, torch.randn(1024, 8).double(), write=4.0, move=4.0)
    module = by_hand(kind, momentum=0.7)
    exact = read(module, x)
    torch.testing.assert_close(read(module.float(), x.float()).double(), exact, rtol=1e-3, atol=1e-3)
    assert exact.abs().max() < 20


def test_the_seeds_memory_has_its_parameters_and_halves_in_69_tokens():
    module = build_memory(EmaMemoryConfig(), 256)
    assert parameters(module) == 65_536
    y = torch.randn(1, 1, 256).expand(1, 70, 256).clone()
    y[:, 1:] = 0
    out = module(y)[0].detach()
    assert float(out[0, 69].norm() / out[0, 0].norm()) == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("heads,width,size", [(4, 32, 4096), (8, 32, 8192), (2, 32, 2048)])
def test_capacity_is_the_size_of_the_state(heads, width, size):
    config = DeltaMemoryConfig(heads=heads, key_width=width, value_width=width)
    assert config.state_size == size
    assert build_memory(config, 16).empty_state(3, torch.device("cpu")).memory.numel() == 3 * size


def test_the_half_life_asked_for_is_that_of_a_new_memory():
    module = build_memory(DeltaMemoryConfig(half_life=37.0), 16)
    initialise(module, 1)
    with torch.no_grad():
        module.gate.weight.zero_()
    y = torch.zeros(1, 37, 16)
    state = module.empty_state(1, y.device)
    state.memory.fill_(1.0)
    assert float(module(y, state)[1].memory.mean().detach()) == pytest.approx(0.5, abs=1e-4)


def test_options_that_another_kind_has_are_refused():
    with pytest.raises(ValidationError):
        DeltaMemoryConfig(momentum=0.5)
    with pytest.raises(ValidationError):
        EmaMemoryConfig(write_strength=0.5)
    with pytest.raises(ValidationError):
        TitansMemoryConfig(momentum=0.9)
