"""Muon: as PyTorch's on single matrices; stacks and joint maps as their parts alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ourospec.optim.config import MuonConfig
from ourospec.optim.groups import Matrix
from ourospec.optim.muon import Muon


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def muon(
    parameters: dict[str, tuple[nn.Parameter, tuple[int, ...]]], decay: float = 0.1, **changes: object
) -> Muon:
    matrices = [Matrix(name, parameter, rows) for name, (parameter, rows) in parameters.items()]
    arithmetic = changes.pop("arithmetic", None)
    return Muon(matrices, MuonConfig.model_validate(changes), decay, arithmetic)  # pyright: ignore


def update(
    *, step: int = 0, rows: tuple[int, ...] | None = None, shape: tuple[int, ...] = (8, 16), **changes: object
):
    """What a step or more makes of zeros, which have nothing to decay."""
    parameter = nn.Parameter(torch.zeros(shape))
    optimizer = muon({"w": (parameter, rows or (shape[-2],))}, **changes)
    for number in range(step + 1):
        parameter.grad = drawn(*shape, seed=number)
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize("scale", ["spectral", "adam_rms"])
@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_single_matrices_move_as_under_torch(shape: tuple[int, int], scale: str) -> None:
    """Up to bfloat16, in which torch normalises, too: 8 bits, a hundredth of the update's size."""
    start = drawn(*shape, seed=9)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    one = muon({"w": (ours, shape[:1])}, lr=0.05, scale=scale, arithmetic=torch.bfloat16)
    other = torch.optim.Muon(
        [theirs], lr=0.05, adjust_lr_fn="original" if scale == "spectral" else "match_rms_adamw"
    )
    for step in range(4):
        for parameter, optimizer in ((ours, one), (theirs, other)):
            parameter.grad = drawn(*shape, seed=step)
            optimizer.step()
    moved = (theirs.detach() - start).norm()
    assert (ours.detach() - theirs.detach()).norm() < 0.02 * moved
    assert torch.equal(one.state[ours]["momentum_buffer"], other.state[theirs]["momentum_buffer"])


def test_stacked_experts_move_as_each_alone() -> None:
    start = drawn(3, 8, 12, seed=5)
    stack = nn.Parameter(start.clone())
    alone = [nn.Parameter(expert.clone()) for expert in start]
    together = muon({"experts": (stack, (8,))})
    apart = [muon({"expert": (expert, (8,))}) for expert in alone]
    for step in range(3):
        stack.grad = drawn(3, 8, 12, seed=step)
        together.step()
        for number, (expert, optimizer) in enumerate(zip(alone, apart, strict=True)):
            expert.grad = drawn(3, 8, 12, seed=step)[number]
            optimizer.step()
    for number, expert in enumerate(alone):
        torch.testing.assert_close(stack[number], expert, rtol=1e-5, atol=1e-6)


def test_joint_maps_move_as_each_alone() -> None:
    rows, start = (8, 4, 4), drawn(16, 8, seed=5)
    joint = nn.Parameter(start.clone())
    alone = [nn.Parameter(part.clone()) for part in start.split(rows)]
    together = muon({"qkv": (joint, rows)})
    apart = muon({f"{n}": (part, (len(part),)) for n, part in enumerate(alone)})
    for step in range(3):
        gradient = drawn(16, 8, seed=step)
        joint.grad = gradient
        together.step()
        for part, own in zip(alone, gradient.split(rows), strict=True):
            part.grad = own.clone()
        apart.step()
    torch.testing.assert_close(joint, torch.cat(alone), rtol=1e-5, atol=1e-6)
    one = nn.Parameter(start.clone())
    as_one = muon({"qkv": (one, (16,))})
    one.grad = drawn(16, 8, seed=0)
    as_one.step()
    assert not torch.allclose(one, joint, atol=1e-3), "as one matrix it would go elsewhere"


def test_company_changes_nothing() -> None:
    """Matrices of one shape, and its transpose, go through one product."""
    shapes = {"a": (8, 16), "b": (16, 8), "c": (8, 16)}
    parameters = {name: nn.Parameter(torch.zeros(shape)) for name, shape in shapes.items()}
    optimizer = muon({name: (p, p.shape[:1]) for name, p in parameters.items()})
    for number, parameter in enumerate(parameters.values()):
        parameter.grad = drawn(*parameter.shape, seed=number)
    optimizer.step()
    alone = nn.Parameter(torch.zeros(16, 8))
    alone.grad = drawn(16, 8, seed=1)
    muon({"b": (alone, (16,))}).step()
    torch.testing.assert_close(parameters["b"], alone, rtol=1e-5, atol=1e-7)


def test_a_gradient_ten_times_as_long_makes_the_same_update() -> None:
    for steps in (1, 3):
        moved = []
        for factor in (1.0, 10.0):
            parameter = nn.Parameter(torch.zeros(8, 16))
            optimizer = muon({"w": (parameter, (8,))})
            for step in range(steps):
                parameter.grad = factor * drawn(8, 16, seed=step)
                optimizer.step()
            moved.append(parameter.detach())
        torch.testing.assert_close(moved[0], moved[1], rtol=1e-4, atol=1e-6)


def test_singular_values_of_an_update_lie_around_the_learning_rate() -> None:
    values = torch.linalg.svdvals(update(shape=(32, 64), lr=0.1)) / 0.1
    assert float(values.min()) > 0.65 and float(values.max()) < 1.25
    tall = torch.linalg.svdvals(update(shape=(64, 16), lr=0.1)) / (0.1 * 2.0)  # √(64/16)
    assert float(tall.min()) > 0.65 and float(tall.max()) < 1.25


def test_the_other_scale_is_of_the_size_of_adams_updates() -> None:
    for shape in ((64, 16), (16, 64)):
        size = float(update(shape=shape, lr=0.1, scale="adam_rms").square().mean().sqrt()) / 0.1
        # 0.2·√(max/(m·n))·‖O‖ = 0.2 where O is orthogonal; its singular values are 0.7 to 1.2.
        assert 0.14 < size < 0.25


def test_every_setting_reaches_the_update() -> None:
    plain = update(step=2)
    for change in ({"lr": 0.01}, {"momentum": 0.5}, {"iterations": 3}, {"scale": "adam_rms"}):
        assert not torch.allclose(update(step=2, **change), plain, rtol=1e-2, atol=1e-4), change
    parameter = nn.Parameter(torch.ones(4, 4))
    parameter.grad = torch.zeros(4, 4)
    muon({"w": (parameter, (4,))}, decay=0.5, lr=0.1).step()
    torch.testing.assert_close(parameter.detach(), torch.full((4, 4), 0.95))


def test_momentum_looks_ahead() -> None:
    """Two gradients, by hand: m = μ(1 − μ)g₁ + (1 − μ)g₂, and what is orthogonalised is μm + (1 − μ)g₂."""
    from ourospec.optim.newton_schulz import orthogonalise

    one, two = drawn(8, 16, seed=0), drawn(8, 16, seed=1)
    first = orthogonalise(one, 5)
    mean = 0.9 * 0.1 * one + 0.1 * two
    second = orthogonalise(0.9 * mean + 0.1 * two, 5)
    expected = -0.02 * first * (1 - 0.02 * 0.1) - 0.02 * second
    torch.testing.assert_close(update(step=1, momentum=0.9), expected, rtol=1e-4, atol=1e-6)


def test_a_closure_is_refused() -> None:
    with pytest.raises(ValueError, match="closure"):
        muon({"w": (nn.Parameter(torch.zeros(2, 2)), (2,))}).step(lambda: 0.0)
