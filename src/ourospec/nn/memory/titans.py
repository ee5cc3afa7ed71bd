"""Memory that learns by gradient steps with momentum (Titans: Behrouz, Zhong and Mirrokni 2025, arXiv 2501.00663,
section 3), linear and exact. Letters as in associative.py."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ourospec.nn.memory.associative import Scalars
from ourospec.nn.memory.base import AssociativeConfig, AssociativeMemory, Gates
from ourospec.nn.memory.chunks import Chunks, decays


class TitansMemoryConfig(AssociativeConfig):
    """A memory asked by key whose surprises go on for some tokens."""

    kind: Literal["titans"] = "titans"
    momentum: Annotated[float, Field(gt=0, le=0.7)] = 0.5
    """The greatest η, what a token may leave of the surprise before it. Beyond 0.7 keys that come back in step with
    the momentum can make a memory grow without end."""

    matrices: ClassVar[int] = 2


class TitansMemory(AssociativeMemory):
    """S_t = η_t S_{t−1} − θ_t ∇‖M_{t−1}ᵀ k_t − v_t‖², M_t = (1 − α_t) M_{t−1} + S_t, read as M_tᵀ q_t; both 0 at first.

    1 − α_t = exp(−softplus(w_α·y_t + b_α)), η_t = momentum · σ(w_η·y_t + b_η) and
    2θ_t = write_strength · (1 − η_t) · σ(w_θ·y_t + b_θ), each by head; the gradient's 2 is in β_t = 2θ_t. The factor
    1 − η_t makes a surprise's weights over time add up to what one step would write: without it a momentum of 0.7
    diverges on keys that repeat (tests/nn/memory/test_associative.py).

    What became of a surprise s up to place t is a sum over the place r at which its momentum was taken in,
    Σ_r (Π a over (r, t]) (Π η over (s, r]): the product of two tables of decays. So the form by chunks is exact, and
    no gradient is taken at a stale memory.
    """

    MOMENTUM = 2
    gates: ClassVar[int] = 3

    def __init__(self, width: int, config: TitansMemoryConfig) -> None:
        super().__init__(width, config)
        self.momentum = config.momentum

    def strength(self, gates: Gates) -> Float[Tensor, "B H N C"]:
        """β."""
        return super().strength(gates) * (1 - self.momentum * gates.share(self.MOMENTUM))

    def scalars(self, gates: Gates, chunks: Chunks) -> Scalars:
        """The memory and its momentum; a token looks at the memory before it has faded."""
        log_kept = gates.log_kept(self.FORGET)
        log_moved = gates.log_share(self.MOMENTUM) + math.log(self.momentum) * gates.counted
        same, continues = chunks.kinship()
        # Where nothing counts, no momentum is taken in either.
        fading = decays(log_kept, same) * gates.counted[..., None, :]
        moving = decays(log_moved, same)
        held = fading @ moving
        memory_left = log_kept.cumsum(-1).exp() * continues
        momentum_left = log_moved.cumsum(-1).exp() * continues
        moved_in = (fading @ momentum_left[..., None])[..., 0]
        until = torch.stack([memory_left, moved_in], dim=-1)
        last = (
            until[..., -1, :],
            torch.stack([torch.zeros_like(momentum_left), momentum_left], -1)[..., -1, :],
        )
        left = torch.stack([held[..., -1, :], moving[..., -1, :]], dim=-2)
        seen, before = self._one_earlier(held, until, same, continues)
        return Scalars(seen, before, held, until, left, torch.stack(last, dim=-2))

    @staticmethod
    def _one_earlier(held: Tensor, until: Tensor, same: Tensor, continues: Tensor) -> tuple[Tensor, Tensor]:
        """Tables of the place before, where it is in the same document; before the first place nothing has happened."""
        start = torch.tensor([1.0, 0.0], dtype=until.dtype, device=until.device).expand_as(until[..., :1, :])
        seen = torch.cat([torch.zeros_like(held[..., :1, :]), held[..., :-1, :]], dim=-2) * same
        before = torch.cat([start, until[..., :-1, :]], dim=-2) * continues[..., None]
        return seen, before

    def scalar_flops(self) -> int:
        """The product of the two tables, and its column for the momentum that comes in."""
        return 2 * self.config.chunk * self.config.chunk + 2 * self.config.chunk
