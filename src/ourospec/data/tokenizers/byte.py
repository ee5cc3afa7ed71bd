"""Bytes as tokens: 256 of them and the end token. Needs no training and loses nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ourospec.config import Config
from ourospec.data.tokenizers.base import check_token, utf8, write_settings

_BYTES = 256


class ByteTokenizerConfig(Config):
    """One token for each byte of UTF-8, and the end token: 257 tokens."""

    kind: Literal["byte"] = "byte"
    """Which tokenizer."""


class ByteTokenizer:
    """Ids 0 to 255 are bytes, 256 is the end token."""

    vocab_size = _BYTES + 1
    end_id = _BYTES
    fingerprint = "bytes-v1"

    def encode(self, text: str) -> list[int]:
        return list(utf8(text))

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(utf8(text)) for text in texts]

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def token_bytes(self, token: int, /) -> bytes:
        return b"" if check_token(token, self.vocab_size) == self.end_id else bytes([token])

    def save(self, folder: Path) -> None:
        write_settings(folder, {"kind": "byte"})
