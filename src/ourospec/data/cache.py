"""The cache of prepared text and of zeros: folders written once, whole, and verified when they are opened."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ourospec.errors import DataError, ResourceError
from ourospec.storage import sync_directory, write_whole

MANIFEST = "manifest.json"
FORMAT = 2
"""Of the folders written here, and of the way text becomes tokens; a change of either needs another number."""
_VERIFIED = "verified.json"
_TEMPORARY = ".preparing-"
_ALWAYS_HASHED = 64 << 20
"""Bytes up to which a file is hashed at every opening; a larger one only when its size or time has changed."""
_STALE_AFTER = 24 * 3600
"""Seconds after which an unfinished folder that nobody writes to is swept."""


def cache_folder(asked: str) -> Path:
    """Where prepared text is kept: the folder asked for, or for "" the user's cache on this platform."""
    if asked:
        return Path(asked).expanduser()
    if sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    else:
        # The XDG base directory specification: relative paths in the variable are to be ignored.
        named = Path(os.environ.get("XDG_CACHE_HOME", ""))
        base = named if named.is_absolute() else Path.home() / ".cache"
    return base / "ourospec"


def prepared(folder: Path, write: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """The manifest of a folder in the cache, written now if it is not there, and verified.

    Two processes may prepare the same folder at once: each writes one of its own, the first to finish puts it in
    place, and the other drops its copy.

    Args:
        write: fills an empty folder and returns its manifest, with size and SHA-256 of each file in "files".

    Raises:
        ResourceError: the cache cannot be written.
        DataError: the folder is not as it was written.
    """
    if not folder.exists():
        with _writable(folder.parent):
            folder.parent.mkdir(parents=True, exist_ok=True)
            _sweep(folder.parent)
            # Not tempfile.mkdtemp: a cache may be shared, and its folders are private.
            temporary = folder.parent / f"{_TEMPORARY}{uuid.uuid4().hex}"
            temporary.mkdir()
            try:
                manifest = {"format": FORMAT, **write(temporary)}
                _write_durably(temporary / MANIFEST, json.dumps(manifest, indent=2).encode() + b"\n")
                for place in (*(p for p in temporary.rglob("*") if p.is_dir()), temporary):
                    sync_directory(place)
                _put_in_place(temporary, folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return verify(folder)


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a prepared folder whose files are as they were written.

    Raises:
        DataError: a file is missing, or has changed on disk.
    """
    manifest = _read_manifest(folder)
    seen = _read_json(folder / _VERIFIED)
    checked: dict[str, list[int]] = {}
    for name, facts in manifest["files"].items():
        path = folder / name
        try:
            now = path.stat()
        except FileNotFoundError:
            raise _damaged(folder, f"{path} is missing") from None
        if now.st_size != facts["bytes"]:
            raise _damaged(folder, f"{path} has {now.st_size} bytes instead of {facts['bytes']}")
        stamp = [now.st_size, now.st_mtime_ns]
        known = seen.get(name) == stamp and now.st_size > _ALWAYS_HASHED
        if not known and hash_file(path) != facts["sha256"]:
            raise _damaged(folder, f"{path} has changed on disk (its SHA-256 is another)")
        checked[name] = stamp
    if checked != seen:
        # A cache that is shared and read-only is hashed each time.
        with contextlib.suppress(OSError):
            write_whole(folder / _VERIFIED, json.dumps(checked).encode())
    return manifest


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and SHA-256 of every file below a folder, by relative path, each made durable."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        name = path.relative_to(folder).as_posix()
        found[name] = {"bytes": path.stat().st_size, "sha256": hash_file(path)}
    return found


def remember(note: Path, value: dict[str, Any]) -> None:
    """Keep a small note in the cache; a cache that cannot be written does without."""
    with contextlib.suppress(OSError):
        write_whole(note, json.dumps(value).encode())


def recall(note: Path) -> dict[str, Any]:
    """A note from the cache, empty where there is none."""
    return _read_json(note)


def _put_in_place(temporary: Path, folder: Path) -> None:
    try:
        temporary.rename(folder)
    except OSError:
        if not (folder / MANIFEST).is_file():
            raise
    sync_directory(folder.parent)


def _read_manifest(folder: Path) -> dict[str, Any]:
    manifest = _read_json(folder / MANIFEST)
    if not isinstance(manifest.get("files"), dict):
        raise _damaged(folder, f"{folder / MANIFEST} is missing or no longer readable")
    return manifest


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _damaged(folder: Path, what: str) -> DataError:
    return DataError(
        f"What the cache holds is not as it was written: {what}.",
        f"Remove it, and the next run prepares it again: rm -r '{folder}'",
    )


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sweep(parent: Path) -> None:
    """Remove what processes that died have left unfinished."""
    for left in parent.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            newest = max(path.stat().st_mtime for path in [left, *left.rglob("*")])
            if time.time() - newest > _STALE_AFTER:
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno not in (
            errno.ENOSPC,
            errno.EDQUOT,
            errno.EROFS,
            errno.EACCES,
            errno.EPERM,
            errno.ENOTDIR,
        ):
            raise
        free = shutil.disk_usage(_existing(folder)).free
        raise ResourceError(
            f"Prepared text cannot be written into {folder}: {error.strerror} ({free / 1e6:.0f} MB are free there; "
            "tokens take about half the size of their text, bytes as tokens twice).",
            "Keep it elsewhere with: --data.cache FOLDER (a run already begun keeps its own: give a new --run too)",
        ) from error


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
