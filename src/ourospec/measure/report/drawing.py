"""A plot as plotly's JSON, and the pieces that plots are put together from.

A colour written var(--name) is the page's, light or dark. What these pieces may hold is what plot.py can draw, too:
lines (also stacked, with error bars), bars, heat maps, and shapes that span the plot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ourospec.measure.report.history import History
from ourospec.measure.report.series import Series, smooth

SMOOTHED_SHARE = 0.03
"""Of the points, that the smooth line averages over."""
COLUMNS = 160
"""Of a heat map at most."""


@dataclass(frozen=True)
class Figure:
    """A plot with its words."""

    name: str
    section: str
    title: str
    caption: str
    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)


def line(steps: Any, values: Any, name: str, colour: str, width: float = 2) -> dict[str, Any]:
    """A line through points."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": numbers(steps),
        "y": numbers(values),
        "line": {"color": colour, "width": width},
        "marker": {"color": colour, "size": 5},
        "hovertemplate": "%{y:.4~g}",
    }


def noisy(found: Series, name: str, colour: str) -> list[dict[str, Any]]:
    """A faint line through the points, a clear one through their moving mean."""
    width = round(SMOOTHED_SHARE * len(found))
    clear = line(found.steps, smooth(found.values, width), name, colour)
    if width < 2:
        return [clear]
    faint = line(found.steps, found.values, name, colour, width=1)
    del faint["hovertemplate"]  # it would win over "skip"
    return [{**faint, "opacity": 0.3, "hoverinfo": "skip", "showlegend": False}, clear]


def with_evaluations(history: History, reading: str, score: str) -> list[dict[str, Any]]:
    """The training line, faint and smooth, and the evaluations with their errors."""
    found = history.series.get(reading)
    data = noisy(found, "training", "var(--train)") if found is not None and len(found) else []
    scored = [moment for moment in history.evaluations if moment.data.get(score) is not None]
    if scored:
        scores = line(
            [moment.step for moment in scored],
            [moment.data[score] for moment in scored],
            "held-out",
            "var(--heldout)",
        )
        errors = [moment.data.get(f"{score}_se") or 0.0 for moment in scored]
        bars = {"type": "data", "array": numbers(errors), "thickness": 1.2, "width": 3}
        data.append({**scores, "mode": "lines+markers", "error_y": bars})
    return data


def axes(vertical: str, horizontal: str = "step") -> dict[str, Any]:
    """The layout with the words of both axes."""
    return {"xaxis": {"title": {"text": horizontal}}, "yaxis": {"title": {"text": vertical}}}


def level(height: float, colour: str = "var(--faint)", dash: str = "dot") -> dict[str, Any]:
    """A shape: a line across the whole plot."""
    style = {"color": colour, "width": 1.2, "dash": dash}
    return {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height, "line": style}


def spans(steps: Sequence[tuple[int, int]], colour: str = "var(--good-bg)") -> list[dict[str, Any]]:
    """Shapes: stretches of steps, shaded from bottom to top."""
    shape = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "fillcolor": colour, "line": {"width": 0}}
    return [{**shape, "x0": first, "x1": last, "layer": "below"} for first, last in steps]


def columns(found: Series) -> tuple[np.ndarray, np.ndarray]:
    """Steps and vectors averaged into at most COLUMNS groups."""
    steps, values = found.steps, found.values
    groups = np.array_split(np.arange(len(steps)), min(COLUMNS, len(steps)))
    return np.array([steps[group].mean() for group in groups]), np.stack([values[g].mean(0) for g in groups])


def numbers(values: Any) -> list[float]:
    """In six digits, which is more than a screen can tell apart."""
    return [float(f"{value:.6g}") for value in np.asarray(values, dtype=np.float64)]


def passes(number: int) -> str:
    """1 pass, 2 passes."""
    return "1 pass" if number == 1 else f"{number} passes"
