"""The divergence of two heads against plain loops over rows, with its gradients, in chunks and whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ourospec.nn.cross_entropy import linear_divergence, token_divergence

CLOSE: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-12}


def row_by_row(states: Tensor, weight: Tensor, wanted: Tensor, other: Tensor) -> list[Tensor]:
    """Σ_v p_v ln(p_v / q_v), with p and q written out."""
    found = []
    for state, want in zip(states, wanted, strict=True):
        q = (weight @ state).exp() / (weight @ state).exp().sum()
        p = (other @ want).exp() / (other @ want).exp().sum()
        found.append(sum((p[v] * (p[v] / q[v]).log() for v in range(len(p))), torch.zeros(())))
    return found


def heads(rows: int, vocabulary: int, seed: int) -> list[Tensor]:
    """States and rows of a student, and those of a wider teacher."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, 5), (vocabulary, 5), (rows, 7), (vocabulary, 7))
    made = [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]
    return [*(part.requires_grad_() for part in made[:2]), *made[2:]]


@given(rows=st.integers(1, 20), vocabulary=st.integers(2, 30), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_divergence(rows: int, vocabulary: int, seed: int) -> None:
    states, weight, wanted, other = heads(rows, vocabulary, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ourospec.nn.cross_entropy.CHUNK_ELEMENTS", 7 * vocabulary)
        fast = linear_divergence(states, weight, wanted, other)
        each, differ = token_divergence(states, weight, wanted, other)
    slow = row_by_row(states, weight, wanted, other)
    total = torch.stack(slow).sum()
    torch.testing.assert_close(fast, total, **CLOSE)
    torch.testing.assert_close(each, torch.stack(slow).detach(), **CLOSE)
    for quick, plain in zip(
        torch.autograd.grad(3 * fast, (states, weight)),
        torch.autograd.grad(3 * total, (states, weight)),
        strict=True,
    ):
        torch.testing.assert_close(quick, plain, **CLOSE)
    with torch.no_grad():
        p, q = wanted @ other.T, states @ weight.T
    likeliest = [int(a.argmax()) != int(b.argmax()) for a, b in zip(p, q, strict=True)]
    assert differ.tolist() == likeliest


def test_no_rows_diverge_by_nothing() -> None:
    states, weight, wanted, other = heads(0, 4, 0)
    nothing = linear_divergence(states, weight, wanted, other)
    nothing.backward()
    assert nothing.item() == 0.0
    assert weight.grad is not None and not weight.grad.any()


def test_equal_heads_do_not_diverge_and_others_do() -> None:
    states, weight, wanted, other = heads(6, 9, 1)
    same, differ = token_divergence(states, weight, states.detach(), weight.detach())
    assert same.abs().max() < 1e-12 and not differ.any()
    assert (token_divergence(states, weight, wanted, other)[0] > 0).all()
