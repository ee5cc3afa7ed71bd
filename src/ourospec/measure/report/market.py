"""The plots about the price of a pass: whether it holds the budget, and whether the passes earn it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ourospec.measure.report.drawing import Figure, axes, level, line, noisy, spans
from ourospec.measure.report.history import History
from ourospec.measure.report.series import Series

SECTION = "market"
TOLERANCE = 0.05
"""Share of the target that the dotted lines stand at."""
WINS_SHARE = 0.1
"""Of the points, that the running win rate goes back."""
RESTING = " Shaded: the deadband is engaged."


def _price(history: History) -> Iterator[Figure]:
    found = history.series.get("price_next") or history.series.get("price")
    if found is None or not len(found):
        return
    if not np.ptp(found.values) and "control_error" not in history.series:
        return  # nobody moves it
    data = [line(found.steps, found.values, "price", "var(--accent)")]
    layout = axes("nats per pass")
    layout["yaxis"]["exponentformat"] = "power"
    layout["shapes"] = [*spans(history.resting), *([level(0.0)] if found.values.min() < 0 else [])]
    caption = "What one more pass of a token in a layer costs, after each step."
    if found.values.min() < 0:
        caption += " Under zero it is a subsidy."
    yield Figure("price", SECTION, "Price", caption + (RESTING if history.resting else ""), data, layout)


def _error(history: History) -> Iterator[Figure]:
    found, target = history.series.get("control_error"), history.mean_of_late("target_passes")
    if found is None or not len(found) or not target:
        return
    relative = Series()
    for step, error in zip(found.steps, found.values, strict=True):
        relative.add(step, float(error) / target)
    data = noisy(relative, "depth over target", "var(--train)")
    for trace in data:
        trace["hovertemplate" if "hovertemplate" in trace else "hoverinfo"] = (
            "%{y:+.1%}" if "hovertemplate" in trace else "skip"
        )
    layout = axes("of the target")
    bound = max(3 * TOLERANCE, 1.1 * float(np.abs(np.quantile(relative.values, [0.02, 0.98])).max()))
    layout["yaxis"] |= {"tickformat": "+.0%", "range": [-bound, bound]}
    edges = [level(TOLERANCE), level(-TOLERANCE), level(0.0, dash="solid")]
    layout["shapes"] = [*spans(history.resting), *edges]
    caption = f"How far the depth that the gates ask for is from its target. Dotted: ±{TOLERANCE:.0%}."
    yield Figure(
        "error", SECTION, "Control error", caption + (RESTING if history.resting else ""), data, layout
    )


def _gain(history: History) -> Iterator[Figure]:
    caption = "By how much the passes lower the loss, against one pass in every layer. Under zero they hurt."
    return _change(history, "delta_ce", "gain", "What the passes gain", "loss saved (ΔCE)", caption)


def _confidence(history: History) -> Iterator[Figure]:
    caption = (
        "By how much the passes change the entropy of the prediction. Under zero it becomes more certain."
    )
    return _change(history, "delta_h", "confidence", "Confidence", "entropy added (ΔH)", caption)


def _change(
    history: History, series: str, name: str, title: str, label: str, caption: str
) -> Iterator[Figure]:
    """What the passes change, in nats, around zero."""
    found = history.series.get(series)
    if found is None or not len(found):
        return
    data = noisy(found, label, "var(--train)")
    layout = axes("nats per token")
    layout["shapes"] = [level(0.0, dash="solid")]
    yield Figure(name, SECTION, title, caption, data, layout)


def _wins(history: History) -> Iterator[Figure]:
    found = history.series.get("win_rate")
    if found is None or not len(found):
        return
    width = max(1, round(WINS_SHARE * len(found)))
    sums = np.concatenate([[0.0], np.cumsum(found.values)])
    last = np.arange(1, len(found) + 1)
    first = np.maximum(last - width, 0)
    rate = (sums[last] - sums[first]) / (last - first)
    data = [{**line(found.steps, rate, "wins", "var(--accent)"), "hovertemplate": "%{y:.0%}"}]
    layout = axes("share of steps")
    layout["yaxis"] |= {"range": [0, 1.03], "tickformat": ".0%"}
    layout["shapes"] = [level(0.5)]
    caption = (
        f"Economic wins: steps whose passes lowered the loss, over the last {width * found.each:,} policy steps. "
        "Dotted: chance."
    )
    yield Figure("wins", SECTION, "Win rate", caption, data, layout)


DRAWERS = (_price, _error, _gain, _wins, _confidence)
