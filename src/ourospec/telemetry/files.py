"""Small text files that are replaced as a whole."""

from __future__ import annotations

import os
from pathlib import Path

from ourospec.errors import ResourceError


def write_whole(path: Path, text: str) -> None:
    """Put a text file in place of the one that is there, if any: readers see the old one or the new one.

    Raises:
        ResourceError: it cannot be written; the old one stays.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8", errors="replace")
        fresh.replace(path)
    except OSError as error:
        raise ResourceError(
            f"{path} could not be written: {error.strerror or error}.",
            "See that the directory can be written to and that its disk has room (df -h), then try again.",
        ) from error
    finally:
        fresh.unlink(missing_ok=True)
