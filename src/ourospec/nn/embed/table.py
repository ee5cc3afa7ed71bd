"""The ordinary embedding: a learned row per token."""

from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.nn.norm import RMSNorm


class TableConfig(Config):
    """A learned vector per token."""

    kind: Literal["table"] = "table"
    """Which embedding this is."""


class PlainTableConfig(Config):
    """A learned vector per token as it is, without the norm: for models that were described so."""

    kind: Literal["plain_table"] = "plain_table"
    """Which embedding this is."""


class TableEmbedding(nn.Module):
    """x = RMSNorm(E[token]), or E[token]."""

    def __init__(self, vocab_size: int, width: int, normalised: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, width)
        self.norm = RMSNorm(width) if normalised else None

    def forward(self, tokens: Int[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        rows = self.table(tokens)
        return rows if self.norm is None else self.norm.wide(rows)

    def flops_per_row(self) -> int:
        """A look-up multiplies nothing."""
        return 0
