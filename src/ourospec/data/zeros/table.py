"""Tables of zeros in files: reading, writing, and finding out what is wrong with one.

Text has one height a line, as Odlyzko's tables have, or number and height; lines that begin with # are comments.
A file that ends in .npy is a NumPy array of float64.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ourospec.data.zeros.completeness import s_at_zeros
from ourospec.data.zeros.compute import HIGHEST
from ourospec.data.zeros.store import open_zeros
from ourospec.data.zeros.theta import smooth_count
from ourospec.errors import ConfigError, DataError, ResourceError
from ourospec.storage import write_whole

DECIMALS = 9
"""Of heights in text, at most: all of them are right, the last one to within one unit."""
TOLERANCE = 4e-9
"""Difference of a table's height from the zero that is put up with; Odlyzko states 3e-9 for his first table."""
_LOWEST = 14.0
_WIDEST_GAP = 9.0
"""Zeros that the smooth count may gain from one zero to the next: 1 + 2 max|S|, which is below 8 at these heights."""


class Table(NamedTuple):
    """A file's heights as they stand there."""

    heights: np.ndarray
    """float64 [n], rising."""
    lines: np.ndarray
    """The line, or for an array the row, of each: int64 [n], from 1."""
    digits: np.ndarray | None
    """Digits after the point of each: int64 [n]. Zeros at its end that a line leaves out are counted: as many as other
    heights of its order of magnitude have at most. None for an array."""
    numbers: np.ndarray | None = None
    """What stands before each height as its zero's number: int64 [n]. None where nothing does."""


@dataclass(frozen=True)
class TableCheck:
    """What is known of a table in which nothing was found wrong."""

    first: int
    """Number of its first zero."""
    last: int
    """Number of its last zero; none between them is missing and none is there twice."""
    first_height: float
    last_height: float
    largest_difference: float
    """Largest |height − zero computed|."""
    rms_difference: float
    tolerance: float
    """What the differences were held to, at most."""
    mean_s: float
    """Mean of S at the table's heights: a missing zero moves it towards −1."""


def read_zeros(path: Path, tell: Callable[[str], None] | None = None, cache: str = "") -> np.ndarray:
    """The heights in a file, float64 [n], each of them held against the zero that is computed here.

    Raises:
        DataError: what is wrong with the file, with its line; see `check_table`.
        ConfigError: the table lies higher than zeros are computed.
    """
    table = parse_table(path)
    check_parsed(path, table, tell=tell, cache=cache)
    return table.heights


def read_table(path: Path) -> np.ndarray:
    """The heights in a file, float64 [n], rising; whether they are zeros is for `check_table` to say.

    Raises:
        DataError: the file is missing, damaged or cut off, or holds something that cannot be a table of zeros: NaN,
            negative numbers, heights that do not rise. The message names the line.
    """
    return parse_table(path).heights


