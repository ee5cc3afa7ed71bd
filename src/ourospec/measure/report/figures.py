"""The plots of a report, as plotly's JSON. A colour written var(--name) is the page's, light or dark."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ourospec.measure.report.history import History
from ourospec.measure.report.ramp import ramp_color, ramp_scale
from ourospec.measure.report.series import Series, smooth

SMOOTHED_SHARE = 0.03
"""Of the points, that the smooth line averages over."""
COLUMNS = 160
"""Of a heat map at most."""
SNAPSHOTS = 5
KNOWN = frozenset(
    {
        "loss", "lm_loss", "bits_per_byte", "lr", "grad_norm", "grad_norm_clipped", "tokens", "tokens_per_second",
        "seconds", "step_seconds", "mean_passes", "wanted_passes", "expected_passes", "exec_passes", "gap",
        "passes_by_layer", "depth_histogram", "survival", "price", "price_next", "target_passes", "control_error",
        "deadband_steps", "delta_ce", "delta_h", "audit_layer",
    }
)  # fmt: skip
"""Readings with a plot of their own, or none needed; any other number gets a small one."""


@dataclass(frozen=True)
class Figure:
    """A plot with its words."""

    name: str
    section: str
    title: str
    caption: str
    data: list[dict[str, Any]]
    layout: dict[str, Any] = field(default_factory=dict)


def draw_figures(history: History) -> list[Figure]:
    """All plots for which the run has numbers, in the order of the page."""
    drawers = (_loss, _bits, _depth, _histogram, _survival, _layers, _rate, _gradient, _speed, _others)
    return [figure for drawer in drawers for figure in drawer(history)]


def _loss(history: History) -> Iterator[Figure]:
    name = "lm_loss" if "lm_loss" in history.series else "loss"
    data = _with_evaluations(history, name, "loss")
    if data:
        caption = (
            "Nats per token of the text alone; lower is better. Bars: one standard error over documents."
        )
        yield Figure("loss", "learning", "Loss", caption, data, _axes("nats per token"))


def _bits(history: History) -> Iterator[Figure]:
    data = _with_evaluations(history, "bits_per_byte", "bits_per_byte")
    if data:
        caption = "What the model would need to store a byte of text; comparable across tokenizers."
        yield Figure("bits", "learning", "Bits per byte", caption, data, _axes("bits per byte"))


def _depth(history: History) -> Iterator[Figure]:
    if history.adaptive and "mean_passes" in history.series:
        data = _with_evaluations(history, "mean_passes", "mean_passes")
        layout = _axes("passes per token and layer")
        layout["yaxis"]["range"] = [0.9, history.max_passes + 0.1]
        caption = f"Passes that a token ran through a layer, on average; the most is {history.max_passes}."
        yield Figure("depth", "thinking", "Mean depth", caption, data, layout)


def _histogram(history: History) -> Iterator[Figure]:
    found = history.series.get("depth_histogram")
    if not history.adaptive or found is None:
        return
    width = max(1, round(SMOOTHED_SHARE * len(found)))
    data = []
    for index in range(history.max_passes):
        colour = ramp_color(index / (history.max_passes - 1))
        share = smooth(found.values[:, index], width)
        line = _line(found.steps, share, _passes(index + 1), colour, width=0.5)
        data.append({**line, "stackgroup": "depth", "fillcolor": colour, "hovertemplate": "%{y:.1%}"})
    layout = _axes("share of tokens and layers")
    layout["legend"] = {"traceorder": "normal"}
    layout["yaxis"] |= {"range": [0, 1], "tickformat": ".0%"}
    caption = "How many passes tokens ran, each layer counted on its own."
    yield Figure("histogram", "thinking", "Who thinks how long", caption, data, layout)


def _survival(history: History) -> Iterator[Figure]:
    found = history.series.get("survival")
    if not history.adaptive or found is None or not len(found):
        return
    shown = np.unique(np.linspace(0, len(found) - 1, SNAPSHOTS).round().astype(int))
    passes = list(range(1, found.values.shape[1] + 1))
    data = []
    for age, index in zip(range(len(shown) - 1, -1, -1), shown, strict=True):
        line = _line(passes, found.values[index], f"step {found.steps[index]:,.0f}", "var(--accent)")
        line["opacity"] = 1 - 0.8 * age / SNAPSHOTS
        data.append({**line, "mode": "lines+markers", "hovertemplate": "%{y:.1%}"})
    layout = _axes("still thinking", "pass")
    layout["xaxis"] |= {"dtick": 1, "range": [0.9, history.max_passes + 0.1]}
    layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%"}
    caption = "Survival: how strongly the gates let a token into each pass, mean over tokens and layers."
    yield Figure("survival", "thinking", "Survival from pass to pass", caption, data, layout)


def _layers(history: History) -> Iterator[Figure]:
    found = history.series.get("passes_by_layer")
    if not history.adaptive or found is None or not len(found):
        return
    steps, values = _columns(found)
    heat = {
        "type": "heatmap",
        "x": _numbers(steps),
        "y": list(range(1, values.shape[1] + 1)),
        "z": [_numbers(row) for row in values.T],
        "zmin": 1,
        "zmax": history.max_passes,
        "colorscale": ramp_scale(),
        "hovertemplate": "step %{x:.0f}, layer %{y}: %{z:.2f} passes<extra></extra>",
        "colorbar": {"thickness": 10, "outlinewidth": 0, "dtick": 1},
    }
    layout = _axes("layer")
    layout["yaxis"] |= {
        "dtick": 1 if values.shape[1] <= 16 else None,
        "autorange": "reversed",
        "showgrid": False,
    }
    layout["hovermode"] = "closest"
    caption = "Mean passes in each layer over time; the first layer is at the top."
    yield Figure("layers", "thinking", "Where the passes go", caption, [heat], layout)


def _rate(history: History) -> Iterator[Figure]:
    found = history.series.get("lr")
    if found is not None and len(found):
        data = [_line(found.steps, found.values, "learning rate", "var(--train)")]
        layout = _axes("learning rate")
        layout["yaxis"] |= {"rangemode": "tozero", "exponentformat": "power"}
        yield Figure("rate", "optimisation", "Learning rate", "Warm-up, then cosine.", data, layout)


def _gradient(history: History) -> Iterator[Figure]:
    found, clipped = history.series.get("grad_norm"), history.series.get("grad_norm_clipped")
    if found is None or not len(found):
        return
    data = _noisy(found, "before clipping", "var(--train)")
    if clipped is not None and len(clipped) == len(found) and (clipped.values < found.values).any():
        longest = clipped.values.max()
        data.append(
            _line(found.steps[[0, -1]], [longest, longest], "clipped to", "var(--heldout)", width=1.5)
        )
    layout = _axes("L2 norm")
    layout["yaxis"]["type"] = "log"
    yield Figure("gradient", "optimisation", "Gradient norm", "Of all parameters together.", data, layout)


def _speed(history: History) -> Iterator[Figure]:
    found = history.series.get("tokens_per_second")
    if found is not None and len(found):
        data = _noisy(found, "tokens/s", "var(--train)")
        layout = _axes("tokens per second")
        layout["yaxis"]["rangemode"] = "tozero"
        caption = "While training; evaluations, samples and saves are not in it."
        yield Figure("speed", "optimisation", "Speed", caption, data, layout)


def _others(history: History) -> Iterator[Figure]:
    for name, found in history.series.items():
        if name not in KNOWN and len(found) and not found.vectors:
            title = name.replace("_", " ").capitalize()
            layout = _axes("")
            if np.ptp(found.values) == 0:
                layout["yaxis"]["rangemode"] = "tozero"
            place = re.sub(r"[^\w-]", "_", name)
            yield Figure(f"other-{place}", "others", title, "", _noisy(found, title, "var(--train)"), layout)


def _with_evaluations(history: History, reading: str, score: str) -> list[dict[str, Any]]:
    """The training line, faint and smooth, and the evaluations with their errors."""
    found = history.series.get(reading)
    data = _noisy(found, "training", "var(--train)") if found is not None and len(found) else []
    scored = [moment for moment in history.evaluations if moment.data.get(score) is not None]
    if scored:
        line = _line(
            [moment.step for moment in scored],
            [moment.data[score] for moment in scored],
            "held-out",
            "var(--heldout)",
        )
        errors = [moment.data.get(f"{score}_se") or 0.0 for moment in scored]
        bars = {"type": "data", "array": _numbers(errors), "thickness": 1.2, "width": 3}
        data.append({**line, "mode": "lines+markers", "error_y": bars})
    return data


def _noisy(found: Series, name: str, colour: str) -> list[dict[str, Any]]:
    """A faint line through the points, a clear one through their moving mean."""
    width = round(SMOOTHED_SHARE * len(found))
    clear = _line(found.steps, smooth(found.values, width), name, colour)
    if width < 2:
        return [clear]
    faint = _line(found.steps, found.values, name, colour, width=1)
    del faint["hovertemplate"]  # it would win over "skip"
    return [{**faint, "opacity": 0.3, "hoverinfo": "skip", "showlegend": False}, clear]


def _line(steps: Any, values: Any, name: str, colour: str, width: float = 2) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": _numbers(steps),
        "y": _numbers(values),
        "line": {"color": colour, "width": width},
        "marker": {"color": colour, "size": 5},
        "hovertemplate": "%{y:.4~g}",
    }


def _axes(vertical: str, horizontal: str = "step") -> dict[str, Any]:
    return {"xaxis": {"title": {"text": horizontal}}, "yaxis": {"title": {"text": vertical}}}


def _columns(found: Series) -> tuple[np.ndarray, np.ndarray]:
    """Steps and vectors averaged into at most COLUMNS groups."""
    steps, values = found.steps, found.values
    groups = np.array_split(np.arange(len(steps)), min(COLUMNS, len(steps)))
    return np.array([steps[group].mean() for group in groups]), np.stack([values[g].mean(0) for g in groups])


def _numbers(values: Any) -> list[float]:
    """In six digits, which is more than a screen can tell apart."""
    return [float(f"{value:.6g}") for value in np.asarray(values, dtype=np.float64)]


def _passes(number: int) -> str:
    return "1 pass" if number == 1 else f"{number} passes"
