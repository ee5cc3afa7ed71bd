"""Memory as a gate (MAG): how much of each coordinate comes from a branch and how much from memory.

Letters: B rows, T positions, D model width.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.nn.norm import RMSNorm


class NormalisedGateConfig(Config):
    """Both branches are normalised, each by learned gains, and y is preferred in the beginning."""

    kind: Literal["normalised"] = "normalised"
    hidden: Annotated[int, Field(ge=1)] = 128
    """Inner width of the gate's network."""
    bias: float = 2.0
    """Of the gate's output in the beginning: 2 makes the share of y about 0.88. With 0 half of y would be thrown away
    before the memory has learned anything."""


class SeedGateConfig(Config):
    """As Cognate phase 1 has it: branches as they come, no preference."""

    kind: Literal["seed"] = "seed"
    hidden: Annotated[int, Field(ge=1)] = 128
    """Inner width of the gate's network."""


MemoryGateConfig = Annotated[NormalisedGateConfig | SeedGateConfig, Field(discriminator="kind")]


class Mixed(NamedTuple):
    """What the gate made of two branches."""

    states: Tensor
    """[B, T, D]."""
    share: Tensor
    """[B, T, D], g: 1 where all is y; float32 at least."""
    entropy: Tensor
    """[B, T], the mean over coordinates of H(g) = −g ln g − (1 − g) ln (1 − g), in nats. An objective that subtracts
    a little of it keeps the gate from closing on one branch."""


class MemoryGate(nn.Module):
    """g = σ(W₂ relu(W₁ [ŷ; m̂] + b₁) + b₂), out = g ⊙ ŷ + (1 − g) ⊙ m̂.

    ŷ and m̂ are the branches, normalised or as they come (Titans, arXiv 2501.00663, section 4.2 normalises both by
    learned vectors). 2·D·h + h + h·D + D parameters, and 2·D gains where branches are normalised.
    """

    def __init__(self, width: int, config: MemoryGateConfig) -> None:
        super().__init__()
        normalised = isinstance(config, NormalisedGateConfig)
        self.bias = config.bias if isinstance(config, NormalisedGateConfig) else 0.0
        self.y_norm = RMSNorm(width) if normalised else None
        self.memory_norm = RMSNorm(width) if normalised else None
        self.hidden = nn.Linear(2 * width, config.hidden)
        self.output = nn.Linear(config.hidden, width)

    def init_parameters(self) -> None:
        """Called by nn.init."""
        self.output.bias.fill_(self.bias)

    def forward(self, y: Float[Tensor, "B T D"], m: Float[Tensor, "B T D"]) -> Mixed:
        if self.y_norm is not None and self.memory_norm is not None:
            y, m = self.y_norm.wide(y), self.memory_norm.wide(m)
        wide = torch.promote_types(y.dtype, torch.float32)
        logits = self.output(self.hidden(torch.cat([y, m.to(y.dtype)], dim=-1)).relu()).to(wide)
        share = logits.sigmoid()
        # Of the logit, so that a closed gate has an entropy of 0 and not of 0 · ∞.
        entropy = F.softplus(logits) - logits * share
        return Mixed(torch.lerp(m.to(wide), y.to(wide), share).to(y.dtype), share, entropy.mean(-1))
