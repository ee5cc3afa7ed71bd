"""Colours by which a terminal shows how long a token was thought about."""

from __future__ import annotations

import math
from typing import NamedTuple


class Band(NamedTuple):
    """Tokens with up to `limit` passes, as a mean over layers, and more than the band before."""

    limit: float
    colour: int
    """Of the 256 of a terminal; each is readable on black and on white."""

    def name(self, before: float) -> str:
        """As a legend calls it, given the limit of the band before (0 for the first)."""
        if not before:
            return f"{self.limit:g}"
        return f"over {before:g}" if math.isinf(self.limit) else f"to {self.limit:g}"


BANDS = (Band(1.0, 33), Band(1.5, 37), Band(2.0, 71), Band(3.0, 172), Band(math.inf, 161))
"""From quick blue to thoughtful red."""


def band_colour(passes: float) -> int:
    """The terminal colour for a token with so many passes."""
    return next(band.colour for band in BANDS if passes <= band.limit + 1e-6)


def legend() -> list[tuple[str, int]]:
    """(name, terminal colour) of each band."""
    befores = [0.0, *(band.limit for band in BANDS[:-1])]
    return [(band.name(before), band.colour) for band, before in zip(BANDS, befores, strict=True)]
