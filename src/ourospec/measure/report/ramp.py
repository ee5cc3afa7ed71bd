"""The colours of depth: nine of them, from little thought to much, defined twice in page.css (light and dark)."""

from __future__ import annotations

COLOURS = 9


def ramp_index(share: float) -> int:
    """Which colour stands for a share of the way from the least to the most, 0 to 1."""
    return min(COLOURS - 1, max(0, int(share * COLOURS)))


def ramp_color(share: float) -> str:
    """The same, as the style sheet calls it."""
    return f"var(--r{ramp_index(share)})"


def ramp_scale() -> list[list[float | str]]:
    """All of them, as a colour scale of plotly's."""
    return [[index / (COLOURS - 1), f"var(--r{index})"] for index in range(COLOURS)]