def parse_table(path: Path) -> Table:
    """As `read_table`, with what is needed to speak of single lines."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.", "Check the path.") from error
    table = _from_array(path, content) if path.suffix == ".npy" else _from_text(path, content)
    _refuse_disorder(path, table)
    return table


def _from_array(path: Path, content: bytes) -> Table:
    try:
        heights = np.load(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        begins = content.startswith(b"\x93NUMPY")
        raise DataError(
            f"{path} has been cut off, or does not hold numbers." if begins else f"{path} is no NumPy array.",
            "Copy it again, whole, or write it anew: numpy.save(FILE, heights)",
        ) from error
    if not isinstance(heights, np.ndarray) or heights.ndim != 1 or heights.dtype.kind not in "fiu":
        raise DataError(f"{path} does not hold one row of numbers.", "One number for each zero is needed.")
    return Table(heights.astype(np.float64), np.arange(1, len(heights) + 1), None)


def _from_text(path: Path, content: bytes) -> Table:
    rows = [(number, line.split()) for number, line in enumerate(content.split(b"\n"), 1)]
    rows = [(number, words) for number, words in rows if words and not words[0].startswith(b"#")]
    columns = len(rows[0][1]) if rows else 1
    for number, words in rows:
        if len(words) != columns or columns > 2:
            than = f", the first has {columns}" if columns <= 2 else ""
            raise DataError(
                f"Line {number:,} of {path} has {len(words)} columns{than}.",
                "Leave one height on each line, or the zero's number and its height.",
            )
    heights, numbers = np.empty(len(rows)), np.empty(len(rows), dtype=np.int64)
    for at, (number, words) in enumerate(rows):
        heights[at] = _read(float, words[-1], path, number, "does not hold a height")
        if columns == 2:
            numbers[at] = _read(_whole, words[0], path, number, "does not begin with a zero's number")
    digits = [len(words[-1].partition(b".")[2]) for _, words in rows]
    if len(rows) > 2 and digits[-1] < min(digits[:-1]) and not content.endswith(b"\n"):
        raise DataError(
            f"{path} has been cut off: line {rows[-1][0]:,}, its last one, ends in the middle of a number "
            f"({rows[-1][1][-1].decode()!r}).",
            "Copy it again, whole.",
        )
    lines = np.array([number for number, _ in rows], dtype=np.int64)
    return Table(heights, lines, _full_digits(heights, digits), numbers if columns == 2 else None)


def _read(kind: Callable[[bytes], float], word: bytes, path: Path, number: int, wrong: str) -> float:
    """The word as a number; DataError with its line where it is none."""
    try:
        return kind(word)
    except (ValueError, OverflowError):
        shown = word[:40].decode("utf-8", "replace")
        raise DataError(
            f"Line {number:,} of {path} {wrong}: {shown!r}.",
            "Leave one height on each line, or number and height; lines that begin with # are comments.",
        ) from None


def _whole(word: bytes) -> int:
    found = int(word)
    if abs(found) > np.iinfo(np.int64).max:
        raise OverflowError
    return found


def _full_digits(heights: np.ndarray, digits: list[int]) -> np.ndarray:
    """Table.digits from the digits that stand there.

    One short line must not loosen what the others are held to. But tables with a constant number of significant
    digits have fewer behind the point the higher they get.
    """
    magnitude = np.zeros(len(digits), dtype=np.int64)
    usable = np.isfinite(heights) & (heights >= 1)
    magnitude[usable] = np.log10(heights[usable]).astype(np.int64)
    most = np.zeros(magnitude.max(initial=0) + 1, dtype=np.int64)
    np.maximum.at(most, magnitude, digits)
    return most[magnitude]


def _refuse_disorder(path: Path, table: Table) -> None:
    """Raise DataError for what cannot be a table of zeros, whichever zeros they are."""
    heights, lines = table.heights, table.lines
    what = "row" if table.digits is None else "line"
    if not len(heights):
        raise DataError(f"{path} holds no heights.", "Name a file with one height on each line.")
    for wrong, name in ((~np.isfinite(heights), "not a finite number"), (heights <= 0, "not positive")):
        if wrong.any():
            at = int(np.argmax(wrong))
            raise DataError(
                f"The height in {what} {lines[at]:,} of {path} is {name}: {heights[at]}.",
                "Remove or mend it; heights are the imaginary parts of zeros above the real axis.",
            )
    falls = np.diff(heights) <= 0
    if falls.any():
        at = int(np.argmax(falls))
        same = heights[at] == heights[at + 1]
        raise DataError(
            f"The heights in {path} do not rise: {what} {lines[at + 1]:,} holds {heights[at + 1]} "
            + (f"once more, as {what} {lines[at]:,} does." if same else f"after {heights[at]}."),
            "Remove what is there twice." if same else "Sort it.",
        )


def decimals_at(height: float) -> int:
    """Digits after the point that a float64 of this size holds, DECIMALS at most."""
    return min(DECIMALS, max(0, math.floor(-math.log10(np.spacing(height)))))


def write_table(path: Path, heights: np.ndarray) -> None:
    """Write heights: .npy as float64, anything else as text with the digits after the point that the last one holds.

    Raises:
        ResourceError: it cannot be written; an older file stays.
    """
    if path.suffix == ".npy":
        held = io.BytesIO()
        np.save(held, heights)
        content = held.getvalue()
    else:
        digits = decimals_at(float(heights[-1]))
        content = "".join([f"{height:.{digits}f}\n" for height in heights.tolist()]).encode()
    try:
        write_whole(path, content)
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be written: {error.strerror}.", "Name another: --out FILE"
        ) from error


def check_table(
    path: Path,
    start: int | None = None,
    tolerance: float = TOLERANCE,
    tell: Callable[[str], None] | None = None,
    cache: str = "",
) -> TableCheck:
    """Hold every height of a table against the zero that is computed here, and see that none is missing.

    Args:
        start: number that the first zero should have; None: whichever it has.
        tolerance: absolute difference to put up with, raised to half a unit of the last digit in the file and to
            two units in the last place of float64.

    Raises:
        DataError: the first thing that is wrong, with its line.
        ConfigError: the table lies higher than zeros are computed.
    """
    return check_parsed(path, parse_table(path), start, tolerance, tell, cache)


def check_parsed(
    path: Path,
    table: Table,
    start: int | None = None,
    tolerance: float = TOLERANCE,
    tell: Callable[[str], None] | None = None,
    cache: str = "",
) -> TableCheck:
    """As `check_table`, of a table that `parse_table` has read already."""
    heights = table.heights
    what = "row" if table.digits is None else "line"
    tolerances = np.maximum(tolerance, 2 * np.spacing(heights))
    if table.digits is not None:
        tolerances = np.maximum(tolerances, 0.5000001 * 10.0 ** -table.digits.astype(np.float64))
    _refuse_chasms(path, table, what)
    first = max(1, math.floor(float(smooth_count(max(float(heights[0]), _LOWEST)))) - 8)
    last = math.ceil(float(smooth_count(max(float(heights[-1]), _LOWEST)))) + 8
    if last > HIGHEST:
        raise ConfigError(
            f"{path} reaches up to zero number {last:,}; zeros are computed up to number {HIGHEST:,}.",
            "Check a lower part of it.",
        )
    true = open_zeros(last - first + 1, first, tell, cache)
    at = np.clip(np.searchsorted(true, heights), 1, len(true) - 1)
    at -= heights - true[at - 1] < true[at] - heights
    off = np.abs(heights - true[at])
    lines = _Lines(path, table.lines, what)
    _refuse_strangers(lines, heights, true[at], at + first, off, tolerances)
    _refuse_gaps(lines, at + first, true, first)
    if table.numbers is not None:
        _refuse_misnumbered(lines, table.numbers, at + first)
    begins = int(at[0]) + first
    if start is not None and begins != start:
        raise DataError(
            f"{path} begins with zero number {begins:,} (height {heights[0]:.9f}), not with number {start:,} "
            f"({open_zeros(1, start, tell, cache)[0]:.9f}).",
            f"If that is meant: --start {begins}",
        )
    return TableCheck(
        first=begins,
        last=int(at[-1]) + first,
        first_height=float(heights[0]),
        last_height=float(heights[-1]),
        largest_difference=float(off.max()),
        rms_difference=float(np.sqrt(np.mean(off**2))),
        tolerance=float(tolerances.max()),
        mean_s=float(np.mean(s_at_zeros(heights, begins))),
    )


class _Lines(NamedTuple):
    """How to name a place in a file."""

    path: Path
    numbers: np.ndarray
    word: str

    def __call__(self, at: int) -> str:
        return f"{self.word} {self.numbers[at]:,}"


def _refuse_chasms(path: Path, table: Table, what: str) -> None:
    """Refuse gaps so wide that the zeros in them need not be computed to know that they are missing."""
    jumps = np.diff(smooth_count(np.maximum(table.heights, _LOWEST)))
    if len(jumps) and jumps.max() > _WIDEST_GAP:
        at = int(np.argmax(jumps))
        raise DataError(
            f"About {jumps[at] - 1:,.0f} zeros are missing from {path} between {what}s {table.lines[at]:,} and "
            f"{table.lines[at + 1]:,}: {table.heights[at]} is followed by {table.heights[at + 1]}.",
            "Complete the table, or check its parts one by one.",
        )


def _refuse_strangers(
    lines: _Lines,
    heights: np.ndarray,
    true: np.ndarray,
    numbers: np.ndarray,
    off: np.ndarray,
    tolerances: np.ndarray,
) -> None:
    """Raise DataError for heights at which there is no zero."""
    wrong = off > tolerances
    if wrong.any():
        at = int(np.argmax(wrong))
        others = int(wrong.sum()) - 1
        raise DataError(
            f"The height in {lines(at)} of {lines.path} is {float(heights[at])!r}, but the nearest zero, number "
            f"{numbers[at]:,}, lies at {true[at]:.9f}: {off[at]:.1e} away, tolerance {tolerances[at]:.1e}."
            + (
                f" {others:,} others are wrong, too; the largest difference is {off.max():.1e}."
                if others
                else ""
            ),
            "Replace it. If the table is only less accurate, say how accurate it is: --tolerance 1e-6",
        )


def _refuse_gaps(lines: _Lines, numbers: np.ndarray, true: np.ndarray, first: int) -> None:
    """Raise DataError for zeros that are there twice or not at all."""
    steps = np.diff(numbers)
    if (steps == 0).any():
        at = int(np.argmax(steps == 0))
        raise DataError(
            f"Zero number {numbers[at]:,} is in {lines.path} twice, in {lines(at)} and {lines(at + 1)}.",
            "Remove one of them.",
        )
    if (steps > 1).any():
        at = int(np.argmax(steps > 1))
        missing = int(numbers[at]) + 1
        total = int(steps.sum()) - len(steps)
        raise DataError(
            f"Zero number {missing:,} (height {true[missing - first]:.9f}) is missing from {lines.path}, between "
            f"{lines(at)} and {lines(at + 1)}; {total:,} missing in all.",
            "Insert what is missing, or compute the table anew: ouro zeros --count N --out FILE",
        )


def _refuse_misnumbered(lines: _Lines, said: np.ndarray, numbers: np.ndarray) -> None:
    """Raise DataError where the file calls a zero by a number that is not its own."""
    wrong = said != numbers
    if wrong.any():
        at = int(np.argmax(wrong))
        raise DataError(
            f"{lines(at).capitalize()} of {lines.path} calls zero number {numbers[at]:,} number {said[at]:,}; "
            f"{int(wrong.sum()):,} of its numbers are wrong.",
            "Mend the numbers (the zero at 14.13 is number 1), or leave the heights alone on their lines.",
        )
