"""The document's SpacingMDN: a small GPT over spacings, with or without registers (E0 to E4).

Letters: B rows, T spacings of the past, M registers, S = T + M positions, D width, K components.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.data.spacings import Series
from ourospec.errors import ConfigError
from ourospec.families.spacing_mdn.densities import Densities
from ourospec.families.spacing_mdn.proxies import ProxyReadout, ProxyTask
from ourospec.families.spacing_mdn.registers import (
    Ablation,
    AnonymousRegisters,
    NoRegisters,
    PostfixRegisters,
    PrefixRegisters,
    RegisterConfig,
    Registers,
)
from ourospec.nn.attention import Attention, AttentionConfig
from ourospec.nn.cost import ModelCost, matmul_flops
from ourospec.nn.init import initialise, mark_by_entry
from ourospec.nn.mixture import MixtureHead, MixtureTensors
from ourospec.nn.mlp import build_mlp
from ourospec.nn.visibility import Visibility

TYPICAL_LOG_DENSITY = 11.0
"""ln(t/2π) in the middle of what is learnt from; taken off the height before it is read."""


class TransformerConfig(Config):
    """The shape of the document's model."""

    kind: Literal["transformer"] = "transformer"
    """Which model."""
    width: Annotated[int, Field(ge=8)] = 256
    """D."""
    layers: Annotated[int, Field(ge=1)] = 6
    """Blocks."""
    heads: Annotated[int, Field(ge=1)] = 8
    """Of attention."""
    mlp_hidden: Annotated[int, Field(ge=1)] = 1_024
    """Inner width of the position-wise network."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the entries of embeddings and of each branch that are left out in training."""
    components: Annotated[int, Field(ge=1)] = 8
    """K."""
    context: Annotated[int, Field(ge=2)] = 256
    """Spacings that can be read at once."""
    inputs: Literal["spacing", "height", "gap"] = "spacing"
    """What is read of each spacing: itself; and ln(t/2π) at its upper zero; or and the gap before unfolding."""
    registers: RegisterConfig = NoRegisters()
    """Memory, and where it stands."""


