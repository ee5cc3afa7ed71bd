"""Small text files that are replaced as a whole."""

from __future__ import annotations

from pathlib import Path

from ourospec import storage
from ourospec.errors import ResourceError


def write_whole(path: Path, text: str) -> None:
    """Put a text file in place of the one that is there, if any: readers see the old one or the new one.

    Raises:
        ResourceError: it cannot be written; the old one stays.
    """
    try:
        storage.write_whole(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise ResourceError(
            f"{path} could not be written: {error.strerror or error}.",
            "See that the directory can be written to and that its disk has room (df -h), then try again.",
        ) from error
