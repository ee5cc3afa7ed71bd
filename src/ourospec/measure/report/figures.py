"""The plots of a report, in the order of the page: how it learns, how long it thinks, what that costs, and the rest."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from ourospec.measure.report import market, thinking
from ourospec.measure.report.drawing import Figure, axes, line, noisy, with_evaluations
from ourospec.measure.report.history import History
from ourospec.telemetry.reading import LIKELIHOODS, unit

KNOWN = frozenset(
    {
        "loss", *LIKELIHOODS, "bits_per_byte", "lr", "grad_norm", "grad_norm_clipped", "tokens", "tokens_per_second",
        "seconds", "step_seconds", "mean_passes", "wanted_passes", "expected_passes", "exec_passes", "gap",
        "passes_by_layer", "depth_histogram", "survival", "price", "price_next", "target_passes", "control_error",
        "deadband_steps", "delta_ce", "delta_h", "audit_layer", "win_rate",
    }
)  # fmt: skip
"""Readings with a plot of their own, or none needed; any other number gets a small one."""


def draw_figures(history: History) -> list[Figure]:
    """All plots for which the run has numbers, in the order of the page."""
    drawers = (_loss, _bits, *thinking.DRAWERS, *market.DRAWERS, _rate, _gradient, _speed, _others)
    return [figure for drawer in drawers for figure in drawer(history)]


def _loss(history: History) -> Iterator[Figure]:
    name = next((name for name in LIKELIHOODS if name in history.series), "loss")
    data = with_evaluations(history, name, "loss")
    if data:
        thing = unit(history.start)
        costs = " While training with all other costs." if name == "loss" else ""
        caption = f"Nats per {thing}; lower is better.{costs} Bars: one standard error."
        yield Figure("loss", "learning", "Loss", caption, data, axes(f"nats per {thing}"))


def _bits(history: History) -> Iterator[Figure]:
    data = with_evaluations(history, "bits_per_byte", "bits_per_byte")
    if data:
        caption = "What the model would need to store a byte of text; comparable across tokenizers."
        yield Figure("bits", "learning", "Bits per byte", caption, data, axes("bits per byte"))


def _rate(history: History) -> Iterator[Figure]:
    found = history.series.get("lr")
    if found is not None and len(found):
        data = [line(found.steps, found.values, "learning rate", "var(--train)")]
        layout = axes("learning rate")
        layout["yaxis"] |= {"rangemode": "tozero", "exponentformat": "power"}
        yield Figure("rate", "optimisation", "Learning rate", "Warm-up, then cosine.", data, layout)


def _gradient(history: History) -> Iterator[Figure]:
    found, clipped = history.series.get("grad_norm"), history.series.get("grad_norm_clipped")
    if found is None or not len(found):
        return
    data = noisy(found, "before clipping", "var(--train)")
    if clipped is not None and len(clipped) == len(found) and (clipped.values < found.values).any():
        longest = clipped.values.max()
        data.append(line(found.steps[[0, -1]], [longest, longest], "clipped to", "var(--heldout)", width=1.5))
    layout = axes("L2 norm")
    layout["yaxis"]["type"] = "log"
    yield Figure("gradient", "optimisation", "Gradient norm", "Of all parameters together.", data, layout)


def _speed(history: History) -> Iterator[Figure]:
    found = history.series.get("tokens_per_second")
    if found is not None and len(found):
        things = f"{unit(history.start)}s"
        data = noisy(found, f"{things}/s", "var(--train)")
        layout = axes(f"{things} per second")
        layout["yaxis"]["rangemode"] = "tozero"
        caption = "While training; evaluations, samples and saves are not in it."
        yield Figure("speed", "optimisation", "Speed", caption, data, layout)


def _others(history: History) -> Iterator[Figure]:
    """Numbers that have no plot of their own, but for those that are 0 throughout."""
    for name, found in history.series.items():
        if name not in KNOWN and not (found.vectors or found.matrices) and found.values.any():
            title = name.replace("_", " ").capitalize()
            layout = axes("")
            if np.ptp(found.values) == 0:
                layout["yaxis"]["rangemode"] = "tozero"
            place = re.sub(r"[^\w-]", "_", name)
            yield Figure(f"other-{place}", "others", title, "", noisy(found, title, "var(--train)"), layout)
