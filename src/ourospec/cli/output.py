"""How verbs print: sections of aligned rows for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def print_json(data: Any) -> None:
    """One JSON document on stdout; a number that is not finite becomes null, as JSON has none."""
    print(json.dumps(without_nan(data), indent=2, ensure_ascii=False))


def without_nan(data: Any) -> Any:
    """The same data with null in the place of NaN and infinities, and lists in the place of tuples."""
    if isinstance(data, float) and (data != data or data in (float("inf"), float("-inf"))):
        return None
    if isinstance(data, Mapping):
        return {str(key): without_nan(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [without_nan(value) for value in data]
    return data


def print_section(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """A title and rows of name and value; the lines of a longer value stay in its column."""
    rows = list(rows)
    print(bold(title))
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        first, *others = value.splitlines() or [""]
        print(f"  {name:{width}}  {first}".rstrip())
        for line in others:
            print(f"  {'':{width}}  {line}".rstrip())
    print()


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as they need; numbers to the right, words to the left."""
    rows = [list(row) for row in rows]
    widths = [max(len(row[column]) for row in [list(header), *rows]) for column in range(len(header))]
    numeric = [all(row[column][:1].isdigit() for row in rows if row[column]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        placed = (c.rjust(w) if n else c.ljust(w) for c, w, n in zip(cells, widths, numeric, strict=True))
        return "  " + "  ".join(placed).rstrip()

    print(bold(line(header)))
    for row in rows:
        print(line(row))
    print()


def bold(text: str) -> str:
    """Bold where stdout is a terminal."""
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


def count(number: float) -> str:
    """A large number in three figures: 1,234 -> "1.23 k"; up to 999 as it is."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * limit:
            return (
                f"{number / limit:.3g} {unit}" if number / limit < 999.5 else f"{number / limit:.0f} {unit}"
            )
    return f"{number:.3g}" if number != int(number) else str(int(number))


def size(num_bytes: float) -> str:
    """Bytes for people, in powers of 1024: 1.5 GiB."""
    for limit, unit in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if num_bytes >= limit:
            return f"{num_bytes / limit:.1f} {unit}"
    return f"{int(num_bytes)} bytes"


def duration(seconds: float) -> str:
    """Seconds for people: 40 s, 3 min 20 s, 2 h 5 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
