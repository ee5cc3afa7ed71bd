"""Preparing a corpus: survey, split, tokenizer and shards, written into one folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ourospec.data.cache import record_files
from ourospec.data.documents import OnUndecodable, Side, Source, cut_text, digest_of, documents_of
from ourospec.data.encoding import PIECE, Part, encode_parts, loses_nothing
from ourospec.data.shards import ShardWriter
from ourospec.data.split import Split, Survey
from ourospec.data.tokenizers import Tokenizer
from ourospec.errors import DataError

SIDES: tuple[Side, Side] = ("train", "heldout")
Progress = Callable[[str], None]
"""Told in words what is being done."""
_CHECKED = 8_000_000
"""Characters of held-out text on which a tokenizer is tried for losses."""
_TRAINING_PIECE = 1 << 16
"""Characters of a piece from which merges are learned."""


@dataclass(frozen=True)
class Corpus:
    """A source with what its survey found and its split: read again and again, never held in memory."""

    source: Source
    on_undecodable: OnUndecodable
    found: Survey
    split: Split

    @property
    def num_bytes(self) -> int:
        """Of all text, in UTF-8."""
        return sum(self.found.sizes)

    def parts(self) -> Iterator[Part]:
        """All text with its sides.

        Raises:
            DataError: it is no longer what the survey saw.
        """
        digests = self.found.digests
        count = 0
        for index, document in enumerate(documents_of(self.source, self.on_undecodable)):
            if index >= len(digests) or digest_of(document.text) != digests[index]:
                raise DataError(
                    f"{document.name} changed while the corpus was read.", "Run the command again."
                )
            count += 1
            for side, text in self.split.parts(index, document.text):
                yield Part(document.name, side, text)
        if count != len(digests):
            raise DataError("The corpus lost documents while it was read.", "Run the command again.")

    def training_text(self, limit: int) -> Iterator[str]:
        """About so many bytes of the training side, in pieces taken evenly from all of it."""
        stride = -(-self.num_bytes // limit)
        texts = (part.text for part in self.parts() if part.side == "train")
        pieces = (piece for text in texts for piece in cut_text(text, _TRAINING_PIECE))
        return (piece for number, piece in enumerate(pieces) if number % stride == 0)


def write_prepared(folder: Path, corpus: Corpus, tokenizer: Tokenizer, tell: Progress) -> dict[str, Any]:
    """Write tokenizer and shards into an empty folder.

    Returns:
        The manifest: fingerprint, summary, and size and SHA-256 of each file.
    """
    tokenizer.save(folder / "tokenizer")
    files = record_files(folder)
    writers: dict[Side, ShardWriter] = {
        side: ShardWriter(folder, side, tokenizer.vocab_size, tokenizer.end_id) for side in SIDES
    }
    try:
        lossless = _write_tokens(writers, corpus, tokenizer, tell)
        shards = {name: facts for writer in writers.values() for name, facts in writer.finish().items()}
    finally:
        for writer in writers.values():
            writer.close()
    content = [tokenizer.fingerprint, *(shards[name]["sha256"] for name in sorted(shards))]
    cut = corpus.split.cut
    summary = {
        "source": corpus.source.describe(),
        "corpus_fingerprint": corpus.found.fingerprint,
        "split": "whole documents" if cut is None else f"the end of {corpus.found.names[cut]} is held out",
        "near_duplicates": corpus.split.near_duplicates,
        "vocab_size": tokenizer.vocab_size,
        "lossless": lossless,
        **{side: _count(writer) for side, writer in writers.items()},
    }
    fingerprint = hashlib.sha256("\n".join(content).encode()).hexdigest()
    return {"fingerprint": fingerprint, "summary": summary, "files": files | shards}


def _write_tokens(
    writers: dict[Side, ShardWriter], corpus: Corpus, tokenizer: Tokenizer, tell: Progress
) -> bool:
    """Encode the corpus onto both sides; whether held-out text comes back from its tokens unchanged."""
    total, done, checked, lossless = corpus.num_bytes, 0, 0, True
    for part, ids in encode_parts(corpus.parts(), tokenizer):
        size = len(part.text.encode())
        writers[part.side].add(ids, size, part.name)
        if part.side == "heldout" and lossless and checked < _CHECKED:
            sample = part.text[:PIECE]
            lossless = loses_nothing(tokenizer, sample)
            checked += len(sample)
        before, done = done, done + size
        if done * 10 // total > before * 10 // total:
            tell(f"encoding: {done / total:.0%} of {total / 1e6:.1f} MB")
    return lossless


def _count(writer: ShardWriter) -> dict[str, Any]:
    return {
        "documents": writer.documents,
        "tokens": writer.tokens,
        "bytes": writer.bytes,
        "bytes_per_token": round(writer.bytes / writer.tokens, 4),
    }
