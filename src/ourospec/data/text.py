"""Text to train on: from a source and a tokenizer to token shards in the cache and streams of batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from ourospec.config import Config
from ourospec.data import cache
from ourospec.data.documents import OnUndecodable, Source
from ourospec.data.files import FilesSource
from ourospec.data.records import RecordsSource
from ourospec.data.shards import Document, ShardWriter, TokenShards, open_shards
from ourospec.data.split import Side, Split, Survey, documents_of, split, survey
from ourospec.data.stdlib import StdlibSource
from ourospec.data.stream import TokenStream
from ourospec.data.tokenizers import (
    BpeConfig,
    Tokenizer,
    TokenizerConfig,
    build_tokenizer,
    load_tokenizer,
    stamp_tokenizer,
)
from ourospec.errors import DataError

SourceConfig = Annotated[StdlibSource | FilesSource | RecordsSource, Field(discriminator="kind")]
SIDES: tuple[Side, Side] = ("train", "heldout")
_BLOCK = 4_000_000
"""Characters that are encoded at a time."""
Progress = Callable[[str], None]
"""Told in words what is being done, when preparing takes a while."""


class TextData(Config):
    """Text, how it is split, and how it becomes tokens."""

    source: SourceConfig = StdlibSource()
    """Where the text comes from."""
    tokenizer: TokenizerConfig = BpeConfig()
    """How it becomes tokens."""
    heldout_fraction: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Share of the text's bytes kept for evaluation, in whole groups of documents, near-duplicates on one side."""
    cache: str = ""
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


def byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """[V] int64, bytes of text that each token stands for; 0 for special ones."""
    return np.array([len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)], np.int64)


def open_text(config: TextData, progress: Progress | None = None) -> TextDataset:
    """Prepare text, or find it prepared in the cache.

    Args:
        progress: told what is being done.

    Raises:
        DataError: no text, undecodable bytes, a tokenizer that cannot be meant, or a cache that changed on disk.
        ResourceError: the cache cannot be written, or an optional library is missing.
    """
    root = cache.cache_folder(config.cache)
    note = root / "sources" / f"{_stamp(config)}.json"
    name = cache.recall(note).get("prepared")
    tell = progress or _tell_nobody
    if not isinstance(name, str) or not (root / "text" / name).exists():
        tell(f"reading the corpus: {config.source.describe()}")
        found = survey(config.source, config.on_undecodable)
        name = _key(config, found)
        cache.prepared(root / "text" / name, lambda folder: _prepare(folder, config, found, tell))
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


def encode_documents(
    source: StdlibSource | FilesSource | RecordsSource,
    tokenizer: Tokenizer,
    on_undecodable: OnUndecodable = "refuse",
) -> Iterator[Document]:
    """All documents of a source as tokens, without split or cache: for scoring a text once.

    Raises:
        DataError: there is no text, or bytes that are not UTF-8.
    """
    parts = ((d.name, "heldout", d.text) for d in documents_of(source, on_undecodable))
    empty = True
    for _, _, ids, num_bytes in _encode(parts, tokenizer):
        empty = False
        yield Document(np.array(ids, np.int64), num_bytes)
    if empty:
        raise DataError(f"There is no text in {source.describe()}.", "Name files that hold text.")


def _tell_nobody(message: str) -> None:
    del message


def _stamp(config: TextData) -> str:
    """Found without reading the corpus: equal stamps mean equal prepared text."""
    parts = [
        config.model_dump_json(exclude={"cache"}),
        config.source.stamp(),
        stamp_tokenizer(config.tokenizer),
    ]
    return hashlib.sha256("\n".join([str(cache.FORMAT), *parts]).encode()).hexdigest()[:32]


def _key(config: TextData, found: Survey) -> str:
    """The name of the prepared folder: content, not places, decides it."""
    parts = [found.fingerprint, str(config.heldout_fraction), stamp_tokenizer(config.tokenizer)]
    return hashlib.sha256("\n".join([str(cache.FORMAT), *parts]).encode()).hexdigest()[:32]


