"""An average that fades: the memory of Cognate phase 1, as a parallel scan. Letters: B, T, D, N, C as in chunks.py,
W width of the memory."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.nn.memory.chunks import Chunks, cut_into_chunks, decays, kin
from ourospec.nn.memory.state import MemoryState


class EmaMemoryConfig(Config):
    """An exponential average of what was read."""

    kind: Literal["ema"] = "ema"
    width: Annotated[int, Field(ge=1)] = 128
    """Numbers that are kept of a row."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.99
    """δ, what is left of the average after a token; 0.99 is halved in 69 tokens."""
    chunk: Annotated[int, Field(ge=1)] = 32
    """Positions that are computed at a time; changes no result."""

    @property
    def state_size(self) -> int:
        """Numbers that are kept of a row."""
        return self.width


class EmaMemory(nn.Module):
    """m_t = δ m_{t−1} + (1 − δ) W↓ y_t, output W↑ m_t; m_0 = 0, and 2·D·W parameters.

    An average can say what was there, not where or beside what: it cannot be asked by a key. Two levels of decaying
    sums, within chunks and from chunk to chunk, and no loop.
    """

    def __init__(self, width: int, config: EmaMemoryConfig) -> None:
        super().__init__()
        self.config = config
        self.down = nn.Linear(width, config.width, bias=False)
        self.up = nn.Linear(config.width, width, bias=False)

    def empty_state(self, rows: int, device: torch.device, dtype: torch.dtype = torch.float32) -> MemoryState:
        """Of rows that have read nothing."""
        memory = torch.zeros(rows, self.config.width, device=device, dtype=dtype)
        return MemoryState(memory, memory.new_zeros(rows, 0, 0), memory.new_zeros(rows, dtype=torch.long))

    def forward(
        self,
        y: Float[Tensor, "B T D"],
        state: MemoryState | None = None,
        documents: Int[Tensor, "B T"] | None = None,
        counted: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], MemoryState]:
        """As state.Memory says."""
        compressed = self.down(y)
        wide = torch.promote_types(compressed.dtype, torch.float32)
        state = state or self.empty_state(y.shape[0], y.device, wide)
        chunks = cut_into_chunks(y, self.config.chunk, state, documents, counted)
        with torch.autocast(y.device.type, enabled=False):
            held, memory = self._scan(compressed.to(wide), chunks, state.memory.to(wide))
        return self.up(held), MemoryState(memory, state.recent, chunks.document)

    def _scan(self, compressed: Tensor, chunks: Chunks, before: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, W], the average at each position, and [B, W] after the last."""
        real = chunks.counted[:, 0].to(compressed.dtype)
        log_kept = math.log(self.config.decay) * real
        new = chunks.cut(compressed) * ((1 - self.config.decay) * real)[..., None]
        within = decays(log_kept, kin(chunks.segments)) @ new
        # From chunk to chunk the same once more, what was held before standing first.
        first = torch.zeros_like(chunks.segments[:, :1, -1])
        ends = torch.cat([first, chunks.segments[:, :, -1]], dim=1)
        log_over = torch.cat([torch.zeros_like(log_kept[:, :1, 0]), log_kept.sum(-1)], dim=1)
        left = torch.cat([before[:, None], within[:, :, -1]], dim=1)
        carried = decays(log_over, kin(ends)) @ left
        share = log_kept.cumsum(-1).exp() * chunks.kinship().continues[:, 0]
        held = within + share[..., None] * carried[:, :-1, None]
        return chunks.uncut(held), carried[:, -1]

    def flops_per_row(self) -> int:
        """Both projections and the sums within a chunk; those from chunk to chunk are a share of 1/C² · T of them."""
        return 2 * self.config.width * (self.down.in_features + self.up.out_features + self.config.chunk)
