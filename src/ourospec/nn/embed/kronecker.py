"""Kronecker embedding: the bytes of a token crossed with their positions, and a learned residual."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.nn.embed.codes import CodeMap, SpecialTokens, once_per_token
from ourospec.nn.norm import RMSNorm


class KroneckerConfig(Config):
    """Bytes x positions, and what is learned beside them."""

    kind: Literal["kronecker"] = "kronecker"
    """Which embedding this is."""
    positions: Annotated[int, Field(ge=1, le=256)] = 32
    """Bytes of a token that are read; the rest of a longer token is not seen."""
    token_residual: bool = True
    """Whether a learned vector per token is added after the norm, so that tokens of equal bytes can differ."""


class KroneckerEmbedding(nn.Module):
    """x = RMSNorm(W z) + R[token], z being the standardised code over 256 bytes x positions (codes.py).

    The codes are of each token's raw bytes, so tokens that hold part of a character stay apart.
    """

    def __init__(self, pieces: Sequence[bytes], width: int, config: KroneckerConfig) -> None:
        super().__init__()
        cells = [
            [byte * config.positions + i for i, byte in enumerate(p[: config.positions])] for p in pieces
        ]
        self.codes = CodeMap(cells, 256 * config.positions, width, std=0.02)
        self.norm = RMSNorm(width)
        self.special = SpecialTokens(pieces, width)
        self.residual = nn.Embedding(len(pieces), width) if config.token_residual else None

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        x = self.norm.wide(once_per_token(self.codes, tokens)) + self.special(tokens)
        return x if self.residual is None else x + self.residual(tokens)
