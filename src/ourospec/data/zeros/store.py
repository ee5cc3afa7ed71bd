"""Zeros that have been computed before: pages in the user's cache, each whole, proved and checksummed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ourospec.data.cache import cache_folder, prepared, record_files
from ourospec.data.zeros.completeness import Proof
from ourospec.data.zeros.compute import HIGHEST, Zeros, check_range, proved_zeros
from ourospec.errors import DataError, ResourceError

PAGE = 50_000
"""Zeros in a page: what is lost at most when the computer goes down in the middle."""
_VERSION = 1
"""Of the digits and of the page; other ones need another number."""
_FILE = "heights.npy"


def open_zeros(
    count: int,
    start: int = 1,
    tell: Callable[[str], None] | None = None,
    cache: str = "",
    workers: int = 0,
) -> np.ndarray:
    """Heights of the zeros number start to start + count − 1, float64 [count], from the cache; computed if not there.

    Args:
        start: 1 is the zero at 14.13.
        tell: is told how far the work is.
        cache: folder; "" is the user's cache.
        workers: threads that compute; 0 takes one for each core.

    Raises:
        ConfigError: a range that does not exist, or lies too high for float64.
        DataError: a page has changed on disk.
        ResourceError: the cache cannot be written.
    """
    pages = open_pages(count, start, tell, cache, workers)
    heights = np.concatenate([page.heights for page in pages])
    return heights[start - page_of(start) :][:count]


def open_pages(
    count: int,
    start: int = 1,
    tell: Callable[[str], None] | None = None,
    cache: str = "",
    workers: int = 0,
) -> list[Zeros]:
    """The pages that a range touches, with their proofs; see `open_zeros`."""
    check_range(count, start)
    folder = cache_folder(cache) / "zeros"
    firsts = range(page_of(start), start + count, PAGE)
    pages = []
    for number, first in enumerate(firsts):
        done = f"{number * PAGE:,} of {len(firsts) * PAGE:,} zeros ready ({number / len(firsts):.0%})"
        pages.append(_open_page(folder, first, workers, _after(done, tell)))
    return pages


def page_of(number: int) -> int:
    """The first zero of the page that a zero stands on."""
    return (number - 1) // PAGE * PAGE + 1


def _after(done: str, tell: Callable[[str], None] | None) -> Callable[[str], None] | None:
    """Say what is done already, and then what is told."""
    if tell is None:
        return None
    tell(done)
    return lambda what: tell(f"{done}; {what}")


def _open_page(folder: Path, first: int, workers: int, tell: Callable[[str], None] | None) -> Zeros:
    count = min(PAGE, HIGHEST - first + 1)
    place = folder / f"v{_VERSION}-{first:012d}-{first + count - 1:012d}"

    def write(empty: Path) -> dict[str, Any]:
        zeros = proved_zeros(count, first, workers, tell)
        np.save(empty / _FILE, zeros.heights)
        return {"files": record_files(empty), "proof": asdict(zeros.proof)}

    try:
        manifest = prepared(place, write)
    except ResourceError as error:
        raise ResourceError(
            f"Zeros cannot be kept in {folder}: {error.__cause__ or error.args[0]}.",
            "Make room there (2 million zeros take 16 MB), or name another cache folder in XDG_CACHE_HOME.",
        ) from error
    heights = np.load(place / _FILE, allow_pickle=False)
    if heights.shape != (count,) or heights.dtype != np.float64:
        raise DataError(f"{place / _FILE} does not hold {count:,} numbers.", f"Remove it: rm -r '{place}'")
    return Zeros(heights, Proof(**manifest["proof"]))
