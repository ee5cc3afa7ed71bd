"""Rows taken and put back: the values and the gradients of the plain steps."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ourospec.nn.gather import narrow, rejoin, select


@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 999), st.booleans())
def test_narrowed_twice_and_rejoined(size, width, seed, twice):
    generator = torch.Generator().manual_seed(seed)
    found, wanted = (_there_and_back(own, size, width, generator, twice) for own in (True, False))
    for mine, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-15)


def _there_and_back(own, size, width, generator, twice):
    """The result and the gradient of a loss that sees it and what was computed on the way, by own or plain steps."""
    generator.manual_seed(7)
    rows = torch.randn(size, width, dtype=torch.float64, generator=generator).requires_grad_()
    x, behind = rows * 1.5, []
    for _ in range(1 + twice):
        index = (torch.rand(len(x), generator=generator) < 0.6).nonzero()[:, 0]
        left = []
        behind.append((x, index, left))
        x = (narrow(x, index, left) if own else x.index_select(0, index)).sin()
    loss = x.square().sum()
    for stayed, index, left in reversed(behind):
        x = rejoin(stayed, index, x, left) if own else stayed.index_copy(0, index, x)
    weights = torch.linspace(1, 2, x.numel(), dtype=x.dtype).view(x.shape)
    (loss + (x * weights).sum()).backward()
    return x.detach(), rows.grad


def test_a_loss_that_sees_only_those_who_went_on():
    rows = torch.ones(4, 2, requires_grad=True)
    left, index = [], torch.tensor([1, 3])
    onward = narrow(rows, index, left)
    rejoin(rows, index, onward * 2, left)
    onward.sum().backward()
    assert rows.grad.tolist() == [[0, 0], [1, 1], [0, 0], [1, 1]]


def test_a_second_backward_pass_over_the_same_graph_adds_the_same():
    rows = torch.randn(4, 2, requires_grad=True)
    left, index = [], torch.tensor([0, 2])
    loss = rejoin(rows, index, narrow(rows, index, left) * 3, left).sum()
    loss.backward(retain_graph=True)
    once = rows.grad.clone()
    loss.backward()
    torch.testing.assert_close(rows.grad, 2 * once)
    assert once[:, 0].tolist() == [3, 1, 3, 1]


@pytest.mark.parametrize("dim", [0, 1])
def test_select_of_distinct_entries_and_of_such_that_repeat(dim):
    x = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)
    distinct = torch.tensor([4, 0, 2])
    assert torch.autograd.gradcheck(lambda x: select(x, dim, distinct), x)
    # Entries 1 and 3 repeat the first, and nobody reads them.
    index, back = torch.tensor([0, 0, 1, 0, 2, 3, 4]), torch.tensor([0, 2, 4, 5, 6])
    read = torch.zeros(7, dtype=torch.float64).index_fill(0, back, 1)
    read = read[:, None] if dim == 0 else read
    assert torch.autograd.gradcheck(lambda x: select(x, dim, index, back) * read, x)
