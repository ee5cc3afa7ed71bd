"""Text to train on: from a source and a tokenizer to token shards in the cache and streams of batches."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, Field

from ourospec.config import Config, absolute
from ourospec.data import cache
from ourospec.data.corpus import SourceConfig, StdlibSource
from ourospec.data.documents import OnUndecodable
from ourospec.data.encoding import byte_lengths
from ourospec.data.prepare import SIDES, Corpus, Progress, write_prepared
from ourospec.data.shards import TokenShards, open_shards
from ourospec.data.split import split, survey
from ourospec.data.stream import TokenStream
from ourospec.data.tokenizers import (
    BpeConfig,
    Tokenizer,
    TokenizerConfig,
    build_tokenizer,
    load_tokenizer,
    stamp_tokenizer,
)


class TextData(Config):
    """Text, how it is split, and how it becomes tokens."""

    source: SourceConfig = StdlibSource()
    """Where the text comes from."""
    tokenizer: TokenizerConfig = BpeConfig()
    """How it becomes tokens."""
    heldout_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Share of the text's bytes kept for evaluation, in whole groups of documents, near-duplicates on one side."""
    cache: Annotated[str, AfterValidator(absolute)] = ""
    """Folder for prepared tokens; empty: the user's cache folder."""
    on_undecodable: OnUndecodable = "refuse"
    """What to do about bytes that are not UTF-8: stop and name them, or put U+FFFD in their place."""


@dataclass(frozen=True)
class TextDataset:
    """Prepared text."""

    tokenizer: Tokenizer
    train: TokenShards
    heldout: TokenShards
    fingerprint: str
    """Changes with the text, the split or the tokenizer."""
    summary: dict[str, Any]
    """JSON-ready: source, tokenizer, and for each side documents, tokens, bytes, and bytes per token."""

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """[V] bytes of text that each token stands for."""
        return byte_lengths(self.tokenizer)

    def stream(
        self,
        window: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> TokenStream:
        """The training text as batches, see `TokenStream`.

        Raises:
            DataError: the text is shorter than one window.
            ConfigError: sizes that do not go together.
        """
        return TokenStream(
            self.train,
            self.byte_lengths,
            self.fingerprint,
            window=window,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )


def open_text(config: TextData, progress: Progress | None = None) -> TextDataset:
    """Prepare text, or find it prepared in the cache.

    Args:
        progress: told in words what is being done, when it is not just found.

    Raises:
        DataError: no text, undecodable bytes, a tokenizer that cannot be meant, or a cache that changed on disk.
        ResourceError: the cache cannot be written, or an optional library is missing.
    """
    root = cache.cache_folder(config.cache)
    note = root / "sources" / f"{_stamp(config)}.json"
    name = cache.recall(note).get("prepared")
    if not isinstance(name, str) or not (root / "text" / name).is_dir():
        name = _prepare(config, root, progress or (lambda _: None))
        cache.remember(note, {"prepared": name})
    return read_prepared(root / "text" / name)


def read_prepared(folder: Path) -> TextDataset:
    """Open a folder of prepared text.

    Raises:
        DataError: it is not as it was written.
    """
    manifest = cache.verify(folder)
    tokenizer = load_tokenizer(folder / "tokenizer")
    train, heldout = (open_shards(folder, side, tokenizer.vocab_size, tokenizer.end_id) for side in SIDES)
    return TextDataset(tokenizer, train, heldout, manifest["fingerprint"], manifest["summary"])


def _prepare(config: TextData, root: Path, tell: Progress) -> str:
    """Have the text in the cache; the name of its folder there, which its content decides, not its place."""
    tell(f"reading the corpus: {config.source.describe()}")
    found = survey(config.source, config.on_undecodable)
    name = _digest(found.fingerprint, str(config.heldout_fraction), stamp_tokenizer(config.tokenizer))

    def write(folder: Path) -> dict[str, Any]:
        tell("looking for near-duplicates")
        sides = split(found, config.heldout_fraction)
        corpus = Corpus(config.source, config.on_undecodable, found, sides)
        tell("preparing the tokenizer")
        tokenizer = build_tokenizer(config.tokenizer, corpus.training_text)
        return write_prepared(folder, corpus, tokenizer, tell)

    cache.prepared(root / "text" / name, write)
    return name


def _stamp(config: TextData) -> str:
    """Found without reading the corpus: equal stamps mean equal prepared text."""
    settings = config.model_dump_json(exclude={"cache"})
    return _digest(settings, config.source.stamp(), stamp_tokenizer(config.tokenizer))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join([str(cache.FORMAT), *parts]).encode()).hexdigest()[:32]
