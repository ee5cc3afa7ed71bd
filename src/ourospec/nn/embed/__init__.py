"""Token embeddings: a table, or vectors made of the characters or bytes of each token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field
from torch import nn

from ourospec.errors import ConfigError
from ourospec.nn.embed.fourier import FourierConfig, FourierEmbedding
from ourospec.nn.embed.kronecker import KroneckerConfig, KroneckerEmbedding
from ourospec.nn.embed.table import PlainTableConfig, TableConfig, TableEmbedding

EmbeddingConfig = Annotated[
    TableConfig | PlainTableConfig | FourierConfig | KroneckerConfig, Field(discriminator="kind")
]


def build_embedding(
    config: EmbeddingConfig, vocab_size: int, width: int, pieces: Sequence[bytes]
) -> nn.Module:
    """A module from token ids [B, T] to vectors [B, T, D] of root-mean-square about 1 (but for plain tables).

    Args:
        vocab_size: rows; may exceed the number of pieces, where a head is padded to a round size.
        pieces: the bytes of each token, b"" for special ones; rows beyond the last piece are never read.
    """
    if isinstance(config, TableConfig | PlainTableConfig):
        return TableEmbedding(vocab_size, width, normalised=isinstance(config, TableConfig))
    # Rows beyond the last piece are never read; a letter keeps them from counting as special tokens.
    padded = [*pieces, *([b"-"] * (vocab_size - len(pieces)))]
    if isinstance(config, FourierConfig):
        return FourierEmbedding(padded, width, config)
    return KroneckerEmbedding(padded, width, config)


def tied_table(embedding: nn.Module) -> nn.Embedding:
    """The table that a head can share.

    Raises:
        ConfigError: the embedding is not a table.
    """
    if isinstance(embedding, TableEmbedding):
        return embedding.table
    raise ConfigError(
        "Only the table embedding has rows that the head could share.",
        "Set model.tied to false, or model.embedding.kind to table.",
    )


__all__ = [
    "EmbeddingConfig",
    "FourierConfig",
    "KroneckerConfig",
    "PlainTableConfig",
    "TableConfig",
    "build_embedding",
    "tied_table",
]
