"""The tables of a report: evaluations, settings, machine, warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ourospec.measure.report.history import History
from ourospec.measure.report.markup import safe
from ourospec.telemetry.quantities import UNKNOWN, count, size, with_error

Rows = Sequence[tuple[str, str]]


class _Column(NamedTuple):
    """One figure of an evaluation: its name there, the head of its column, and how it is written."""

    name: str
    title: str
    show: Callable[[Mapping[str, Any], str], str]


def _measured(score: Mapping[str, Any], name: str) -> str:
    return with_error(score.get(name), score.get(f"{name}_se"))


def _counted(score: Mapping[str, Any], name: str) -> str:
    return count(score.get(name))


def _whole(score: Mapping[str, Any], name: str) -> str:
    return UNKNOWN if score.get(name) is None else f"{score[name]:,}"


def _depth(score: Mapping[str, Any], name: str) -> str:
    return with_error(score.get(name), score.get(f"{name}_se"), 2)


_COLUMNS = (
    _Column("loss", "loss", _measured),
    _Column("perplexity", "perplexity", _counted),
    _Column("bits_per_byte", "bits per byte", _measured),
    _Column("mean_passes", "mean depth", _depth),
    _Column("flops_per_token", "FLOP per token", _counted),
    _Column("documents", "documents", _whole),
    _Column("tokens", "tokens", _whole),
)


def render_evaluations(history: History) -> str:
    """One row an evaluation, the last at the top."""
    if not history.evaluations:
        return "<p class='empty'>This run was not evaluated.</p>"
    scores = [moment.data for moment in history.evaluations]
    columns = [column for column in _COLUMNS if any(column.name in score for score in scores)]
    columns = [column for column in columns if history.adaptive or column.name != "mean_passes"]
    columns += _further(scores)
    head = ["step", *(column.title for column in columns)]
    body = []
    for moment in reversed(history.evaluations):
        row = [f"{moment.step:,}", *(column.show(moment.data, column.name) for column in columns)]
        body.append("<tr>" + "".join(f"<td>{safe(cell)}</td>" for cell in row) + "</tr>")
    heads = "".join(f"<th>{name}</th>" for name in head)
    table = f'<table class="data"><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _further(scores: Sequence[Mapping[str, Any]]) -> list[_Column]:
    """What else was measured with a standard error, and how much was counted."""
    known = {column.name for column in _COLUMNS}
    names = dict.fromkeys(name for score in scores for name in score if name not in known)
    measured = [name for name in names if f"{name}_se" in names]
    counted = [
        name for name in names if any(type(score.get(name)) is int for score in scores) and name != "bytes"
    ]
    return [_Column(name, name.replace("_", " "), _measured) for name in measured] + [
        _Column(name, name.replace("_", " "), _whole) for name in counted
    ]


def render_settings(recipe: Mapping[str, Any]) -> str:
    """The recipe, a card for each of its parts."""
    parts = {name: part for name, part in recipe.items() if isinstance(part, Mapping)}
    single = {name: part for name, part in recipe.items() if name not in parts}
    return "".join(_card(name, list(flatten(part))) for name, part in {"recipe": single, **parts}.items())


def flatten(part: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value) of every setting."""
    for name, value in part.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, _setting(value)


def render_machine(history: History) -> str:
    """What the run was trained on and with."""
    found = history.environment
    if not found:
        return ""
    machine = [
        ("processor", str(found.get("processor", UNKNOWN))),
        ("threads", f"{found.get('usable_threads', UNKNOWN)} usable of {found.get('threads', UNKNOWN)}"),
        ("memory", size(found.get("memory"))),
        ("platform", str(found.get("platform", UNKNOWN))),
        *((name, str(value)) for name, value in dict(found.get("device") or {}).items()),
        ("source", str(found.get("source") or "installed package")),
        ("command", " ".join(map(str, found.get("command", ())))),
    ]
    packages = [("python", str(found.get("python", UNKNOWN)))]
    packages += [(name, str(version)) for name, version in dict(found.get("packages") or {}).items()]
    return _card("machine", machine) + _card("packages", packages)


def render_warnings(history: History) -> str:
    """What went wrong on the way; nothing where nothing did."""
    lines = [f"Resumed at step {step:,}." for step in history.resumed]
    lines += [f"Step {m.step:,}: {m.data.get('message', '')}" for m in history.warnings]
    if not lines:
        return ""
    return '<ul class="warnings">' + "".join(f"<li>{safe(line)}</li>" for line in lines) + "</ul>"


def _card(title: str, rows: Rows) -> str:
    lines = "".join(f"<dt>{safe(name)}</dt><dd>{safe(value)}</dd>" for name, value in rows)
    return f'<article class="settings"><h3>{safe(title)}</h3><dl>{lines}</dl></article>'


def _setting(value: Any) -> str:
    if isinstance(value, str):
        return value or "“”"
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    if isinstance(value, list):
        return ", ".join(repr(item) if isinstance(item, str) else _setting(item) for item in value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
