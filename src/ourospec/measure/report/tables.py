"""The tables of a report: evaluations, settings, machine, warnings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ourospec.measure.report.history import History
from ourospec.measure.report.markup import safe
from ourospec.telemetry.quantities import UNKNOWN, count, size, with_error

Rows = Sequence[tuple[str, str]]


def render_evaluations(history: History) -> str:
    """One row an evaluation, the last at the top."""
    if not history.evaluations:
        return "<p class='empty'>This run was not evaluated.</p>"
    head = ["step", "loss", "perplexity", "bits per byte"]
    head += ["mean depth"] if history.adaptive else []
    head += ["FLOP per token", "documents", "tokens"]
    body = []
    for moment in reversed(history.evaluations):
        score = moment.data
        row = [
            f"{moment.step:,}",
            with_error(score.get("loss"), score.get("loss_se")),
            count(score.get("perplexity")),
        ]
        row.append(with_error(score.get("bits_per_byte"), score.get("bits_per_byte_se")))
        if history.adaptive:
            row.append(with_error(score.get("mean_passes"), score.get("mean_passes_se"), 2))
        row += [
            count(score.get("flops_per_token")),
            _whole(score.get("documents")),
            _whole(score.get("tokens")),
        ]
        body.append("<tr>" + "".join(f"<td>{safe(cell)}</td>" for cell in row) + "</tr>")
    heads = "".join(f"<th>{name}</th>" for name in head)
    table = f'<table class="data"><thead><tr>{heads}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


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


def _whole(number: int | None) -> str:
    return UNKNOWN if number is None else f"{number:,}"
