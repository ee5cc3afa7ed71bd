"""Files that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest

from ourospec.errors import ResourceError
from ourospec.train import durable
from ourospec.train.durable import explained, replace_file, write_file


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    written = write_file(tmp_path / "x", [b"ab", b"", memoryview(b"c")])
    assert written.bytes == 3
    assert written.sha256 == hashlib.sha256(b"abc").hexdigest()


def test_a_write_that_the_system_cuts_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    class Short:
        def __init__(self, file) -> None:
            self.file = file

        def write(self, view) -> int:
            return self.file.write(view[:3])

        def fileno(self) -> int:
            return self.file.fileno()

        def __enter__(self):
            return self

        def __exit__(self, *error) -> None:
            self.file.close()

    monkeypatch.setattr(Path, "open", lambda path, *a, **k: Short(real(path, *a, **k)))
    written = write_file(tmp_path / "x", [b"0123456789"])
    monkeypatch.undo()
    assert (tmp_path / "x").read_bytes() == b"0123456789"
    assert written.bytes == 10


def test_an_existing_file_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "x", [b"new"])
    assert (tmp_path / "x").read_text() == "old"


def test_replacing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "recipe.json"
    replace_file(path, "old")
    (tmp_path / "recipe.json.tmp").write_text("left by a crash")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(durable.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(path, "new")
    assert path.read_text() == "old"
    monkeypatch.undo()
    replace_file(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_trouble_with_the_disk_is_explained(tmp_path: Path) -> None:
    failed = pytest.raises(ResourceError, match=r"Writing the thing failed in .*: Read-only")
    with failed as caught, explained("Writing the thing", tmp_path):
        raise OSError(errno.EROFS, "Read-only file system")
    assert "df -h" in caught.value.remedy
