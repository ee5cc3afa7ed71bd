"""Tokenizers of the `tokenizers` library: byte-level BPE trained here, or any tokenizer.json."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from ourospec.config import Config, absolute
from ourospec.data.tokenizers.base import (
    END_TOKENS,
    check_token,
    refuse_end,
    utf8,
    write_settings,
)
from ourospec.errors import DataError
from ourospec.storage import write_whole

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Engine

MODEL_FILE = "tokenizer.json"
END_TOKEN = "<|endoftext|>"
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class BpeConfig(Config):
    """Byte-level BPE, trained on the corpus itself; loses nothing."""

    kind: Literal["bpe"] = "bpe"
    """Which tokenizer."""
    vocab_size: Annotated[int, Field(ge=257)] = 4096
    """Tokens at most: 256 bytes, the end token, and merges."""
    training_megabytes: Annotated[int, Field(ge=1)] = 32
    """Text of the training split that merges are learned from, at most, in MB, taken evenly from all of it."""


class TokenizerFile(Config):
    """A tokenizer.json of the `tokenizers` library, of any size."""

    kind: Literal["file"] = "file"
    """Which tokenizer."""
    path: Annotated[str, AfterValidator(absolute)]
    """The tokenizer.json, or the folder that holds it."""
    end_token: str = ""
    """The token that borders documents; empty: the first that is found among the usual names."""


class JsonTokenizer:
    """A tokenizer of the `tokenizers` library, with its special tokens switched off for text.

    Args:
        engine: changed in place: truncation and padding are switched off, too.
        end_token: as it stands in the vocabulary; "" to find one.
        where: names the tokenizer in errors.

    Raises:
        DataError: there is no such end token.
    """

    def __init__(self, engine: Engine, end_token: str = "", where: str = "The tokenizer") -> None:
        engine.no_truncation()
        engine.no_padding()
        engine.encode_special_tokens = True
        self._engine = engine
        vocabulary = engine.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        special = [t.content for t in engine.get_added_tokens_decoder().values() if t.special]
        candidates = (end_token,) if end_token else END_TOKENS
        chosen = next((token for token in candidates if token in vocabulary), None)
        if chosen is None:
            raise refuse_end(end_token, where, special)
        self.end_token = chosen
        self.end_id = vocabulary[chosen]

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    @cached_property
    def _fingerprint(self) -> str:
        return hashlib.sha256(f"{self.end_id}\n{self._engine.to_str()}".encode()).hexdigest()

    @cached_property
    def _byte_level(self) -> bool:
        shape = json.loads(self._engine.to_str())
        return any('"ByteLevel"' in json.dumps(shape.get(part)) for part in ("pre_tokenizer", "decoder"))

    @cached_property
    def _pieces(self) -> list[bytes]:
        pieces = [b""] * self.vocab_size
        added = self._engine.get_added_tokens_decoder()
        model_type = json.loads(self._engine.to_str())["model"]["type"]
        for token, index in self._engine.get_vocab(with_added_tokens=True).items():
            if index in added:
                known = added[index]
                pieces[index] = b"" if known.special or index == self.end_id else token.encode()
            elif self._byte_level:
                pieces[index] = undo_byte_alphabet(token)
            else:
                pieces[index] = plain_piece(token, model_type)
        pieces[self.end_id] = b""
        return pieces

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        for text in texts:
            utf8(text)
        encoded = self._engine.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encoded]

    def decode(self, ids: Sequence[int]) -> str:
        if self._byte_level:
            return b"".join(map(self.token_bytes, ids)).decode(errors="replace")
        return self._engine.decode([check_token(i, self.vocab_size) for i in ids], skip_special_tokens=True)

    def token_bytes(self, token: int, /) -> bytes:
        return self._pieces[check_token(token, self.vocab_size)]

    def save(self, folder: Path) -> None:
        write_whole(folder / MODEL_FILE, self._engine.to_str(pretty=True).encode())
        write_settings(folder, {"kind": "json", "end_token": self.end_token})


def train_bpe(texts: Iterable[str], config: BpeConfig) -> JsonTokenizer:
    """Learn merges from texts. The same texts give the same tokenizer.

    Source: Sennrich et al. 2016 (arXiv:1508.07909); bytes and their splitting as in GPT-2.
    """
    from tokenizers import Tokenizer as Engine
    from tokenizers import decoders, models, pre_tokenizers, trainers

    engine = Engine(models.BPE())
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=[END_TOKEN],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator(texts, trainer)
    return JsonTokenizer(engine, END_TOKEN)


def read_tokenizer_json(path: Path, end_token: str = "") -> JsonTokenizer:
    """A tokenizer.json, or the one in a folder.

    Raises:
        DataError: there is none, it cannot be read, or it has no such end token.
    """
    from tokenizers import Tokenizer as Engine

    path = path.expanduser()
    path = path / MODEL_FILE if path.is_dir() else path
    if not path.is_file():
        raise DataError(f"There is no tokenizer at {path}.", "Give the path of a tokenizer.json.")
    try:
        engine = Engine.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise DataError(
            f"{path} is not a tokenizer.json that can be read: {error}",
            "Save it anew with tokenizer.save(...) of the `tokenizers` library.",
        ) from error
    return JsonTokenizer(engine, end_token, str(path))


def undo_byte_alphabet(token: str) -> bytes:
    """The bytes that a byte-level token stands for. Characters outside the alphabet stand for themselves."""
    return b"".join(_BYTE_OF.get(letter) or letter.encode() for letter in token)


def plain_piece(token: str, model_type: str) -> bytes:
    """The bytes of a token that is written in characters: `▁` a space, `<0x0A>` a byte, `##` a continuation."""
    byte = _BYTE_PIECE.fullmatch(token)
    if byte:
        return bytes([int(byte[1], 16)])
    if model_type == "WordPiece":
        return token[2:].encode() if token.startswith("##") else f" {token}".encode()
    return token.replace("▁", " ").encode()


def _byte_alphabet() -> dict[str, bytes]:
    """GPT-2's names for bytes: printable Latin-1 characters name themselves, the others follow from U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    names = {chr(byte): bytes([byte]) for byte in printable}
    return names | {chr(0x100 + n): bytes([byte]) for n, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
