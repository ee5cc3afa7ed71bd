"""Causal attention by plain matrix products, with its backward pass by hand.

For half precision on a CPU, where the flash kernel's backward pass is slow (figures: benchmarks/attention.py). The
weights of a block of queries are computed against the keys up to that block's end, so the upper triangle is never
touched; they are kept for the backward pass, which costs B·H·T·T/2 elements of memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Blocks = Sequence[tuple[slice, slice]]
"""Runs of queries, each with the keys that it needs to be multiplied with."""


def matmul_attention(
    queries: Float[Tensor, "B H T d"],
    keys: Float[Tensor, "B H S d"],
    values: Float[Tensor, "B H S d"],
    bias: Float[Tensor, "b 1 T S"] | None,
    blocks: Blocks,
) -> Float[Tensor, "B H T d"]:
    """softmax(q kᵀ/√d + bias) v.

    Args:
        bias: 0 or −inf. None: all keys of a block are allowed.
        blocks: cover all queries; keys outside a block's are those that the bias forbids all its queries.
    """
    sums = sums_of(keys, values)
    return _MatmulAttention.apply(queries, keys, values, bias, blocks, sums)  # pyright: ignore[reportReturnType]


def share(
    keys: Float[Tensor, "B H S d"], values: Float[Tensor, "B H S d"]
) -> tuple[Float[Tensor, "B H S d"], Float[Tensor, "B H S d"]]:
    """The same keys and values, for several calls to read: these add up their gradients in one pair of arrays.

    Left to itself, autograd has each call fill a pair of its own and adds them, which takes a tenth of the time of the
    calls. A gradient that is asked of what this returns is not whole: ask of what went in.
    """
    if not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return keys, values
    return _Share.apply(keys, values)  # pyright: ignore[reportReturnType]


def sums_of(keys: Tensor, values: Tensor) -> list[Tensor] | None:
    """Where a reader of these finds and leaves the sums of their gradients; None where nobody shares them."""
    shared = keys.grad_fn if keys.grad_fn is values.grad_fn else None
    return getattr(shared, "sums", None)


class _Share(torch.autograd.Function):
    """Runs backward when all readers have run, each of which has added to `sums` or given a gradient as usual."""

    @staticmethod
    def forward(ctx, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        ctx.sums = []
        return keys.view_as(keys), values.view_as(values)

    @staticmethod
    def backward(ctx, *grads: Tensor | None):
        sums = [*ctx.sums] or [None, None]
        ctx.sums.clear()
        return tuple(
            given if added is None else added if given is None else added + given
            for added, given in zip(sums, grads, strict=True)
        )


def _rows(x: Tensor) -> Tensor:
    """[B, H, T, d] -> [H·B, T, d], free of charge where heads lie first in memory (rope.py)."""
    return x.transpose(0, 1).reshape(-1, *x.shape[2:])


class _MatmulAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        bias: Tensor | None,
        blocks: Blocks,
        sums: list[Tensor] | None,
    ) -> Tensor:
        rows, heads = queries.shape[:2]
        scale = queries.shape[-1] ** -0.5
        q, k, v = _rows(queries) * scale, _rows(keys), _rows(values)
        mixed, kept = torch.empty_like(q), []
        for part, seen in blocks:
            scores = torch.bmm(q[:, part], k[:, seen].transpose(1, 2))
            if bias is not None:
                scores.unflatten(0, (heads, rows)).add_(bias[:, 0, part, seen])
            weights = torch.softmax(scores, dim=-1)
            mixed[:, part] = torch.bmm(weights, v[:, seen])
            kept.append(weights)
        ctx.save_for_backward(q, k, v, *kept)
        ctx.scale, ctx.layout, ctx.blocks, ctx.sums = scale, (heads, rows), blocks, sums
        return mixed.unflatten(0, (heads, rows)).transpose(0, 1)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        q, k, v, *kept = ctx.saved_tensors
        grad = _rows(grads[0])
        # Where another reader of these keys and values has been before, this one adds to what it found.
        first = not ctx.sums
        grad_q = torch.empty_like(q)
        grad_k, grad_v = (torch.empty_like(k), torch.empty_like(v)) if first else (_rows(x) for x in ctx.sums)
        # The last block sees most keys: it writes where the others add, and nothing but what it leaves is zeroed.
        for (part, seen), weights in reversed(list(zip(ctx.blocks, kept, strict=True))):
            grad_weights = torch.bmm(grad[:, part], v[:, seen].transpose(1, 2))
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
            grad_q[:, part] = torch.bmm(grad_scores, k[:, seen])
            pairs = ((grad_k, grad_scores, q), (grad_v, weights, grad))
            for total, left, right in pairs:
                here = total[:, seen]
                here.baddbmm_(left.transpose(1, 2), right[:, part], beta=0 if first else 1)
                if first and here.shape != total.shape:
                    total[:, here.shape[1] :] = 0
            first = False
        grad_q.mul_(ctx.scale)
        back_q, *backs = (x.unflatten(0, ctx.layout).transpose(0, 1) for x in (grad_q, grad_k, grad_v))
        if ctx.sums is None:
            return (back_q, *backs, None, None, None)
        ctx.sums[:] = backs
        return (back_q, *(None,) * 5)
