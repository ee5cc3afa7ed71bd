"""Orthogonalisation against its slow twin, and what it promises."""

from __future__ import annotations

import pytest
import torch

from ourospec.optim.newton_schulz import orthogonalise

from .everything import reference

SHAPES = [(6, 6), (4, 9), (9, 4), (1, 5), (5, 1)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("iterations", [1, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_is_what_the_quintic_does_to_singular_values(shape: tuple[int, int], iterations: int) -> None:
    x = random(*shape)
    expected = reference.orthogonalised(x, iterations)
    torch.testing.assert_close(orthogonalise(x, iterations), expected, rtol=1e-9, atol=1e-10)


def test_a_stack_is_each_of_its_matrices_alone() -> None:
    stack = random(2, 3, 5, 4)
    together = orthogonalise(stack, 5)
    assert together.shape == stack.shape
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(together[i, j], orthogonalise(stack[i, j], 5), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("arithmetic", [None, torch.bfloat16])
@pytest.mark.parametrize("shape", [(48, 96), (96, 48), (64, 256)])
def test_singular_values_come_near_one(shape: tuple[int, int], arithmetic: torch.dtype | None) -> None:
    values = torch.linalg.svdvals(orthogonalise(random(*shape).float(), 5, arithmetic))
    assert float(values.min()) > 0.65 and float(values.max()) < 1.25


def test_square_matrices_keep_their_near_null_directions_small() -> None:
    values = torch.linalg.svdvals(orthogonalise(random(128, 128), 5))
    assert float(values.max()) < 1.22
    assert float((values > 0.65).double().mean()) > 0.9, "all but a few come near 1"
    assert float(values.min()) < 0.65, "what is next to nothing stays less"


@pytest.mark.parametrize("arithmetic", [None, torch.bfloat16])
def test_length_does_not_matter(arithmetic: torch.dtype | None) -> None:
    x = random(12, 20).float()
    once = orthogonalise(x, 5, arithmetic)
    # A power of two changes no digit, so nothing at all changes.
    assert torch.equal(orthogonalise(2.0**-9 * x, 5, arithmetic), once)
    # bfloat16 has 8 bits: ten times the input is rounded otherwise, before each iteration repairs the last.
    near = 2e-2 if arithmetic else 1e-5
    torch.testing.assert_close(orthogonalise(10.0 * x, 5, arithmetic), once, rtol=near, atol=near)


def test_nothing_becomes_nothing() -> None:
    assert torch.equal(orthogonalise(torch.zeros(3, 4), 5), torch.zeros(3, 4))
