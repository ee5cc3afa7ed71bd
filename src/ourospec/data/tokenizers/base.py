"""What a tokenizer offers, whatever it is made of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from ourospec.errors import DataError
from ourospec.storage import write_whole

SETTINGS = "ouro_tokenizer.json"
"""In a saved tokenizer's folder: which kind it is, and its end token."""
SETTINGS_VERSION = 1
END_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>", "<s>", "[SEP]")
"""Names under which tokenizers keep the token that borders documents, the likeliest first."""


class Tokenizer(Protocol):
    """Text to ids and back.

    One special token, the end token, starts and ends every document. No text encodes to it: the name of a special
    token in a text is text.
    """

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        ...

    @property
    def end_id(self) -> int: ...

    @property
    def fingerprint(self) -> str:
        """Equal for two tokenizers that encode every text alike."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens.

        Raises:
            DataError: it holds halves of surrogate pairs, which UTF-8 cannot write.
        """
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode` for each text, in parallel where that is possible."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens give none, incomplete characters give U+FFFD."""
        ...

    def token_bytes(self, token: int, /) -> bytes:
        """The bytes that a token stands for, b"" for a special one.

        Raises:
            DataError: there is no such token.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write it into a folder, from which `load_tokenizer` reads it."""
        ...


def utf8(text: str) -> bytes:
    """The bytes of a text.

    Raises:
        DataError: it holds half a surrogate pair, as a terminal gives for bytes that it cannot read.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"The text is not Unicode: half a surrogate pair at character {error.start}.",
            "Check the encoding of the terminal or the file that it comes from; it should be UTF-8.",
        ) from None


def check_token(token: int, vocab_size: int) -> int:
    """The id itself.

    Raises:
        DataError: it is outside the vocabulary.
    """
    if not 0 <= token < vocab_size:
        raise DataError(
            f"The token id {token} is outside the vocabulary of {vocab_size} (0 to {vocab_size - 1}).",
            "The ids were made by another tokenizer; encode the text with the one of this run.",
        )
    return token


def write_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Say what the folder's tokenizer is."""
    text = json.dumps({"version": SETTINGS_VERSION, **settings}, indent=2) + "\n"
    write_whole(folder / SETTINGS, text.encode())


def refuse_end(wanted: str, where: str, present: Sequence[str]) -> DataError:
    """The error of a tokenizer in which no end token is found."""
    what = f"has no token {wanted!r}" if wanted else "names no token that could border documents"
    shown = ", ".join(repr(token) for token in present[:12]) or "none"
    return DataError(
        f"{where} {what}. Its special tokens: {shown}.",
        "Choose one of them: --data.tokenizer.end-token TOKEN",
    )
