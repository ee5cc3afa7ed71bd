"""The position-wise networks of a block: SwiGLU (Shazeer 2020, arXiv 2002.05202) and the GELU pair."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ourospec.nn.init import mark_residual

Activation = Literal["swiglu", "gelu"]


class SwiGLU(nn.Module):
    """down(silu(gate x) ⊙ up x), without biases; gate and up are one matrix product."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * hidden, bias=False)
        self.down = mark_residual(nn.Linear(hidden, width, bias=False))

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * up)


class GELU(nn.Module):
    """down(gelu(up x)), without biases, with the exact Gaussian error linear unit."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = mark_residual(nn.Linear(hidden, width, bias=False))

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        return self.down(F.gelu(self.up(x)))


def build_mlp(activation: Activation, width: int, hidden: int) -> nn.Module:
    """One of the two, by name."""
    return SwiGLU(width, hidden) if activation == "swiglu" else GELU(width, hidden)
