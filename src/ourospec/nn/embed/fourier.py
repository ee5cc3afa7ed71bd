"""The "Fourier" embedding of Ouro-Spec: characters x positions, and a readout over learned semantic anchors.

Despite the name that its documentation gives it there is no Fourier transform in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.nn.embed.codes import CodeMap, SpecialTokens, once_per_token
from ourospec.nn.norm import RMSNorm

ANCHOR_HEAD_DIM = 32


class FourierConfig(Config):
    """Sizes of the character code and of the anchors."""

    kind: Literal["fourier"] = "fourier"
    """Which embedding this is."""
    characters: Annotated[int, Field(ge=1)] = 128
    """Alphabet: the first so many characters of the vocabulary by code point; others are not seen."""
    positions: Annotated[int, Field(ge=1)] = 16
    """Characters of a token that are read."""
    anchors: Annotated[int, Field(ge=0)] = 1536
    """Learned semantic anchors; 0 leaves the readout out."""
    anchor_heads: Annotated[int, Field(ge=1)] = 12
    """Heads of the readout, each 32 wide."""
    anchor_hidden: Annotated[int, Field(ge=1)] = 1536
    """Inner width of the network that widens the readout to a code."""


class FourierEmbedding(nn.Module):
    """x = RMSNorm(W (z + λ s)), z being the standardised code over characters x positions (codes.py).

    Special tokens have a vector of their own added; all others without a character of the alphabet are one.
    s is a gated attention readout: queries from z over `anchors` learned keys and values, each head's result
    gated by a sigmoid of z, then widened to the code's size by a two-layer network. λ = softplus(·) starts at 0.1.
    """

    def __init__(self, pieces: Sequence[bytes], width: int, config: FourierConfig) -> None:
        super().__init__()
        size, inner = config.characters * config.positions, config.anchor_heads * ANCHOR_HEAD_DIM
        cells = character_cells(pieces, config.characters, config.positions)
        self.heads = config.anchor_heads if config.anchors else 0
        self.codes = CodeMap(cells, size, width, std=0.02 / size**0.5)
        self.norm = RMSNorm(width)
        self.special = SpecialTokens(pieces, width)
        if self.heads:
            # Queries and gates read the same codes: one map with two halves.
            self.query_gate = CodeMap(cells, size, 2 * inner, std=size**-0.5)
            self.keys = nn.Parameter(torch.empty(self.heads, config.anchors, ANCHOR_HEAD_DIM))
            self.values = nn.Parameter(torch.empty(self.heads, config.anchors, ANCHOR_HEAD_DIM))
            self.widen = nn.Sequential(
                nn.Linear(inner, config.anchor_hidden, bias=False),
                nn.GELU(),
                nn.Linear(config.anchor_hidden, size, bias=False),
            )
            self.strength = nn.Parameter(torch.empty(()))

    def init_parameters(self) -> None:
        """Called by nn.init."""
        if self.heads:
            self.keys.normal_()
            self.values.normal_()
            self.strength.fill_(torch.tensor(0.1).expm1().log())

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        return once_per_token(self._embed, tokens) + self.special(tokens)

    def _embed(self, tokens: Int[Tensor, " U"]) -> Float[Tensor, "U D"]:
        x = self.codes(tokens)
        if self.heads:
            x = x + F.softplus(self.strength) * (self._readout(tokens) @ self.codes.weight)
        return self.norm.wide(x)

    def _readout(self, tokens: Int[Tensor, " U"]) -> Float[Tensor, "U N"]:
        queries, gates = self.query_gate(tokens).chunk(2, dim=-1)
        heads = queries.unflatten(-1, (self.heads, -1)).transpose(0, 1)
        read = F.scaled_dot_product_attention(heads[None], self.keys[None], self.values[None])[0]
        return self.widen(gates.sigmoid() * read.transpose(0, 1).flatten(1))

    def flops_per_row(self) -> int:
        """At most: tokens that repeat within a batch are embedded once."""
        fixed = self.codes.flops_per_row()
        if not self.heads:
            return fixed
        anchors = 4 * self.keys.shape[0] * self.keys.shape[1] * ANCHOR_HEAD_DIM
        widen = sum(2 * m.weight.numel() for m in self.widen if isinstance(m, nn.Linear))
        return fixed + self.query_gate.flops_per_row() + anchors + widen + 2 * self.codes.weight.numel()


def character_cells(pieces: Sequence[bytes], characters: int, positions: int) -> list[list[int]]:
    """For each token the cells character·positions + place of its first `positions` characters.

    The alphabet is the first `characters` of the characters that occur, by code point, filled up with
    printable ASCII; a character outside it is skipped and its place left empty.
    """
    texts = [piece.decode("utf-8", "replace") for piece in pieces]
    seen = sorted({c for text in texts for c in text})
    alphabet = list(dict.fromkeys([*seen, *map(chr, range(32, 127))]))[:characters]
    index = {c: i for i, c in enumerate(alphabet)}
    return [
        [index[c] * positions + place for place, c in enumerate(text[:positions]) if c in index]
        for text in texts
    ]
