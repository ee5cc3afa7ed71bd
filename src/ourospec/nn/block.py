"""The plain pre-norm block of a decoder. Letters: B rows, T positions, D width."""

from __future__ import annotations

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ourospec.nn.attention import Attention, AttentionConfig
from ourospec.nn.cache import Cache
from ourospec.nn.cost import matmul_flops
from ourospec.nn.mlp import Activation, build_mlp
from ourospec.nn.norm import RMSNorm
from ourospec.nn.visibility import Visibility


class Block(nn.Module):
    """x ← x + Attention(norm x); x ← x + MLP(norm x).

    Args:
        dropout: share of each branch's coordinates that training leaves out.
    """

    def __init__(
        self,
        width: int,
        attention: AttentionConfig,
        mlp_hidden: int,
        activation: Activation,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, attention)
        self.mlp = build_mlp(activation, width, mlp_hidden)
        self.dropout = dropout

    def forward(
        self, x: Float[Tensor, "B T D"], visibility: Visibility, cache: tuple[Cache, int] | None = None
    ) -> Float[Tensor, "B T D"]:
        queries, kv = self.attention.project(self.attention_norm(x), visibility)
        if cache is not None:
            kv = cache[0].extend(cache[1], kv)
        x = x + self._thinned(self.attention.attend(queries, kv, visibility))
        return x + self._thinned(self.mlp(self.mlp_norm(x)))

    def _thinned(self, branch: Tensor) -> Tensor:
        return F.dropout(branch, self.dropout, self.training) if self.dropout else branch

    def pass_flops(self, context: float) -> float:
        """FLOPs per token with `context` visible keys."""
        return self.attention.pass_flops(context, with_keys=True) + matmul_flops(self.mlp)
