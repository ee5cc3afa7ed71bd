"""Token shards: the tokens of one side of the split, memory-mapped, and their documents."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ourospec.errors import DataError


@dataclass(frozen=True)
class Document:
    """One text as tokens."""

    tokens: np.ndarray
    """[n] int64, without the end token on either side."""
    num_bytes: int
    """Bytes of the raw text in UTF-8."""


class TokenShards:
    """Tokens of many documents in one line: END d1 END d2 ... END, read from disk as they are needed.

    Args:
        tokens: [N], beginning and ending with the end token.
        index: [n, 2] int64, tokens (without END) and bytes of each document.
        name: for messages.
    """

    def __init__(self, tokens: np.ndarray, index: np.ndarray, end_id: int, name: str) -> None:
        self.tokens, self.end_id, self.name = tokens, end_id, name
        self._index = index
        self._starts = np.cumsum(index[:, 0] + 1) - index[:, 0]

    @property
    def num_tokens(self) -> int:
        """Tokens, the end tokens among them."""
        return len(self.tokens)

    @property
    def num_documents(self) -> int:
        return len(self._index)

    @property
    def num_bytes(self) -> int:
        """Bytes of the raw text in UTF-8."""
        return int(self._index[:, 1].sum())

    def document(self, number: int) -> Document:
        """One document, from 0."""
        start, (length, num_bytes) = self._starts[number], self._index[number].tolist()
        return Document(self.tokens[start : start + length].astype(np.int64), num_bytes)

    def documents(self) -> Iterator[Document]:
        """All documents, in order."""
        return (self.document(number) for number in range(self.num_documents))


def shard_files(name: str) -> tuple[str, str]:
    """The files of a side of the split: its tokens, and its documents' sizes."""
    return f"{name}.tokens", f"{name}.documents"


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest little-endian type for ids below a vocabulary's size."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


class ShardWriter:
    """Writes one side of the split, document by document; `finish` makes it durable."""

    def __init__(self, folder: Path, name: str, vocab_size: int, end_id: int) -> None:
        self._name, self._vocab_size, self._end_id = name, vocab_size, end_id
        self._dtype = token_dtype(vocab_size)
        paths = [folder / file for file in shard_files(name)]
        self._files = [path.open("wb") for path in paths]
        self._digests = [hashlib.sha256() for _ in paths]
        self._sizes = [0 for _ in paths]
        self._paths = paths
        self.documents = self.tokens = self.bytes = 0
        self._append(0, np.array([end_id], self._dtype))

    def add(self, ids: np.ndarray, num_bytes: int, document: str) -> None:
        """Append a document; `document` names it in errors.

        Raises:
            DataError: an id outside the vocabulary, or the end token inside the text.
        """
        if ids.size and not 0 <= ids.min() <= ids.max() < self._vocab_size:
            worst = int(ids.max() if ids.max() >= self._vocab_size else ids.min())
            raise DataError(
                f"The tokenizer gave the id {worst} in {document}, outside its vocabulary of {self._vocab_size}.",
                "The tokenizer's file contradicts itself; save it anew, or train one with: --data.tokenizer bpe",
            )
        if (ids == self._end_id).any():
            raise DataError(
                f"The text of {document} encodes to the end token (id {self._end_id}), which borders documents.",
                "Choose an end token that no text gives: --data.tokenizer.end-token TOKEN",
            )
        self._append(0, np.append(ids, self._end_id).astype(self._dtype))
        self._append(1, np.array([ids.size, num_bytes], "<i8"))
        self.documents += 1
        self.bytes += num_bytes

    def _append(self, which: int, values: np.ndarray) -> None:
        content = values.tobytes()
        self._files[which].write(content)
        self._digests[which].update(content)
        self._sizes[which] += len(content)
        if which == 0:
            self.tokens += len(values)

    def finish(self) -> dict[str, dict[str, Any]]:
        """Make it durable; size and SHA-256 of each file by name."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
        self.close()
        facts = zip(self._paths, self._sizes, self._digests, strict=True)
        return {path.name: {"bytes": size, "sha256": digest.hexdigest()} for path, size, digest in facts}

    def close(self) -> None:
        """Let go of the files."""
        for file in self._files:
            file.close()


def open_shards(folder: Path, name: str, vocab_size: int, end_id: int) -> TokenShards:
    """Map the shards of one side of the split; the caller has verified them."""
    tokens, documents = (folder / file for file in shard_files(name))
    index = np.fromfile(documents, "<i8").reshape(-1, 2)
    return TokenShards(np.memmap(tokens, token_dtype(vocab_size), mode="r"), index, end_id, name)
