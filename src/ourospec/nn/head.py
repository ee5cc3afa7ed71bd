"""The output head of a language model: the final norm, and the rows that states are compared with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ourospec.nn.cross_entropy import (
    linear_cross_entropy,
    linear_cross_entropy_by_row,
    linear_divergence,
    token_divergence,
    token_nll_and_entropy,
)
from ourospec.nn.norm import RMSNorm


class Head(nn.Module):
    """logits = W · RMSNorm(h), W being its own or the embedding's table (Press and Wolf 2017).

    Args:
        tied: the embedding whose table serves as W, or None for rows of its own.
        normalised: whether states are normalised here; not where a model hands on normalised ones.
    """

    def __init__(
        self, width: int, vocab_size: int, tied: nn.Embedding | None = None, normalised: bool = True
    ) -> None:
        super().__init__()
        self.norm = RMSNorm(width) if normalised else nn.Identity()
        self.rows = tied if tied is not None else nn.Embedding(vocab_size, width)

    def loss(self, states: Float[Tensor, "B T D"], targets: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        """Σ −ln p(target) over the targets that are at least 0, in nats; states come after the norm."""
        return linear_cross_entropy(states.flatten(0, 1), self.rows.weight, targets.flatten())

    def loss_by_row(
        self, states: Float[Tensor, "N D"], targets: Int[Tensor, " N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " N"], Bool[Tensor, " N"]]:
        """As `loss`; and, without gradients, −ln p(target) of each row, and whether its likeliest token is right."""
        return linear_cross_entropy_by_row(states, self.rows.weight, targets)

    def judge(
        self, states: Float[Tensor, "B T D"], targets: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """Of each position, without gradients: −ln p(target), 0 where the target is below 0, and the entropy of p."""
        nll, entropy = token_nll_and_entropy(states.flatten(0, 1), self.rows.weight, targets.flatten())
        return nll.view(targets.shape), entropy.view(targets.shape)

    def divergence(
        self, states: Float[Tensor, "N D"], wanted: Float[Tensor, "N E"], teacher: Head
    ) -> Float[Tensor, ""]:
        """Σ KL(teacher ‖ self) in nats, the teacher's head reading `wanted`; gradients go to this side alone."""
        return linear_divergence(states, self.rows.weight, wanted, teacher.rows.weight)

    def differences(
        self, states: Float[Tensor, "N D"], others: Float[Tensor, "N D"]
    ) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
        """Of each row, without gradients: KL(p of `others` ‖ p of `states`); whether the likeliest tokens differ."""
        return token_divergence(states, self.rows.weight, others, self.rows.weight)

    def logits(self, states: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        """In at least float32."""
        logits = F.linear(states, self.rows.weight)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def flops_per_row(self) -> int:
        """The product with W, for one position."""
        return 2 * self.rows.weight.numel()
