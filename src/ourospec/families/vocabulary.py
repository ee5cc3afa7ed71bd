"""What a tokenizer's vocabulary means for a language model's tables; shared by the families that read text."""

from __future__ import annotations

from ourospec.data.tokenizers import Tokenizer
from ourospec.errors import ConfigError


def vocabulary_rows(asked: int, tokenizer: Tokenizer) -> int:
    """Rows of embedding and head: as many as asked for, or as the tokenizer has tokens where 0 is.

    Raises:
        ConfigError: fewer rows than tokens.
    """
    if 0 < asked < tokenizer.vocab_size:
        raise ConfigError(
            f"model.vocab_size is {asked}, but the tokenizer has {tokenizer.vocab_size} tokens.",
            f"Set --model.vocab-size 0 (as many as tokens) or at least {tokenizer.vocab_size}.",
        )
    return asked or tokenizer.vocab_size


def token_pieces(tokenizer: Tokenizer) -> list[bytes]:
    """The bytes of every token, for embeddings that are made of them."""
    return [tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)]