def _prepare(folder: Path, config: TextData, found: Survey, tell: Progress) -> dict[str, Any]:
    """Write tokenizer and shards; the manifest."""
    tell("looking for near-duplicates")
    sides = split(found, config.heldout_fraction)
    tell("preparing the tokenizer")
    tokenizer = build_tokenizer(config.tokenizer, lambda limit: _training_text(config, found, sides, limit))
    tokenizer.save(folder / "tokenizer")
    files = cache.record_files(folder)
    writers = {side: ShardWriter(folder, side, tokenizer.vocab_size, tokenizer.end_id) for side in SIDES}
    try:
        lossless = _write_tokens(writers, tokenizer, config, found, sides, tell)
        for writer in writers.values():
            files |= writer.finish()
    finally:
        for writer in writers.values():
            writer.close()
    summary = {
        "source": config.source.describe(),
        "corpus": found.fingerprint[:16],
        "split": "whole documents" if sides.cut is None else f"the end of {found.names[sides.cut]} held out",
        "near_duplicates": sides.near_duplicates,
        "tokenizer": {"kind": config.tokenizer.kind, "tokens": tokenizer.vocab_size, "lossless": lossless},
        **{side: _count(writer) for side, writer in writers.items()},
    }
    shards = [files[name]["sha256"] for name in sorted(files) if not name.startswith("tokenizer/")]
    fingerprint = hashlib.sha256("\n".join([tokenizer.fingerprint, *shards]).encode()).hexdigest()
    return {"fingerprint": fingerprint, "summary": summary, "files": files}


def _count(writer: ShardWriter) -> dict[str, Any]:
    return {
        "documents": writer.documents,
        "tokens": writer.tokens,
        "bytes": writer.bytes,
        "bytes_per_token": round(writer.bytes / writer.tokens, 4),
    }


def _write_tokens(
    writers: dict[Side, ShardWriter],
    tokenizer: Tokenizer,
    config: TextData,
    found: Survey,
    sides: Split,
    tell: Progress,
) -> bool:
    """Encode the corpus onto both sides; whether the held-out text comes back from its tokens unchanged."""
    total, done, lossless = sum(found.sizes), 0, True
    parts = _parts(config, found, sides)
    for (name, side, text), ids, num_bytes in _encode(parts, tokenizer):
        writers[side].add(ids, num_bytes, name)
        if side == "heldout" and lossless:
            lossless = tokenizer.decode(ids) == text
        before, done = done, done + num_bytes
        if done * 10 // total > before * 10 // total:
            tell(f"encoding: {done / total:.0%} of {total / 1e6:.1f} MB")
    return lossless


Part = tuple[str, Side, str]
"""Name, side, text."""


def _parts(config: TextData, found: Survey, sides: Split) -> Iterator[Part]:
    """The corpus again, with sides, while it is as the survey saw it.

    Raises:
        DataError: it has changed meanwhile.
    """
    count = 0
    for index, document in enumerate(documents_of(config.source, config.on_undecodable)):
        digest = hashlib.blake2b(document.text.encode(), digest_size=16).digest()
        if index >= len(found.digests) or digest != found.digests[index]:
            raise DataError(f"{document.name} changed while the corpus was read.", "Run the command again.")
        count += 1
        for side, text in sides.parts(index, document.text):
            yield document.name, side, text
    if count != len(found.digests):
        raise DataError("The corpus lost documents while it was read.", "Run the command again.")


def _training_text(config: TextData, found: Survey, sides: Split, limit: int) -> Iterator[str]:
    """About so many bytes of the training side, taken evenly from all of it."""
    stride = max(1, -(-sum(found.sizes) // limit))
    texts = (text for _, side, text in _parts(config, found, sides) if side == "train")
    for number, text in enumerate(texts):
        if number % stride == 0:
            yield text


def _encode(parts: Iterator[Part], tokenizer: Tokenizer) -> Iterator[tuple[Part, list[int], int]]:
    """(part, ids, bytes of its text) in the same order, encoded in blocks."""
    block: list[Part] = []
    size = 0
    for part in parts:
        block.append(part)
        size += len(part[2])
        if size >= _BLOCK:
            yield from _encode_block(block, tokenizer)
            block, size = [], 0
    yield from _encode_block(block, tokenizer)


def _encode_block(block: list[Part], tokenizer: Tokenizer) -> Iterator[tuple[Part, list[int], int]]:
    encoded = tokenizer.encode_batch([text for _, _, text in block])
    for part, ids in zip(block, encoded, strict=True):
        yield part, ids, len(part[2].encode())
