"""Writing files so that they are either whole on the disk or not there at all. Imports no torch."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ourospec.errors import ResourceError
from ourospec.storage import sync_directory

READ_BLOCK = 1 << 20


class Written(NamedTuple):
    """What a file was meant to hold: the digest is taken of the bytes on their way to the disk."""

    bytes: int
    sha256: str


@contextlib.contextmanager
def explained(what: str, path: Path) -> Iterator[None]:
    """Turn what the operating system says of a file into what the user can do about it.

    Raises:
        ResourceError: whenever the inside raises OSError.
    """
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{what} failed in {path}: {error.strerror or error}.",
            "See that the directory can be written to and that its disk has room (df -h), then try again.",
        ) from error


def write_file(path: Path, blocks: Iterable[bytes | memoryview]) -> Written:
    """Write a new file and wait until it is on the disk.

    Raises:
        OSError: it could not be written; a part of it may be left.
    """
    digest, count = hashlib.sha256(), 0
    with path.open("xb", buffering=0) as file:
        for block in blocks:
            view = memoryview(block).cast("B")
            digest.update(view)
            count += len(view)
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())
    return Written(count, digest.hexdigest())


def replace_file(path: Path, text: str) -> None:
    """Put a text file in place of the one that is there, if any, in one indivisible step.

    The name it is written under first is always the same, so a crash leaves at most one, which the next call
    takes away; two callers at a time are the caller's to prevent.
    """
    fresh = path.with_name(f"{path.name}.tmp")
    fresh.unlink(missing_ok=True)
    try:
        write_file(fresh, [text.encode()])
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_directory(path.parent)


def digest_file(path: Path) -> Written:
    """Size and SHA-256 of a file as it is on the disk now.

    Raises:
        OSError: it cannot be read.
    """
    digest, count = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            # Ask for what the disk holds, not for what the page cache remembers of writing it.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(READ_BLOCK):
            digest.update(block)
            count += len(block)
    return Written(count, digest.hexdigest())


def sync_file(path: Path) -> None:
    """Wait until what other hands have written to a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
