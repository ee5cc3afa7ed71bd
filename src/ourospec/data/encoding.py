"""Documents into tokens: in blocks for speed, long texts in pieces for memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ourospec.data.documents import OnUndecodable, Side, Source, cut_text, documents_of
from ourospec.data.shards import Document
from ourospec.data.tokenizers import Tokenizer
from ourospec.errors import DataError

PIECE = 1_000_000
"""Characters after which a text is cut, for encoding only: an encoder's notes take many times the text's memory."""
_BLOCK = 4_000_000
"""Characters that are encoded at a time."""


class Part(NamedTuple):
    """The text of a document, or what of it lies on one side of the split."""

    name: str
    side: Side
    text: str


def encode_documents(
    source: Source, tokenizer: Tokenizer, on_undecodable: OnUndecodable = "refuse"
) -> Iterator[Document]:
    """All documents of a source as tokens, without split or cache: for scoring a text once.

    Raises:
        DataError: there is no text, or bytes that are not UTF-8.
    """
    parts = (Part(d.name, "heldout", d.text) for d in documents_of(source, on_undecodable))
    empty = True
    for part, ids in encode_parts(parts, tokenizer):
        empty = False
        yield Document(ids, len(part.text.encode()))
    if empty:
        raise DataError(f"There is no text in {source.describe()}.", "Name files that hold text.")


def encode_parts(parts: Iterable[Part], tokenizer: Tokenizer) -> Iterator[tuple[Part, np.ndarray]]:
    """Each part with its ids, [n] int64, in the same order."""
    done: list[np.ndarray] = []
    for block in _blocks(parts):
        encoded = tokenizer.encode_batch([piece for _, piece, _ in block])
        for (part, _, last), ids in zip(block, encoded, strict=True):
            done.append(np.array(ids, np.int64))
            if last:
                yield part, np.concatenate(done)
                done = []


def loses_nothing(tokenizer: Tokenizer, text: str) -> bool:
    """Whether a text comes back from its tokens unchanged."""
    return all(tokenizer.decode(tokenizer.encode(piece)) == piece for piece in cut_text(text, PIECE))


def byte_lengths(tokenizer: Tokenizer) -> np.ndarray:
    """[V] int64, bytes of text that each token stands for; 0 for special ones."""
    return np.array([len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)], np.int64)


def _blocks(parts: Iterable[Part]) -> Iterator[list[tuple[Part, str, bool]]]:
    """(part, piece of it, whether that is the last piece), in blocks of about _BLOCK characters."""
    block: list[tuple[Part, str, bool]] = []
    size = 0
    for part in parts:
        length = 0
        for piece in cut_text(part.text, PIECE):
            length += len(piece)
            block.append((part, piece, length == len(part.text)))
            size += len(piece)
            if size >= _BLOCK:
                yield block
                block, size = [], 0
    if block:
        yield block
