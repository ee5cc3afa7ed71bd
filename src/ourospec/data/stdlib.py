"""The embedded default corpus: the source of the Python standard library, found on the machine."""

from __future__ import annotations

import os
import platform
import re
import sysconfig
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ourospec.config import Config
from ourospec.data.documents import OnUndecodable, RawDocument, read_file, stamp_files
from ourospec.errors import DataError

_NOT_SOURCE = frozenset({"site-packages", "dist-packages", "__pycache__", "lib-dynload"})
_TESTS = frozenset({"test", "tests", "idle_test"})
_TABLES = frozenset({"pydoc_data", "html/entities.py"})
"""Data in the shape of source, without a note that says so."""
_GENERATED = re.compile(
    r"^#.*\b(auto-?generated|file is generated) by\b|generated from .* with gencodec",
    re.IGNORECASE | re.MULTILINE,
)
_HEAD = 800
"""Characters at a file's beginning in which a generator leaves its note."""


class StdlibSource(Config):
    """Source of the Python standard library on this machine, without tests and generated tables.

    Split by top-level module: a package's files stay together.
    """

    kind: Literal["stdlib"] = "stdlib"
    """Which source."""

    def stamp(self) -> str:
        return stamp_files(path for _, path in self._files())

    def describe(self) -> str:
        return f"standard library of Python {platform.python_version()}"

    def read(self, on_undecodable: OnUndecodable) -> Iterator[RawDocument]:
        for name, path in self._files():
            text = decode_source(read_file(path), path, on_undecodable)
            if not _GENERATED.search(text[:_HEAD]):
                yield RawDocument(name, name.split("/")[0].removesuffix(".py"), text)

    def _files(self) -> list[tuple[str, Path]]:
        """(name relative to the library, path), in the order of names."""
        root = find_library()
        found = []
        for folder, folders, files in os.walk(root):
            folders[:] = [f for f in folders if f not in _NOT_SOURCE | _TESTS and not f.startswith("config-")]
            for file in files:
                path = Path(folder, file)
                name = path.relative_to(root).as_posix()
                table = name in _TABLES or name.split("/")[0] in _TABLES or file.startswith("_sysconfigdata")
                if file.endswith(".py") and not table:
                    found.append((name, path))
        if not found:
            raise DataError(
                f"No source of the standard library lies in {root} (some distributions ship it compiled).",
                "Train on text of your own: --data.source files --data.source.paths FILE",
            )
        return sorted(found)


def find_library() -> Path:
    """The folder of the standard library's source; in a virtual environment, that of its base."""
    return Path(sysconfig.get_path("stdlib") or Path(os.__file__).parent)


def decode_source(content: bytes, path: Path, on_undecodable: OnUndecodable) -> str:
    """Python source as text, in the encoding that its first lines declare (PEP 263), UTF-8 where none.

    Raises:
        DataError: bytes that are not in that encoding, unless they are to be replaced.
    """
    if on_undecodable == "replace":
        return content.decode(_declared(content) or "utf-8", errors="replace")
    try:
        return content.decode(_declared(content) or "utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not text in the encoding that it declares: {error}.",
            "Repair the Python installation, or have such bytes replaced with: --data.on-undecodable replace",
        ) from None


def _declared(content: bytes) -> str | None:
    """The encoding of Python source; None where its first lines contradict themselves."""
    try:
        return tokenize.detect_encoding(iter(content.splitlines(keepends=True)).__next__)[0]
    except SyntaxError:
        return None
