"""Rows taken out of a tensor and put back, with backward passes that know where each row came from.

Autograd's own have to reckon with rows that are taken twice, and add what they could write. Where a compiler writes the
backward pass itself, these are the plain steps.

Letters: R rows of a tensor, N of them that are taken.
"""

from __future__ import annotations

import torch
from jaxtyping import Int, Shaped
from torch import Tensor


def select(
    x: Shaped[Tensor, ...], dim: int, index: Int[Tensor, " N"], back: Int[Tensor, " R"] | None = None
) -> Shaped[Tensor, ...]:
    """x.index_select(dim, index).

    Args:
        back: None says that the entries of `index` are distinct. Otherwise entry back[r] of the result is the one that
            counts of x's r-th, and nobody reads the others.
    """
    if torch.compiler.is_compiling():
        return x.index_select(dim, index)
    return _Select.apply(x, dim, index, back)  # pyright: ignore[reportReturnType]


def put(
    x: Shaped[Tensor, ...], dim: int, index: Int[Tensor, " N"], entries: Shaped[Tensor, ...]
) -> Shaped[Tensor, ...]:
    """x.index_copy(dim, index, entries); x itself is written where no gradient needs it as it was."""
    return (x.index_copy if torch.is_grad_enabled() else x.index_copy_)(dim, index, entries)


def narrow(
    rows: Shaped[Tensor, "R ..."], index: Int[Tensor, " N"], left: list[Tensor]
) -> Shaped[Tensor, "N ..."]:
    """rows.index_select(0, index): those that go on and come back to the others by `rejoin`.

    Args:
        left: an empty list that `rejoin` is given as well. In the backward pass it leaves there what reaches the rows
            that stayed, and narrow writes the others over it; autograd would fill two more arrays and add the three.
    """
    if torch.compiler.is_compiling():
        return rows.index_select(0, index)
    return _Narrow.apply(rows, index, left)  # pyright: ignore[reportReturnType]


def rejoin(
    rows: Shaped[Tensor, "R ..."],
    index: Int[Tensor, " N"],
    onward: Shaped[Tensor, "N ..."],
    left: list[Tensor],
) -> Shaped[Tensor, "R ..."]:
    """rows.index_copy(0, index, onward), `onward` having come of `narrow` with the same rows, index and list."""
    if torch.compiler.is_compiling():
        return rows.index_copy(0, index, onward)
    return _Rejoin.apply(rows, index, onward, left)  # pyright: ignore[reportReturnType]


class _Select(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, dim: int, index: Tensor, back: Tensor | None) -> Tensor:
        ctx.save_for_backward(index, back)
        ctx.dim, ctx.size = dim, x.shape[dim]
        return x.index_select(dim, index)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (grad,), (index, back) = grads, ctx.saved_tensors
        if back is not None:
            return grad.index_select(ctx.dim, back), None, None, None
        shape = [*grad.shape]
        shape[ctx.dim] = ctx.size
        return grad.new_zeros(shape).index_copy_(ctx.dim, index, grad), None, None, None


class _Narrow(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor, left: list[Tensor]) -> Tensor:
        ctx.save_for_backward(index)
        ctx.left, ctx.shape = left, rows.shape
        return rows.index_select(0, index)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (grad,), (index,) = grads, ctx.saved_tensors
        # Nothing was left where no loss reads the rows in the end.
        whole = ctx.left.pop() if ctx.left else grad.new_zeros(ctx.shape)
        return whole.index_copy(0, index, grad), None, None


class _Rejoin(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: Tensor, index: Tensor, onward: Tensor, left: list[Tensor]) -> Tensor:
        ctx.save_for_backward(index)
        ctx.left = left
        return rows.index_copy(0, index, onward)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (grad,), (index,) = grads, ctx.saved_tensors
        # Before narrow's turn: all that came of its rows has to have its gradient first.
        ctx.left[:] = [grad]
        return None, None, grad.index_select(0, index), None
