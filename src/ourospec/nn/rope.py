"""Rotary position embedding (Su et al. 2021, arXiv 2104.09864), on all of a head or only its first part."""

import torch
from jaxtyping import Float
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
        self.rotated = int(head_dim * fraction) // 2 * 2
        self.base = base
        self._tables: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def tables(
        self, start: int, length: int, device: torch.device, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "T 1 r"], Float[Tensor, "T 1 r"]]:
        """Cosines and sines of positions start to start + length, r being half the rotated coordinates."""
        end, key = start + length, (device, dtype)
        known = self._tables.get(key)
        if known is None or known[0].shape[0] < end:
            # Grown by doubling, and in float64 on the host, so that late positions keep their phase anywhere.
            positions = torch.arange(max(end, 2 * known[0].shape[0] if known else 0), dtype=torch.float64)
            exponents = torch.arange(0, self.rotated, 2, dtype=torch.float64) / self.rotated
            angles = positions[:, None, None] * self.base**-exponents
            known = self._tables[key] = (angles.cos().to(device, dtype), angles.sin().to(device, dtype))
        return known[0][start:end], known[1][start:end]

    def forward(self, x: Float[Tensor, "B T H d"], start: int = 0) -> Float[Tensor, "B T H d"]:
        """Turn x, whose first position is `start`."""
        if self.rotated == 0:
            return x
        cos, sin = self.tables(start, x.shape[1], x.device, x.dtype)
        return _Rotate.apply(x, cos, sin)  # pyright: ignore[reportReturnType]


class _Rotate(torch.autograd.Function):
    """(a, b) -> (a cos − b sin, b cos + a sin) on the halves of the rotated part; backward turns back."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin, 1.0)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, sin, -1.0), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor, sign: float) -> Tensor:
    half = cos.shape[-1]
    a, b = x[..., :half], x[..., half : 2 * half]
    y = torch.empty_like(x)
    torch.mul(a, cos, out=y[..., :half]).addcmul_(b, sin, value=-sign)
    torch.mul(b, cos, out=y[..., half : 2 * half]).addcmul_(a, sin, value=sign)
    if 2 * half < x.shape[-1]:
        y[..., 2 * half :] = x[..., 2 * half :]
    return y
