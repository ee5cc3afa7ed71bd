"""The position-wise networks of a block: SwiGLU (Shazeer 2020, arXiv 2002.05202) and the GELU pair."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ourospec.nn.init import mark_joint, mark_residual

Activation = Literal["swiglu", "gelu"]


class SwiGLU(nn.Module):
    """down(silu(gate x) ⊙ up x), without biases; gate and up are one matrix product."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_up = mark_joint(nn.Linear(width, 2 * hidden, bias=False), hidden, hidden)
        self.down = mark_residual(nn.Linear(hidden, width, bias=False))

    def forward(self, x: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows D"]:
        joint = self.gate_up(x)
        if torch.compiler.is_compiling():
            gate, up = joint.chunk(2, dim=-1)
            return self.down(F.silu(gate) * up)
        return self.down(_Gate.apply(joint))


class _Gate(torch.autograd.Function):
    """silu(a) ⊙ b on the halves of the last dimension, the gradients of both written into one buffer."""

    @staticmethod
    def forward(ctx, joint: Tensor) -> Tensor:
        gate, up = joint.chunk(2, dim=-1)
        opened = F.silu(gate)
        ctx.save_for_backward(joint, opened)
        return opened * up

    @staticmethod
    def backward(ctx, *grads: Tensor):
        joint, opened = ctx.saved_tensors
        gate, up = joint.chunk(2, dim=-1)
        grad = torch.empty_like(joint)
        grad_gate, grad_up = grad.chunk(2, dim=-1)
        torch.mul(grads[0], opened, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grads[0] * up, gate, grad_input=grad_gate)
        return grad


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
