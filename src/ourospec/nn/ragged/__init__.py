"""Attention of ragged queries, in machine code: rows of a batch have some queries each, and no row is padded.

torch has no such kernel for a CPU: without it all rows are padded to the longest, every query is multiplied with every
key, and the products of so few queries are slow (benchmarks/attention.py).

Letters: B rows, H query heads, G key-value heads, S key positions, d width of a head, N queries of all rows.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor

from ourospec.errors import ResourceError
from ourospec.nn.ragged.build import WIDTHS, Gradients, Problem, can_build, kernel


class Spans(NamedTuple):
    """Who stands where, and the keys that each sees: first to end, its own position among them.

    starts: [B + 1], each row's first query, and N.
    first, end: [N], positions; in a row, ends ascend.
    """

    starts: Int32[Tensor, " B1"]
    first: Int32[Tensor, " N"]
    end: Int32[Tensor, " N"]


def knows(queries: Float[Tensor, "1 H N d"]) -> bool:
    """Whether the kernel can take these, here."""
    if torch.compiler.is_compiling() or queries.device.type != "cpu" or queries.dtype not in WIDTHS:
        return False
    return queries.shape[-1] % WIDTHS[queries.dtype] == 0 and kernel(queries.dtype) is not None


def ragged_attention(
    queries: Float[Tensor, "H N d"],
    keys: Float[Tensor, "B G S d"],
    values: Float[Tensor, "B G S d"],
    spans: Spans,
) -> Float[Tensor, "N D"]:
    """softmax(q kᵀ/√d) v over each query's keys, heads side by side.

    Where keys and values came of `matmul_attention.share`, their gradients go to its arrays.

    Raises:
        ResourceError: there is no memory for the logits of 32 queries.
    """
    shared = keys.grad_fn if keys.grad_fn is values.grad_fn else None
    sums = getattr(shared, "sums", None)
    return _RaggedAttention.apply(queries, keys, values, *spans, sums)  # pyright: ignore[reportReturnType]


class _RaggedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        starts: Tensor,
        first: Tensor,
        end: Tensor,
        sums: list[Tensor] | None,
    ) -> Tensor:
        queries = queries.contiguous()
        if keys.stride() != values.stride() or keys.stride(-1) != 1:
            keys, values = keys.contiguous(), values.contiguous()
        heads, count, width = queries.shape
        out = queries.new_empty(count, heads * width)
        lse = queries.new_empty(heads, count, dtype=torch.float32)
        operands = (queries, keys, values, starts, first, end, out, lse)
        _run("forward", queries.dtype, _problem(*operands))
        ctx.save_for_backward(*operands)
        ctx.sums = sums
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        grad, operands = grads[0].contiguous(), ctx.saved_tensors
        queries, keys = operands[:2]
        grad_q, add = torch.empty_like(queries), bool(ctx.sums)
        # Heads first in memory, as the readers of the shared arrays have them.
        rows, groups, length, width = keys.shape
        grad_k, grad_v = (
            ctx.sums
            if add
            else (keys.new_empty(groups, rows, length, width).transpose(0, 1) for _ in range(2))
        )
        pointers = (x.data_ptr() for x in (grad, grad_q, grad_k, grad_v))
        _run("backward", queries.dtype, _problem(*operands), Gradients(*pointers, *grad_k.stride()[:3], add))
        if ctx.sums is None:
            return grad_q, grad_k, grad_v, None, None, None, None
        ctx.sums[:] = grad_k, grad_v
        return (grad_q, *(None,) * 6)


def _problem(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    starts: Tensor,
    first: Tensor,
    end: Tensor,
    out: Tensor,
    lse: Tensor,
) -> Problem:
    heads, count, width = queries.shape
    rows, groups, length = keys.shape[:3]
    inputs = (x.data_ptr() for x in (starts, first, end, queries, keys, values))
    scale = width**-0.5
    sizes = rows, heads, groups, length, width, count
    return Problem(*sizes, *inputs, *keys.stride()[:3], scale, out.data_ptr(), lse.data_ptr())


def _run(name: str, dtype: torch.dtype, *arguments: ctypes.Structure) -> None:
    function = getattr(kernel(dtype), name)
    if function(*(ctypes.byref(argument) for argument in arguments), torch.get_num_threads()):
        raise ResourceError(
            "There is no memory left for attention's logits.", "Use shorter rows, or fewer threads."
        )


__all__ = ["WIDTHS", "Spans", "can_build", "kernel", "knows", "ragged_attention"]
