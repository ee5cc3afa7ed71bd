"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), on all of a head or only its first part.

Letters: B rows, T positions, N heads, d width of a head, r half of the coordinates that are turned.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Rotary(nn.Module):
    """Turns pairs of coordinates by position: for pair i at position t the angle is t · base^(-2i/d).

    Args:
        head_dim: coordinates of a head; the first round(head_dim · fraction) of them, made even, are turned.
        fraction: 1 turns everything, 0 nothing (positions then reach the model by its masks alone).
        base: the longest wavelength is about 2π·base positions.
    """

    def __init__(self, head_dim: int, fraction: float = 1.0, base: float = 10_000.0) -> None:
        super().__init__()
        self.rotated = round(head_dim * fraction) // 2 * 2
        self.base = base
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def tables(
        self, end: int, device: torch.device, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "S 1 r"], Float[Tensor, "S 1 r"]]:
        """Cosines and sines of positions 0 to `end` at least."""
        key = (device, dtype)
        known = self._tables.get(key)
        if known is None or known[0].shape[0] < end:
            # Grown by doubling, and in float64 on the host, so that late positions keep their phase anywhere.
            positions = torch.arange(max(end, 2 * known[0].shape[0] if known else 0), dtype=torch.float64)
            exponents = torch.arange(0, self.rotated, 2, dtype=torch.float64) / max(self.rotated, 1)
            angles = positions[:, None, None] * self.base**-exponents
            known = self._tables[key] = (angles.cos().to(dtype).to(device), angles.sin().to(dtype).to(device))
        return known

    def forward(
        self, x: Float[Tensor, "B T N d"], turned: int, positions: slice | Int[Tensor, "*rows T"], end: int
    ) -> tuple[Float[Tensor, "B turned T d"], Float[Tensor, "B rest T d"]]:
        """The first `turned` heads turned and the others as they are, both with heads before positions.

        Args:
            positions: of x, for all rows or by row.
            end: beyond the largest of them, known to the host.
        """
        cos, sin = (table[positions] for table in self.tables(end, x.device, x.dtype))
        if torch.compiler.is_compiling():
            return _split_heads(x, cos, sin, turned)
        first, rest = _SplitHeads.apply(x, cos, sin, turned)  # pyright: ignore[reportGeneralTypeIssues]
        return first.transpose(0, 1), rest.transpose(0, 1)


class _SplitHeads(torch.autograd.Function):
    """[B, T, N, d] -> [turned, B, T, d], [N − turned, B, T, d], each contiguous: turn, split and transpose in one go.

    Heads come first so that any run of them is one block of memory, which batched matrix products want. As
    separate steps, autograd's backward would copy every gradient three times.
    """

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> tuple[Tensor, Tensor]:
        rows, length, heads, width = x.shape
        first = x.new_empty(turned, rows, length, width)
        rest = x.new_empty(heads - turned, rows, length, width)
        _turn(x[:, :, :turned], first.permute(1, 2, 0, 3), cos, sin, 1.0)
        rest.permute(1, 2, 0, 3).copy_(x[:, :, turned:])
        ctx.save_for_backward(cos, sin)
        return first, rest

    @staticmethod
    def backward(ctx, *grads: Tensor):
        first, rest = grads
        cos, sin = ctx.saved_tensors
        turned, rows, length, width = first.shape
        grad = first.new_empty(rows, length, turned + rest.shape[0], width)
        _turn(first.permute(1, 2, 0, 3), grad[:, :, :turned], cos, sin, -1.0)
        grad[:, :, turned:].copy_(rest.permute(1, 2, 0, 3))
        return grad, None, None, None


def _split_heads(x: Tensor, cos: Tensor, sin: Tensor, turned: int) -> tuple[Tensor, Tensor]:
    """The same in plain steps, which a compiler fuses by itself; writing into slices would lead it astray."""
    half = cos.shape[-1]
    a, b, kept = x[:, :, :turned].split((half, half, x.shape[-1] - 2 * half), dim=-1)
    first = torch.cat([a * cos - b * sin, b * cos + a * sin, kept], dim=-1)
    return first.transpose(1, 2), x[:, :, turned:].transpose(1, 2)


def _turn(x: Tensor, out: Tensor, cos: Tensor, sin: Tensor, sign: float) -> None:
    """out = (a cos − b sin, b cos + a sin) of the halves of the turned part, and the rest of x."""
    half = cos.shape[-1]
    a, b = x[..., :half], x[..., half : 2 * half]
    torch.mul(a, cos, out=out[..., :half]).addcmul_(b, sin, value=-sign)
    torch.mul(b, cos, out=out[..., half : 2 * half]).addcmul_(a, sin, value=sign)
    if 2 * half < x.shape[-1]:
        out[..., 2 * half :] = x[..., 2 * half :]
