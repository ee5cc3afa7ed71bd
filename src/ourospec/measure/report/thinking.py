"""The plots about depth: how many passes, by layer, from pass to pass, and for which tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ourospec.measure.report.drawing import (
    SMOOTHED_SHARE,
    Figure,
    axes,
    columns,
    level,
    line,
    numbers,
    passes,
    with_evaluations,
)
from ourospec.measure.report.history import History
from ourospec.measure.report.ramp import ramp_color, ramp_scale
from ourospec.measure.report.series import smooth
from ourospec.measure.report.token_classes import depth_by_class

SNAPSHOTS = 5


def _depth(history: History) -> Iterator[Figure]:
    if not history.adaptive or "mean_passes" not in history.series:
        return
    data = with_evaluations(history, "mean_passes", "mean_passes")
    layout = axes("passes per token and layer")
    layout["yaxis"]["range"] = [0.9, history.max_passes + 0.1]
    caption = f"Passes that a token ran through a layer, on average; the most is {history.max_passes}."
    target = history.mean_of_late("target_passes")
    if target is not None:
        layout["shapes"] = [level(target)]
        caption += f" Dotted: the target, {target:g}."
    if history.decided_from is not None and history.decided_from > 1:
        caption += f" The gates decide from step {history.decided_from:,} on."
    yield Figure("depth", "thinking", "Mean depth", caption, data, layout)


def _histogram(history: History) -> Iterator[Figure]:
    found = history.series.get("depth_histogram")
    if not history.adaptive or found is None:
        return
    width = max(1, round(SMOOTHED_SHARE * len(found)))
    data = []
    for index in range(history.max_passes):
        colour = _depth_colour(index, history.max_passes)
        share = smooth(found.values[:, index], width)
        stacked = line(found.steps, share, passes(index + 1), colour, width=0.5)
        data.append({**stacked, "stackgroup": "depth", "fillcolor": colour, "hovertemplate": "%{y:.1%}"})
    layout = axes("share of tokens and layers")
    layout["legend"] = {"traceorder": "normal"}
    layout["yaxis"] |= {"range": [0, 1], "tickformat": ".0%"}
    caption = "How many passes tokens ran, each layer counted on its own."
    yield Figure("histogram", "thinking", "Who thinks how long", caption, data, layout)


def _layer_histogram(history: History) -> Iterator[Figure]:
    shares = history.late("layer_histogram")
    if not history.adaptive or shares is None or shares.ndim != 2:
        return
    layers = list(range(1, len(shares) + 1))
    data = []
    for index in range(shares.shape[1]):
        colour = _depth_colour(index, shares.shape[1])
        bars = {"type": "bar", "name": passes(index + 1), "x": layers, "y": numbers(shares[:, index])}
        data.append({**bars, "marker": {"color": colour}, "hovertemplate": "%{y:.1%}"})
    layout = axes("share of tokens", "layer")
    layout |= {"barmode": "stack", "bargap": 0.25, "legend": {"traceorder": "normal"}}
    layout["xaxis"] |= {"range": [0.4, len(layers) + 0.6]} | ({"dtick": 1} if len(layers) <= 16 else {})
    layout["yaxis"] |= {"range": [0, 1], "tickformat": ".0%"}
    caption = "The same by layer, mean over the last tenth of the steps."
    yield Figure("layer-histogram", "thinking", "Depth in each layer", caption, data, layout)


def _survival(history: History) -> Iterator[Figure]:
    found = history.series.get("survival")
    if not history.adaptive or found is None or not len(found):
        return
    shown = np.unique(np.linspace(0, len(found) - 1, SNAPSHOTS).round().astype(int))
    entered = list(range(1, found.values.shape[1] + 1))
    data = []
    for age, index in zip(range(len(shown) - 1, -1, -1), shown, strict=True):
        trace = line(entered, found.values[index], f"step {found.steps[index]:,.0f}", "var(--accent)")
        trace["opacity"] = 1 - 0.8 * age / SNAPSHOTS
        data.append({**trace, "mode": "lines+markers", "hovertemplate": "%{y:.1%}"})
    caption = "Survival: how strongly the gates let a token into each pass, mean over tokens and layers."
    layout = _survival_axes(history.max_passes)
    yield Figure("survival", "thinking", "Survival from pass to pass", caption, data, layout)


def _layer_survival(history: History) -> Iterator[Figure]:
    traces = history.late("layer_s_trace")
    if not history.adaptive or traces is None or traces.ndim != 2:
        return
    entered = list(range(1, traces.shape[1] + 1))
    data = []
    for index, trace in enumerate(traces):
        share = index / max(len(traces) - 1, 1)
        drawn = line(entered, trace, f"layer {index + 1}", "var(--accent)")
        drawn["opacity"] = 0.3 + 0.7 * share
        dash = "dot" if share < 1 / 3 else "dash" if share < 2 / 3 else "solid"
        drawn["line"] = {**drawn["line"], "dash": dash}
        data.append({**drawn, "mode": "lines+markers", "hovertemplate": "%{y:.1%}"})
    caption = "By layer, mean over the last tenth of the steps. Flat is a gate that lets no one go."
    layout = _survival_axes(history.max_passes)
    yield Figure("layer-survival", "thinking", "Survival in each layer", caption, data, layout)


def _layers(history: History) -> Iterator[Figure]:
    found = history.series.get("passes_by_layer")
    if not history.adaptive or found is None or not len(found):
        return
    steps, values = columns(found)
    heat = {
        "type": "heatmap",
        "x": numbers(steps),
        "y": list(range(1, values.shape[1] + 1)),
        "z": [numbers(row) for row in values.T],
        "zmin": 1,
        "zmax": history.max_passes,
        "colorscale": ramp_scale(),
        "hovertemplate": "step %{x:.0f}, layer %{y}: %{z:.2f} passes<extra></extra>",
        "colorbar": {"thickness": 10, "outlinewidth": 0, "dtick": 1},
    }
    layout = axes("layer")
    layout["yaxis"] |= {
        "dtick": 1 if values.shape[1] <= 16 else None,
        "autorange": "reversed",
        "showgrid": False,
    }
    layout["hovermode"] = "closest"
    caption = "Mean passes in each layer over time; the first layer is at the top."
    yield Figure("layers", "thinking", "Where the passes go", caption, [heat], layout)


def _classes(history: History) -> Iterator[Figure]:
    found = depth_by_class(history.samples)
    if not history.adaptive or len(found) < 2:
        return
    errors = {"type": "data", "array": numbers([c.error for c in found]), "thickness": 1.2, "width": 3}
    bars = {
        "type": "bar",
        "x": [f"{c.name}<br>n = {c.tokens:,}" for c in found],
        "y": numbers([c.passes for c in found]),
        "error_y": {**errors, "color": "var(--soft)"},
        "marker": {"color": "var(--train)"},
        "hovertemplate": "%{y:.2f} passes<extra></extra>",
    }
    layout = axes("passes per layer", "")
    layout |= {"bargap": 0.35, "hovermode": "closest"}
    layout["yaxis"]["range"] = [1, max(c.passes + c.error for c in found) + 0.1]
    caption = (
        "Mean over the tokens of the later half of the samples, from one pass up. Bars: one standard error."
    )
    yield Figure("classes", "thinking", "Which tokens are thought about", caption, [bars], layout)


def _survival_axes(max_passes: int) -> dict[str, Any]:
    layout = axes("still thinking", "pass")
    layout["xaxis"] |= {"dtick": 1, "range": [0.9, max_passes + 0.1]}
    layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%"}
    return layout


def _depth_colour(index: int, max_passes: int) -> str:
    return ramp_color(index / max(max_passes - 1, 1))


DRAWERS = (_depth, _classes, _histogram, _layer_histogram, _survival, _layer_survival, _layers)
