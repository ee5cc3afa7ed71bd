"""Causal attention in machine code, of ragged queries too: rows of a batch have some queries each, and none is padded.

torch has no kernel for ragged queries on a CPU: without one all rows are padded to the longest and every query is
multiplied with every key. With all queries of all rows it is torch's own kernels' peer, and faster (figures:
benchmarks/attention.py).

Letters: B rows, H query heads, G key-value heads, S key positions, d width of a head, N queries of all rows.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from ourospec.errors import ResourceError
from ourospec.nn.matmul_attention import sums_of
from ourospec.nn.ragged.build import WIDTHS, Gradients, Problem, can_build, kernel


class Spans(NamedTuple):
    """Who stands where, and the keys that each sees: first to end, its own position among them.

    starts: [B + 1], each row's first query, and N.
    first, end: [N], positions; in a row, ends ascend.
    """

    starts: Int32[Tensor, " B1"]
    first: Int32[Tensor, " N"]
    end: Int32[Tensor, " N"]


_ALLOWED = contextvars.ContextVar("_ALLOWED", default=True)


@contextlib.contextmanager
def torch_only() -> Iterator[None]:
    """Do without the kernel for a while; for tests and benchmarks."""
    token = _ALLOWED.set(False)
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def knows(queries: Float[Tensor, "*rows d"], keys: Float[Tensor, "B G S d"]) -> bool:
    """Whether the kernel can take these, here."""
    dtype = queries.dtype
    if torch.compiler.is_compiling() or queries.device.type != "cpu" or dtype not in WIDTHS:
        return False
    if not _ALLOWED.get():
        return False
    return keys.dtype == dtype and queries.shape[-1] % WIDTHS[dtype] == 0 and kernel(dtype) is not None


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
    sums = sums_of(keys, values)
    return _RaggedAttention.apply(queries, keys, values, spans, sums)  # pyright: ignore[reportReturnType]


class _RaggedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, queries: Tensor, keys: Tensor, values: Tensor, spans: Spans, sums: list[Tensor] | None
    ) -> Tensor:
        queries = queries.contiguous()
        if keys.stride() != values.stride() or keys.stride(-1) != 1:
            keys, values = keys.contiguous(), values.contiguous()
        operands = queries, keys, values, *spans
        out, lse = torch.ops.ourospec.ragged_attention(*operands)
        ctx.save_for_backward(*operands, out, lse)
        ctx.sums = sums
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, *grads: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        operands = ctx.saved_tensors
        grad_q, (rows, groups, length, width) = torch.empty_like(operands[0]), operands[1].shape
        add = bool(ctx.sums)
        # Heads first in memory, as the readers of the shared arrays have them.
        grad_k, grad_v = (
            ctx.sums
            if add
            else (grad_q.new_empty(groups, rows, length, width).transpose(0, 1) for _ in range(2))
        )
        grad = grads[0].contiguous()
        torch.ops.ourospec.ragged_attention_backward(grad, *operands, grad_q, grad_k, grad_v, add)
        if ctx.sums is None:
            return grad_q, grad_k, grad_v, None, None
        ctx.sums[:] = grad_k, grad_v
        return grad_q, None, None, None, None


# As operators of torch's, the kernel's calls are seen by what counts FLOPs and by the profiler.
_OPERATORS = torch.library.Library("ourospec", "DEF")
_OPERANDS = "Tensor queries, Tensor keys, Tensor values, Tensor starts, Tensor first, Tensor end"
_OPERATORS.define(f"ragged_attention({_OPERANDS}) -> (Tensor, Tensor)")
_OPERATORS.define(
    f"ragged_attention_backward(Tensor grad, {_OPERANDS}, Tensor out, Tensor lse, Tensor(a!) grad_q, "
    "Tensor(b!) grad_k, Tensor(c!) grad_v, bool add) -> ()"
)


def _forward(queries: Tensor, keys: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
    heads, count, width = queries.shape
    out = queries.new_empty(count, heads * width)
    lse = queries.new_empty(heads, count, dtype=torch.float32)
    _run("forward", queries.dtype, _problem([queries, keys, *others, out, lse]))
    return out, lse


def _backward(grad: Tensor, *others: Any) -> None:
    *operands, grad_q, grad_k, grad_v, add = others
    pointers = (x.data_ptr() for x in (grad, grad_q, grad_k, grad_v))
    gradients = Gradients(*pointers, *grad_k.stride()[:3], add)
    _run("backward", grad.dtype, _problem(operands), gradients)


_OPERATORS.impl("ragged_attention", _forward, "CPU")
_OPERATORS.impl("ragged_attention_backward", _backward, "CPU")


def _problem(operands: Sequence[Tensor]) -> Problem:
    queries, keys, values, starts, first, end, out, lse = operands
    heads, count, width = queries.shape
    rows, groups, length, _ = keys.shape
    inputs = (x.data_ptr() for x in (starts, first, end, queries, keys, values))
    sizes, scale = (rows, heads, groups, length, width, count), width**-0.5
    return Problem(*sizes, *inputs, *keys.stride()[:3], scale, out.data_ptr(), lse.data_ptr())


def _run(name: str, dtype: torch.dtype, *arguments: ctypes.Structure) -> None:
    function = getattr(kernel(dtype), name)
    if function(*(ctypes.byref(argument) for argument in arguments), torch.get_num_threads()):
        raise ResourceError(
            "There is no memory left for attention's logits.", "Use shorter rows, or fewer threads."
        )


def _forward_flops(queries: Sequence[int], keys: Sequence[int], *_, **__) -> int:
    """Q·Kᵀ and P·V over all pairs, as of torch's own kernels; hidden ones are in fact left out."""
    return 4 * math.prod(queries) * keys[2]


def _backward_flops(_: Sequence[int], queries: Sequence[int], keys: Sequence[int], *__, **___) -> int:
    """The logits anew, dP, dV, dQ and dK."""
    return 10 * math.prod(queries) * keys[2]


_FORWARD, _BACKWARD = torch.ops.ourospec.ragged_attention, torch.ops.ourospec.ragged_attention_backward
FLOPS = {
    _FORWARD: register_flop_formula(_FORWARD)(_forward_flops),
    _BACKWARD: register_flop_formula(_BACKWARD)(_backward_flops),
}
"""Operator -> FLOPs of its arguments; torch's counter knows them too."""

__all__ = ["FLOPS", "WIDTHS", "Spans", "can_build", "kernel", "knows", "ragged_attention", "torch_only"]
