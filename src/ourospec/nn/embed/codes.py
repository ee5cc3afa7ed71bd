"""Sparse codes of tokens: a set of (symbol, position) cells, seen through a matrix without being written out.

A code has N = symbols x positions cells, of which a token of L symbols fills L, each with 1/sqrt(L). The models
read the standardised code z = (code − μ)/σ, where over the N cells μ = sqrt(L)/N and σ² = (1 − L/N)/(N − 1).
Since a linear map W [D, N] of z is

    W z = Σ_{filled i} W[:, i] / (σ sqrt(L)) − (μ/σ) Σ_i W[:, i],

a list of L cells per token replaces the table of all codes (2.1 GB in bfloat16 for 131,072 tokens x 8,192 cells).
The standardisation cancels the factor 1/sqrt(L) up to the mean's share, so it is not offered as an option.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class CodeMap(nn.Module):
    """A bias-free linear map from standardised sparse codes to D outputs.

    Args:
        cells: for each token of the vocabulary the cells it fills, at most `positions` of them, all different.
        size: N, the number of cells of a code.
        std: standard deviation of the initial weights.
    """

    def __init__(self, cells: Sequence[Sequence[int]], size: int, outputs: int, std: float) -> None:
        super().__init__()
        self.size, self.std = size, std
        self.weight = nn.Parameter(torch.zeros(size, outputs))
        longest = max((len(c) for c in cells), default=1) or 1
        table = torch.full((len(cells), longest), size, dtype=torch.int32)
        for token, filled in enumerate(cells):
            table[token, : len(filled)] = torch.tensor(list(filled), dtype=torch.int32)
        # Rebuilt from the vocabulary, so not part of the saved weights.
        self.register_buffer("cells", table, persistent=False)

    def init_parameters(self) -> None:
        """Called by nn.init."""
        self.weight.normal_(std=self.std)

    def forward(self, tokens: Int[Tensor, " U"]) -> Float[Tensor, "U D"]:
        table = self.cells
        assert isinstance(table, Tensor)
        cells = table[tokens].long()
        present = (cells < self.size).to(self.weight.dtype)
        filled = present.sum(-1, keepdim=True)
        cells = cells.clamp(max=self.size - 1)
        sums = F.embedding_bag(cells, self.weight, mode="sum", per_sample_weights=present)
        deviation = ((1 - filled / self.size) / (self.size - 1)).sqrt()
        mean = filled.sqrt() / self.size
        mapped = (sums / filled.clamp(min=1).sqrt() - mean * self.weight.sum(0)) / deviation
        return mapped.masked_fill(filled == 0, 0.0)

    def flops_per_row(self) -> int:
        """Additions of the filled cells, at most; counted like multiply-adds."""
        table = self.cells
        assert isinstance(table, Tensor)
        return 2 * table.shape[1] * self.weight.shape[1]


class SpecialTokens(nn.Module):
    """A learned vector for each token without any bytes (the end token), which a code cannot tell from nothing.

    Args:
        pieces: the bytes of each token.
    """

    def __init__(self, pieces: Sequence[bytes], width: int) -> None:
        super().__init__()
        special = [token for token, piece in enumerate(pieces) if not piece]
        self.vectors = nn.Parameter(torch.zeros(len(special), width))
        # Every other token reads the row behind the last, which is zero.
        index = torch.full((len(pieces),), len(special))
        index[special] = torch.arange(len(special))
        # Rebuilt from the vocabulary, so not part of the saved weights.
        self.register_buffer("index", index, persistent=False)

    def init_parameters(self) -> None:
        """Called by nn.init: of the size that the norm gives to the others."""
        self.vectors.normal_()

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """The vectors of special tokens, and zero for all others."""
        index = self.index
        assert isinstance(index, Tensor)
        return F.embedding(index[tokens], F.pad(self.vectors, (0, 0, 0, 1)))

    def flops_per_row(self) -> int:
        """A look-up multiplies nothing."""
        return 0


def once_per_token(embed: nn.Module | object, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
    """Embed each distinct token of a batch once: texts repeat their tokens, and these maps cost more than a look-up."""
    distinct, where = tokens.unique(return_inverse=True)
    return F.embedding(where, embed(distinct))  # pyright: ignore[reportCallIssue]
