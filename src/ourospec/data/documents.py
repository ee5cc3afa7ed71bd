"""Documents as a source gives them: named pieces of text, not yet tokens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from ourospec.errors import DataError

OnUndecodable = Literal["refuse", "replace"]
Side = Literal["train", "heldout"]
"""Of the split."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_REPLACE = "--data.on-undecodable replace (under ouro evaluate: --on-undecodable replace)"


class RawDocument(NamedTuple):
    """One text."""

    name: str
    """Unique in its corpus, the same on every machine; decides the document's place in the split."""
    group: str
    """Documents of one group stay on one side of the split."""
    text: str


class Source(Protocol):
    """Where text comes from. Every source is a configuration class, told apart by its `kind`."""

    @property
    def kind(self) -> str: ...

    def stamp(self) -> str:
        """Changes when what the source would read changes; found without reading it (sizes and times)."""
        ...

    def read(self, on_undecodable: OnUndecodable) -> Iterator[RawDocument]:
        """All documents, the same in the same order at every call.

        Raises:
            DataError: nothing is there, or bytes that are no text.
        """
        ...

    def describe(self) -> str:
        """In a few words, for reports."""
        ...


def documents_of(source: Source, on_undecodable: OnUndecodable) -> Iterator[RawDocument]:
    """The documents that have text in them.

    Raises:
        DataError: see `Source.read`; or a text that UTF-8 cannot hold.
    """
    for document in source.read(on_undecodable):
        if document.text.strip():
            yield check_encodable(document, on_undecodable)


def cut_text(text: str, size: int) -> Iterator[str]:
    """A text in pieces of at most so many characters, behind a line's end where there is one."""
    start = 0
    while len(text) - start > size:
        end = text.rfind("\n", start, start + size) + 1 or start + size
        yield text[start:end]
        start = end
    yield text[start:]


def digest_of(text: str) -> bytes:
    """16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def decode_utf8(content: bytes, where: str, on_undecodable: OnUndecodable) -> str:
    """The text of a file or a line, which `where` names. A byte-order mark is dropped, nothing else is changed.

    Raises:
        DataError: bytes that are not UTF-8, unless they are to be replaced by U+FFFD.
    """
    if on_undecodable == "replace":
        return content.decode("utf-8-sig", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # utf-8-sig counts from behind the mark.
        offset = error.start + (3 if content.startswith(b"\xef\xbb\xbf") else 0)
        line = content.count(b"\n", 0, offset) + 1
        raise DataError(
            f"{where} is not UTF-8 text: byte 0x{content[offset]:02x} at offset {offset}, in line {line}.",
            "Convert the file (iconv -f LATIN1 -t UTF-8), leave it out, or have such bytes replaced with: "
            f"{_REPLACE}",
        ) from None


def check_encodable(document: RawDocument, on_undecodable: OnUndecodable) -> RawDocument:
    """The document itself; JSON can spell halves of surrogate pairs, which are no characters.

    Raises:
        DataError: it has such halves, unless they are to be replaced.
    """
    try:
        document.text.encode()
    except UnicodeEncodeError as error:
        if on_undecodable == "replace":
            return document._replace(text=_SURROGATE.sub("\ufffd", document.text))
        raise DataError(
            f"{document.name} holds half a surrogate pair at character {error.start}, which is no text.",
            f"Mend or leave out the row, or have such halves replaced with: {_REPLACE}",
        ) from None
    return document


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(f"{path} cannot be read: {reason}.", "Check the path and its permissions.") from error


def stamp_files(paths: Iterable[Path]) -> str:
    """A digest of names, sizes and modification times."""
    digest = hashlib.sha256()
    for path in paths:
        facts = path.stat()
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()
