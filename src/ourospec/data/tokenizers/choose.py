"""The choice of a tokenizer: from a configuration, or from the folder in which one was saved."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from ourospec.data.documents import read_file
from ourospec.data.tokenizers.base import SETTINGS, SETTINGS_VERSION, Tokenizer
from ourospec.data.tokenizers.byte import ByteTokenizer, ByteTokenizerConfig
from ourospec.data.tokenizers.json_file import (
    MODEL_FILE,
    BpeConfig,
    TokenizerFile,
    read_tokenizer_json,
    train_bpe,
)
from ourospec.data.tokenizers.sentencepiece_file import MODEL_FILE as SENTENCEPIECE_MODEL
from ourospec.data.tokenizers.sentencepiece_file import SentencePieceFile, read_sentencepiece
from ourospec.errors import DataError

TokenizerConfig = Annotated[
    ByteTokenizerConfig | BpeConfig | TokenizerFile | SentencePieceFile, Field(discriminator="kind")
]


def build_tokenizer(
    config: ByteTokenizerConfig | BpeConfig | TokenizerFile | SentencePieceFile,
    training_text: Callable[[int], Iterator[str]],
) -> Tokenizer:
    """The tokenizer that a configuration asks for.

    Args:
        training_text: gives about so many bytes of text to learn from; only called for what is trained.

    Raises:
        DataError: a file that is missing or cannot be meant.
    """
    if isinstance(config, ByteTokenizerConfig):
        return ByteTokenizer()
    if isinstance(config, BpeConfig):
        return train_bpe(training_text(config.training_megabytes * 1_000_000), config)
    if isinstance(config, TokenizerFile):
        return read_tokenizer_json(Path(config.path), config.end_token)
    return read_sentencepiece(Path(config.path), config.end_token)


def stamp_tokenizer(config: ByteTokenizerConfig | BpeConfig | TokenizerFile | SentencePieceFile) -> str:
    """Changes when the configuration does, or the file that it points to."""
    digest = hashlib.sha256(config.model_dump_json(exclude={"path"}).encode())
    if isinstance(config, TokenizerFile | SentencePieceFile):
        path = Path(config.path).expanduser()
        digest.update(read_file(path / MODEL_FILE if path.is_dir() else path))
    return digest.hexdigest()


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read what `Tokenizer.save` wrote.

    Raises:
        DataError: the folder holds no tokenizer that this version can read.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    version, kind, end_token = (
        settings.get("version"),
        settings.get("kind"),
        str(settings.get("end_token", "")),
    )
    if version == SETTINGS_VERSION and kind == "byte":
        return ByteTokenizer()
    if version == SETTINGS_VERSION and kind == "json":
        return read_tokenizer_json(folder / MODEL_FILE, end_token)
    if version == SETTINGS_VERSION and kind == "sentencepiece":
        return read_sentencepiece(folder / SENTENCEPIECE_MODEL, end_token)
    raise DataError(
        f"{folder / SETTINGS} describes a tokenizer of kind {kind!r}, version {version!r}, unknown here.",
        "It was written by a newer version: upgrade with pip install -U ourospec",
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """The description of a saved tokenizer.

    Raises:
        DataError: there is none.
    """
    path = folder / SETTINGS
    try:
        settings = json.loads(path.read_bytes())
        reason = "it is not a JSON object"
    except (OSError, ValueError) as error:
        settings, reason = None, str(error)
    if isinstance(settings, dict):
        return settings
    raise DataError(
        f"{folder} holds no tokenizer: {path.name} cannot be read ({reason}).",
        "A run directory keeps its tokenizer in the folder `tokenizer`; a copy must include it.",
    )
