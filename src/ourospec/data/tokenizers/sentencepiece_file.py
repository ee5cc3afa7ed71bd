"""SentencePiece models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator

from ourospec.config import Config, absolute
from ourospec.data.tokenizers.base import (
    END_TOKENS,
    check_token,
    refuse_end,
    utf8,
    write_settings,
)
from ourospec.errors import DataError, ResourceError
from ourospec.storage import write_whole

if TYPE_CHECKING:
    from sentencepiece import SentencePieceProcessor

MODEL_FILE = "sentencepiece.model"


class SentencePieceFile(Config):
    """A SentencePiece .model file."""

    kind: Literal["sentencepiece"] = "sentencepiece"
    """Which tokenizer."""
    path: Annotated[str, AfterValidator(absolute)]
    """The .model file."""
    end_token: str = ""
    """The piece that borders documents; empty: the model's own end or start of sentence."""


class SentencePieceTokenizer:
    """A SentencePiece model. Its normalisation may lose text (`summary["lossless"]` of a corpus says so).

    Raises:
        DataError: it has no piece that could border documents, or not the one asked for.
    """

    def __init__(
        self, engine: SentencePieceProcessor, end_token: str = "", where: str = "The tokenizer"
    ) -> None:
        self._engine = engine
        self.vocab_size = int(engine.vocab_size())
        self.end_id = self._find_end(end_token, where)

    def _find_end(self, end_token: str, where: str) -> int:
        engine = self._engine
        control = [engine.id_to_piece(i) for i in range(self.vocab_size) if engine.is_control(i)]
        if not end_token:
            for own in (engine.eos_id(), engine.bos_id()):
                if own >= 0:
                    return int(own)
        chosen = next((t for t in ((end_token,) if end_token else END_TOKENS) if t in control), None)
        if chosen is None:
            raise refuse_end(end_token, where, control)
        return int(engine.piece_to_id(chosen))

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(b"%d\n" % self.end_id + self._engine.serialized_model_proto()).hexdigest()

    @cached_property
    def _pieces(self) -> list[bytes]:
        return [self._piece(token) for token in range(self.vocab_size)]

    def _piece(self, token: int) -> bytes:
        engine = self._engine
        piece = engine.id_to_piece(token)
        if engine.is_byte(token):
            return bytes([int(piece[3:5], 16)])
        if engine.is_control(token) or engine.is_unknown(token) or engine.is_unused(token):
            return b""
        return piece.replace("▁", " ").encode()

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        for text in texts:
            utf8(text)
        return self._engine.encode(list(texts))

    def decode(self, ids: Sequence[int]) -> str:
        return self._engine.decode([check_token(int(i), self.vocab_size) for i in ids])

    def token_bytes(self, token: int, /) -> bytes:
        return self._pieces[check_token(token, self.vocab_size)]

    def save(self, folder: Path) -> None:
        write_whole(folder / MODEL_FILE, self._engine.serialized_model_proto())
        end_token = self._engine.id_to_piece(self.end_id)
        write_settings(folder, {"kind": "sentencepiece", "end_token": end_token})


def read_sentencepiece(path: Path, end_token: str = "") -> SentencePieceTokenizer:
    """A .model file.

    Raises:
        DataError: there is none, it cannot be read, or it has no end token.
        ResourceError: the sentencepiece library is not installed.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise ResourceError(
            f"Reading {path} needs the library sentencepiece, which is not installed.",
            "Install it with: pip install 'ourospec[sentencepiece]'",
        ) from None
    path = path.expanduser()
    if not path.is_file():
        raise DataError(f"There is no SentencePiece model at {path}.", "Give the path of a .model file.")
    try:
        engine = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{path} is not a SentencePiece model: {error}",
            "Give the .model file that spm_train wrote (not the .vocab beside it).",
        ) from error
    return SentencePieceTokenizer(engine, end_token, str(path))
