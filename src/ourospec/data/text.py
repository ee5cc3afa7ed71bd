"""Text to train on: from a source and a tokenizer to token shards in the cache and streams of batches.

Puzzles come in by the same door; they are made as they are needed, see data/puzzles.
"""

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
from ourospec.data.corpus import SourceConfig, StdlibSource, TextSource
from ourospec.data.documents import OnUndecodable
from ourospec.data.encoding import byte_lengths
from ourospec.data.prepare import SIDES, Corpus, Progress, write_prepared
from ourospec.data.puzzles.config import CurriculumSource, MixtureSource, PuzzleRows, PuzzleSource
from ourospec.data.puzzles.dataset import PuzzleDataset, open_puzzles
from ourospec.data.shards import TokenShards, open_shards
from ourospec.data.split import split, survey
from ourospec.data.stream import TokenStream
from ourospec.data.tokenizers import (
    BpeConfig,
    ByteTokenizerConfig,
    Tokenizer,
    TokenizerConfig,
    build_tokenizer,
    load_tokenizer,
    stamp_tokenizer,
)
from ourospec.errors import ConfigError


class TextData(Config):
    """Text, how it is split, and how it becomes tokens."""

    source: SourceConfig = StdlibSource()
    """Where the text comes from."""
    tokenizer: TokenizerConfig = BpeConfig()
    """How it becomes tokens."""
    heldout_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Share of the text's bytes kept for evaluation, in whole groups of documents, near-duplicates on one side; of
    puzzles, share of the different problems."""
    cache: Annotated[str, AfterValidator(absolute)] = ""
    """Folder for prepared tokens; empty: the user's cache folder."""
    on_undecodable: OnUndecodable = "refuse"
    """What to do about bytes that are not UTF-8: stop and name them, or put U+FFFD in their place."""

    @property
    def asks(self) -> bool:
        """Whether there are answers to be found right or wrong."""
        return isinstance(self.source, PuzzleRows)


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
    prompts: tuple[str, ...] = ()
    """Beginnings that ask for something; prose has none."""

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


Dataset = TextDataset | PuzzleDataset
"""What language models read."""


def open_text(config: TextData, progress: Progress | None = None) -> Dataset:
    """Prepare text, or find it prepared in the cache; or make puzzles ready, which are not kept.

    Args:
        progress: told in words what is being done, when it is not just found.

    Raises:
        DataError: no text, undecodable bytes, a tokenizer that cannot be meant, or a cache that changed on disk; for
            puzzles see open_puzzles.
        ConfigError: puzzles with another tokenizer than bytes.
        ResourceError: the cache cannot be written, or an optional library is missing.
    """
    source = config.source
    if isinstance(source, PuzzleSource | MixtureSource | CurriculumSource):
        if not isinstance(config.tokenizer, ByteTokenizerConfig):
            raise ConfigError(
                f"Puzzles are read byte by byte, and the tokenizer is {config.tokenizer.kind}.",
                "Say: --data.tokenizer byte",
            )
        return open_puzzles(source, config.heldout_fraction, config.on_undecodable)
    root = cache.cache_folder(config.cache)
    note = root / "sources" / f"{_stamp(config, source)}.json"
    name = cache.recall(note).get("prepared")
    if not isinstance(name, str) or not (root / "text" / name).is_dir():
        name = _prepare(config, source, root, progress or (lambda _: None))
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


def _prepare(config: TextData, source: TextSource, root: Path, tell: Progress) -> str:
    """Have the text in the cache; the name of its folder there, which its content decides, not its place."""
    tell(f"reading the corpus: {source.describe()}")
    found = survey(source, config.on_undecodable)
    name = _digest(found.fingerprint, str(config.heldout_fraction), stamp_tokenizer(config.tokenizer))

    def write(folder: Path) -> dict[str, Any]:
        tell("looking for near-duplicates")
        sides = split(found, config.heldout_fraction)
        corpus = Corpus(source, config.on_undecodable, found, sides)
        tell("preparing the tokenizer")
        tokenizer = build_tokenizer(config.tokenizer, corpus.training_text)
        return write_prepared(folder, corpus, tokenizer, tell)

    cache.prepared(root / "text" / name, write)
    return name


def _stamp(config: TextData, source: TextSource) -> str:
    """Found without reading the corpus: equal stamps mean equal prepared text."""
    settings = config.model_dump_json(exclude={"cache"})
    return _digest(settings, source.stamp(), stamp_tokenizer(config.tokenizer))


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join([str(cache.FORMAT), *parts]).encode()).hexdigest()[:32]
