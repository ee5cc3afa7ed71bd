"""Events as curves: every number under a name that stays the same, for tools that plot them.

step    train/<field>; depth/ran_<k> and depth/survival_<k> with k passes from 1, of all layers together;
        every `LAYERS_EVERY` steps depth/layer_<i>/<field>, i from 0, and of a field with one number a pass
        depth/layer_<i>/<field>_<k>
eval    eval/<field>; eval/layer_<i>/passes

Fields are those of telemetry/events.py, those of layers without their `layer_`. Truth is 0 or 1. What is missing,
not finite, a word, or a list of unknown meaning has no curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ourospec.contracts import Event

LAYERS_EVERY = 10
"""Optimiser steps; layers have many numbers, which would make up nearly all of a file."""
PER_PASS = {"depth_histogram": "ran", "survival": "survival"}
PER_LAYER = {"passes_by_layer": "passes"}
LAYER = "layer_"


def scalars(event: Event) -> dict[str, float]:
    """All curves' next points; empty for events without numbers that change."""
    if event.kind == "step":
        return {name: value for name, value in _step(event) if math.isfinite(value)}
    if event.kind == "eval":
        return {name: value for name, value in _evaluation(event.data) if math.isfinite(value)}
    return {}


def _step(event: Event) -> Iterator[tuple[str, float]]:
    for field, value in event.data.items():
        if isinstance(value, int | float):
            yield f"train/{field}", float(value)
        elif field in PER_PASS:
            yield from _numbered(f"depth/{PER_PASS[field]}", value)
        elif event.step % LAYERS_EVERY == 0 and field in PER_LAYER:
            yield from _layers("depth", PER_LAYER[field], value)
        elif event.step % LAYERS_EVERY == 0 and field.startswith(LAYER):
            yield from _layers("depth", field.removeprefix(LAYER), value)


def _evaluation(data: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for field, value in data.items():
        if isinstance(value, int | float):
            yield f"eval/{field}", float(value)
        elif field in PER_LAYER:
            yield from _layers("eval", PER_LAYER[field], value)


def _layers(group: str, field: str, values: Any) -> Iterator[tuple[str, float]]:
    for number, value in enumerate(values if isinstance(values, list | tuple) else ()):
        name = f"{group}/{LAYER}{number}/{field}"
        if isinstance(value, int | float):
            yield name, float(value)
        else:
            yield from _numbered(name, value)


def _numbered(name: str, values: Any) -> Iterator[tuple[str, float]]:
    found: Sequence[Any] = values if isinstance(values, list | tuple) else ()
    for number, value in enumerate(found, start=1):
        if isinstance(value, int | float):
            yield f"{name}_{number}", float(value)
