"""Root-mean-square normalisation (Zhang and Sennrich 2019, arXiv 1910.07467)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x²) + eps) · gain, over the last dimension.

    The mean square is taken in at least float32 whatever the input's type; under autocast the result comes
    back in the autocast type, which is what the matrix product that reads it wants.
    """

    def __init__(self, width: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))
        self.eps = eps

    def wide(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        """The same in the type of x even under autocast: for what enters the residual stream."""
        if torch.compiler.is_compiling():
            return _normalise(x, self.gain, self.eps, x.dtype)
        return _RMSNorm.apply(x, self.gain, self.eps, x.dtype)  # pyright: ignore[reportReturnType]

    def forward(
        self, x: Float[Tensor, "*rows D"], further: Float[Tensor, " D"] | None = None
    ) -> Float[Tensor, "*rows D"]:
        """y, with `further` gains times the own ones where such are given."""
        kind = x.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        gain = self.gain if further is None else self.gain * further
        if torch.compiler.is_compiling():
            return _normalise(x, gain, self.eps, dtype)
        return _RMSNorm.apply(x, gain, self.eps, dtype)  # pyright: ignore[reportReturnType]


def _normalise(x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """In plain steps, which a compiler fuses by itself."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    unit = wide * (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    return unit.to(dtype) * gain.to(dtype)


class _RMSNorm(torch.autograd.Function):
    """The same, with its backward pass by hand: autograd's chain reads and writes the rows twice as often."""

    @staticmethod
    def forward(ctx, x: Tensor, gain: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=wide)
        scale = (norm.square_().div_(x.shape[-1]).add_(eps)).rsqrt_()
        unit = (x * scale).to(dtype)
        ctx.save_for_backward(unit, gain, scale)
        ctx.input_dtype = x.dtype
        return unit * gain.to(dtype)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        # With u = x·r and r = (mean x² + eps)^-½:  dx = r (g·w − u · mean(g·w·u)),  dw = Σ g·u.
        (grad,) = grads
        unit, gain, scale = ctx.saved_tensors
        width = unit.shape[-1]
        through = grad * unit
        grad_gain = through.reshape(-1, width).sum(0, dtype=gain.dtype)
        mean = (through @ gain.to(through.dtype)).div_(width).unsqueeze(-1)
        inner = torch.addcmul(grad * gain.to(grad.dtype), unit, mean, value=-1)
        return inner.to(scale.dtype).mul_(scale).to(ctx.input_dtype), grad_gain, None, None
