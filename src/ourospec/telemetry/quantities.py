"""Numbers as people read them."""

from __future__ import annotations

import math

UNKNOWN = "–"
"""Stands where a number should be that is not known."""


def count(number: float | None) -> str:
    """A count in three digits with a decimal prefix: 950, 3.21 k, 5.12 M, 1.30 G."""
    if number is None or not math.isfinite(number):
        return UNKNOWN
    for scale, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        # 999.6 k would be printed as 1000 k, so it belongs to the next prefix already.
        if abs(number) >= 0.9995 * scale:
            return f"{_three_digits(number / scale)} {prefix}"
    return f"{number:.0f}" if float(number).is_integer() else _three_digits(number)


def counted(number: int, thing: str) -> str:
    """So many of a thing: 1 document, 1,250 documents."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def duration(seconds: float | None) -> str:
    """A time in two units at most: 42 s, 9 min 40 s, 3 h 5 min, 2 d 4 h."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for unit, name, part, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit:
            rest = whole % unit // part
            return f"{whole // unit} {name} {rest} {smaller}" if rest else f"{whole // unit} {name}"
    return f"{whole} s"


def clock(seconds: float | None) -> str:
    """A time as a clock shows it: 0:42, 9:40, 3:05:00."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(num_bytes: float | None) -> str:
    """Bytes in powers of 1024: 512 bytes, 38.5 MiB."""
    if num_bytes is None or not math.isfinite(num_bytes):
        return UNKNOWN
    for exponent, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if num_bytes >= 1 << exponent:
            return f"{num_bytes / (1 << exponent):.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def decimal(number: float | None, digits: int = 3) -> str:
    """A number with so many digits behind the point."""
    return UNKNOWN if number is None or not math.isfinite(number) else f"{number:.{digits}f}"


def scientific(number: float | None) -> str:
    """A small number in two digits: 2.9e-3."""
    if number is None or not math.isfinite(number):
        return UNKNOWN
    if number == 0:
        return "0"
    mantissa, _, exponent = f"{number:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def with_error(value: float | None, error: float | None, digits: int = 3) -> str:
    """A value and its standard error, where there is one: 1.534 ± 0.021."""
    text = decimal(value, digits)
    if value is None or error is None or not math.isfinite(error):
        return text
    return f"{text} ± {error:.{digits}f}"


def _three_digits(number: float) -> str:
    return f"{number:.{0 if abs(number) >= 99.95 else 1 if abs(number) >= 9.995 else 2}f}"
