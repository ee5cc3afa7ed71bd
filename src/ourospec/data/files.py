"""Text files as a corpus: each file is a document."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ourospec.config import Config, absolute_glob
from ourospec.data.documents import OnUndecodable, RawDocument, decode_utf8, read_file, stamp_files
from ourospec.errors import DataError


class FilesSource(Config):
    """Text files in UTF-8, each a document."""

    kind: Literal["files"] = "files"
    """Which source."""
    paths: Annotated[tuple[Annotated[str, AfterValidator(absolute_glob)], ...], Field(min_length=1)]
    """Files, folders (all files below, hidden ones left out) and globs (`**` crosses folders)."""

    def stamp(self) -> str:
        return stamp_files(find_files(self.paths))

    def describe(self) -> str:
        return "files " + ", ".join(self.paths)

    def read(self, on_undecodable: OnUndecodable) -> Iterator[RawDocument]:
        files = find_files(self.paths)
        for name, path in name_files(files):
            yield RawDocument(name, name, decode_utf8(read_file(path), str(path), on_undecodable))


def find_files(paths: tuple[str, ...]) -> list[Path]:
    """Every file that is meant, absolute, once, sorted.

    Raises:
        DataError: a path at which there is no file.
    """
    found: set[Path] = set()
    for path in paths:
        place = Path(path).expanduser()
        if place.is_dir():
            here = [file for file in place.rglob("*") if file.is_file() and not _hidden(file, place)]
        elif place.exists():
            here = [place]
        else:
            here = [match for match in find_matches(str(place)) if match.is_file()]
        if not here:
            what = "is an empty folder" if place.is_dir() else "matches no file"
            raise DataError(
                f"{path} {what}.",
                "Check the path; a glob must be quoted from the shell, and a folder needs files in it.",
            )
        found.update(file.resolve() for file in here)
    return sorted(found)


def name_files(files: list[Path]) -> Iterator[tuple[str, Path]]:
    """(name, file): each named by its path from the folder that holds them all, wherever that lies."""
    root = Path(os.path.commonpath([path.parent for path in files]))
    return ((path.relative_to(root).as_posix(), path) for path in files)


def find_matches(pattern: str) -> Iterator[Path]:
    """What a glob matches, absolute patterns included (Path.glob refuses those)."""
    return map(Path, glob.iglob(pattern, recursive=True))  # noqa: PTH207


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)
