"""Events as curves: every number under a name that stays the same, for tools that plot them.

step    train/<field>; depth/ran_<k> and depth/survival_<k> with k passes from 1, of all layers together;
        every `LAYERS_EVERY` steps depth/layer_<i>/<field>, i from 0, and of a field with one number a pass
        depth/layer_<i>/<field>_<k>; as seldom, of any other field that holds several numbers, train/<field>_<k>, k from
        1, or train/<field>/<key>
eval    eval/<field>; eval/layer_<i>/passes; and by the names under which runs of all kinds are compared val/loss,
        val/ppl, of puzzles val/exact_match and val/<task>/exact_match

Fields are those of telemetry/events.py, those of layers without their `layer_`. Truth is 0 or 1. What is missing,
not finite, a word, or a list of over `LONGEST` has no curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ourospec.contracts import Event
from ourospec.telemetry.reading import as_number

LAYERS_EVERY = 10
"""Optimiser steps; layers have many numbers, which would make up nearly all of a file."""
PER_PASS = {"depth_histogram": "ran", "survival": "survival"}
PER_LAYER = {"passes_by_layer": "passes"}
LAYER = "layer_"
LONGEST = 64
"""Numbers of a field of which each has a curve."""
VALIDATION = {"loss": "loss", "perplexity": "ppl", "exact_match": "exact_match"}


def curves(event: Event) -> dict[str, float]:
    """What a tool that plots is sent: all of it."""
    return {**scalars(event), **validation(event)}


def validation(event: Event) -> dict[str, float]:
    """The figures of an evaluation that every kind of run has, as val/...; empty for other events."""
    if event.kind != "eval":
        return {}
    found = {f"val/{name}": event.data.get(field) for field, name in VALIDATION.items()}
    for task in event.data.get("tasks") or ():
        # A task's name may hold what parts the names of curves.
        found[f"val/{str(task['task']).replace('/', '_')}/exact_match"] = task.get("exact_match")
    numbers = {name: as_number(value) for name, value in found.items()}
    return {name: number for name, number in numbers.items() if number is not None}


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
        elif event.step % LAYERS_EVERY:
            continue
        elif field in PER_LAYER:
            yield from _layers("depth", PER_LAYER[field], value)
        elif field.startswith(LAYER):
            yield from _layers("depth", field.removeprefix(LAYER), value)
        else:
            yield from _several(f"train/{field}", value)


def _several(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """Numbers inside lists and mappings, however deep."""
    if isinstance(value, int | float):
        yield name, float(value)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _several(f"{name}/{key}", inner)
    elif isinstance(value, list | tuple) and len(value) <= LONGEST:
        for number, inner in enumerate(value, start=1):
            yield from _several(f"{name}_{number}", inner)


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
