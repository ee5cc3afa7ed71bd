"""The manifest of a checkpoint: what it holds, whose it is, and whether it is still what was written."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from ourospec.config import Config
from ourospec.errors import ConfigError
from ourospec.train.durable import digest_file

SCHEMA = 1
MANIFEST = "manifest.json"


class Damaged(Exception):
    """A checkpoint that is not what was written. Never leaves this room: the one before it is taken."""


class Identity(NamedTuple):
    """What a checkpoint belongs to: digests of the recipe and of the data with its order."""

    recipe: str
    data: str


class FileEntry(Config):
    """One file of the checkpoint."""

    bytes: int
    """Size."""
    sha256: str
    """Digest of the content, in hexadecimal."""


class Manifest(Config):
    """Everything needed to judge a checkpoint without understanding it."""

    schema_version: int = SCHEMA
    """Layout of the checkpoint's files."""
    step: int
    """Finished optimiser steps."""
    recipe: str
    """SHA-256 of the recipe, in hexadecimal."""
    data: str
    """Fingerprint of the training data and its order."""
    files: dict[str, FileEntry]
    """Every other file of the checkpoint."""

    @property
    def identity(self) -> Identity:
        """What the checkpoint belongs to."""
        return Identity(self.recipe, self.data)

    @property
    def total_bytes(self) -> int:
        """Size of all files together."""
        return sum(entry.bytes for entry in self.files.values())

    def to_text(self) -> str:
        """As written: the fields and, last, a digest of the fields themselves."""
        fields = self.model_dump()
        return _canonical({**fields, "sha256": _digest(fields)})


def _canonical(fields: dict[str, object]) -> str:
    return json.dumps(fields, indent=2) + "\n"


def _digest(fields: dict[str, object]) -> str:
    return hashlib.sha256(_canonical(fields).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """Read a manifest and see that it is whole.

    Raises:
        Damaged: it is missing, cut off or changed, were it by one bit.
        ConfigError: it was written by a later version.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
        fields = json.loads(raw)
        claimed = fields.pop("sha256")
        # Comparing bytes, not meaning: a flipped bit in a blank is a sign of a bad disk too.
        if claimed != _digest(fields) or raw != _canonical({**fields, "sha256": claimed}).encode():
            raise Damaged(f"{MANIFEST} is not what was written")
    except OSError as error:
        raise Damaged(f"{MANIFEST} cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise Damaged(f"{MANIFEST} is cut off or garbled") from error
    if fields.get("schema_version") != SCHEMA:
        raise ConfigError(
            f"{folder} has checkpoint layout {fields.get('schema_version')}; this version reads layout {SCHEMA}.",
            "Use the version of ourospec that wrote it (see environment.json in the run directory).",
        )
    try:
        manifest = Manifest.model_validate(fields)
    except ValidationError as error:
        raise Damaged(f"{MANIFEST} lacks what a manifest has: {error}") from error
    if folder.name not in (checkpoint_name(manifest.step), best_name(manifest.step)):
        raise Damaged(f"{MANIFEST} is of step {manifest.step}, the folder of another")
    return manifest


def check_files(folder: Path, manifest: Manifest, only: frozenset[str] | None = None) -> None:
    """See that the files are those of the manifest, to the byte.

    Args:
        only: read no files but these; None reads all.

    Raises:
        Damaged: a file is missing, too many, cut off, changed or unreadable.
    """
    try:
        present = {child.name for child in folder.iterdir()} - {MANIFEST}
        listed = set(manifest.files)
        if present != listed:
            odd = ", ".join(sorted(present ^ listed))
            raise Damaged(f"the files present and those of {MANIFEST} differ: {odd}")
        for name, entry in manifest.files.items():
            if only is not None and name not in only:
                continue
            found = digest_file(folder / name)
            if found.bytes != entry.bytes:
                raise Damaged(f"{name} has {found.bytes} bytes, {entry.bytes} were written")
            if found.sha256 != entry.sha256:
                raise Damaged(f"{name} is not what was written (SHA-256 differs)")
    except OSError as error:
        raise Damaged(f"cannot be read: {error}") from error


def checkpoint_name(step: int) -> str:
    """The folder of the checkpoint after `step` optimiser steps."""
    return f"step-{step:08d}"


def best_name(step: int) -> str:
    """The folder of the weights after `step` optimiser steps, kept for being the best."""
    return f"best-{step:08d}"