class Block(nn.Module):
    """x ← x + Attention(norm x); x ← x + MLP(norm x), layer norms first and no biases in the matrices."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = (nn.LayerNorm(config.width, bias=False) for _ in range(2))
        # Positions are learned vectors here, so nothing is turned.
        self.attention = Attention(config.width, AttentionConfig(heads=config.heads, rotary_fraction=0.0))
        self.mlp = build_mlp("gelu", config.width, config.mlp_hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Float[Tensor, "B S D"], visibility: Visibility) -> Float[Tensor, "B S D"]:
        x = x + self.dropout(self.attention(self.attention_norm(x), visibility))
        return x + self.dropout(self.mlp(self.mlp_norm(x)))


class SpacingTransformer(nn.Module):
    """Spacings (and registers) through the blocks; a mixture at every spacing, or from the registers' readout.

    PREFIX: registers first; the head reads the spacings. POSTFIX: registers last; the head reads
    Σ_i softmax(readout)_i state_i over them.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.context = config.context
        place = config.registers
        count = 0 if isinstance(place, NoRegisters) else place.count
        self.registers = None if isinstance(place, NoRegisters) else Registers(place, config.width)
        self.inputs = mark_by_entry(nn.Linear(1 if config.inputs == "spacing" else 2, config.width))
        self.positions = nn.Parameter(torch.zeros(config.context + count, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.head = MixtureHead(config.width, config.components)
        reads_slots = isinstance(place, PostfixRegisters)
        self.readout = nn.Parameter(torch.zeros(count)) if reads_slots else None
        tasked = isinstance(place, PostfixRegisters) and isinstance(place.task, ProxyTask)
        self.proxies = ProxyReadout(config.width) if tasked else None
        initialise(self, residual_branches=2 * config.layers)

    def init_parameters(self) -> None:
        """Learned positions start small."""
        nn.init.normal_(self.positions, std=0.02)

    def targets_per_row(self, window: int) -> int:
        """In training: every spacing (E0 to E2), or only the one after the window (E3, E4)."""
        return window if self.readout is None else 1

    @torch.no_grad()
    def prepare(self, train: Sequence[Series], windows: Sequence[Series]) -> None:
        """Take from some training windows what the auxiliary task is standardised by."""
        del train
        place = self.config.registers
        if (
            self.proxies is not None
            and isinstance(place, PostfixRegisters)
            and isinstance(place.task, ProxyTask)
        ):
            past = np.stack([window.spacings[:-1] for window in windows])
            self.proxies.calibrate(torch.from_numpy(past.astype(np.float32)), place.task)

    def forward(
        self,
        past: Float[Tensor, "B T"],
        past_heights: Float[Tensor, "B U"],
        ablation: Ablation | None = None,
        each: bool = False,
    ) -> Densities:
        """Densities of what follows.

        Args:
            past: spacings, unfolded, the newest last; at most `context`.
            past_heights: U = T + 1 heights that bound them.
            ablation: what is taken from the registers.
            each: whether the densities after every spacing are wanted, too.

        Raises:
            ConfigError: a longer past than the model was built for.
        """
        x, visibility = self._lay_out(past, past_heights, ablation or Ablation())
        for block in self.blocks:
            x = block(x, visibility)
        x = self.norm(x)
        place, length = self.config.registers, past.shape[1]
        if self.readout is None:
            states = x[:, -length:]
            everywhere = self.head(states) if each else None
            last = everywhere.at((slice(None), -1)) if everywhere else self.head(states[:, -1])
            return Densities(last, everywhere)
        states, slots = x[:, :length], x[:, length:]
        assert isinstance(place, PostfixRegisters)
        # Elementwise, and so in float32 under autocast, as the head is.
        pooled = (slots * self.readout.softmax(0)[:, None]).sum(1)
        return Densities(self.head(pooled), self.head(states) if each else None, slots)

    def predict(
        self,
        past: Float[Tensor, "B T"],
        past_heights: Float[Tensor, "B U"],
        ablation: Ablation | None = None,
    ) -> MixtureTensors:
        """The density of the next spacing alone."""
        return self(past, past_heights, ablation).last

    @torch.no_grad()
    def slot_attention(
        self, past: Float[Tensor, "B T"], past_heights: Float[Tensor, "B U"]
    ) -> Float[Tensor, "L M T"]:
        """Where registers behind the spacings look: weights on the spacings, mean over rows and heads, by layer.

        Raises:
            ConfigError: there are no registers behind the spacings.
        """
        if self.readout is None:
            raise ConfigError("Only registers behind the spacings look at them; this model has none.")
        x, visibility = self._lay_out(past, past_heights, Ablation())
        length, found = past.shape[1], []
        for block in self.blocks:
            assert isinstance(block, Block)
            queries, kv = block.attention.project(block.attention_norm(x), visibility)
            scores = queries[:, :, length:].float() @ kv.keys.float().transpose(-1, -2)
            scores = scores * queries.shape[-1] ** -0.5
            allowed = visibility.allowed(0)[:, None, length:]
            weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
            found.append(weights[..., :length].mean((0, 1)))
            x = block(x, visibility)
        return torch.stack(found)

    def cost(self, context: float) -> ModelCost:
        """FLOPs per position at `context` visible keys."""
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        each = tuple(
            block.attention.pass_flops(context, with_keys=True) + matmul_flops(block.mlp) for block in blocks
        )
        fixed = matmul_flops(self.inputs) + matmul_flops(self.head)
        return ModelCost(fixed, each, tuple(0.0 for _ in each))

    def _lay_out(
        self, past: Tensor, past_heights: Tensor, ablation: Ablation
    ) -> tuple[Float[Tensor, "B S D"], Visibility]:
        """Input vectors in their order, and who sees whom."""
        rows, length = past.shape
        if length > self.context:
            raise ConfigError(
                f"{length} spacings were given; the model reads at most {self.context}.",
                "Give it the newest ones, or train with a larger model.context.",
            )
        # A spacing has two or three digits in bfloat16, and one column costs next to nothing.
        with torch.autocast(past.device.type, enabled=False):
            x = self.inputs(self._features(past, past_heights))
        place = self.config.registers
        if self.registers is None:
            visibility = Visibility(length, past.device)
            return self.dropout(x + self.positions[:length]), visibility
        slots = self.registers(ablation).expand(rows, -1, -1)
        count = slots.shape[1]
        if isinstance(place, PrefixRegisters):
            x = torch.cat([slots, x], dim=1) + self.positions[: count + length]
            return self.dropout(x), Visibility(count + length, past.device)
        assert isinstance(place, PostfixRegisters)
        behind = self.positions[self.context :]
        if place.anonymous:
            behind = behind[:1].expand(count, -1)
        x = torch.cat([x + self.positions[:length], slots + behind], dim=1)
        if place.anonymous:
            return self.dropout(x), AnonymousRegisters(length + count, count, past.device)
        return self.dropout(x), Visibility(length + count, past.device)

    def _features(self, past: Tensor, past_heights: Tensor) -> Float[Tensor, "B T F"]:
        dtype = self.positions.dtype
        if self.config.inputs == "spacing":
            return past.to(dtype)[..., None]
        if self.config.inputs == "gap":
            further = past_heights.diff(dim=1)
        else:
            further = torch.log(past_heights[:, 1:] / (2 * torch.pi)) - TYPICAL_LOG_DENSITY
        return torch.stack([past.to(dtype), further.to(dtype)], dim=-1)
