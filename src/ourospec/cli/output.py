"""How verbs print: sections of aligned rows for people, one JSON document for programs."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ourospec.telemetry.plain_text import visible
from ourospec.telemetry.quantities import count


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


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Rows of equally many cells, the first being headings, in columns as wide as need be."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print()


@contextlib.contextmanager
def told_if_slow(text: str, seconds: float = 2.0) -> Iterator[None]:
    """Say on stderr what is going on, once it has taken so long."""
    timer = threading.Timer(seconds, print, (text,), {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def progress(*, shown: bool) -> Iterator[Callable[[str], None] | None]:
    """A line on stderr, gone afterwards, that says what is told to it; nothing where it is not to be shown."""
    if not shown:
        yield None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("opening the run") as status:
        # As Text, so that brackets in a path are not taken for markup.
        yield lambda what: status.update(Text(visible(what)))


def bold(text: str) -> str:
    """Bold where stdout is a terminal."""
    return f"\033[1m{text}\033[0m" if sys.stdout.isatty() else text


def flop(number: float) -> str:
    """Floating-point operations: 950 FLOP, 72.3 kFLOP."""
    text = count(number)
    return f"{text}FLOP" if text[-1].isalpha() else f"{text} FLOP"
