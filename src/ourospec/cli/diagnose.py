"""`ouro diagnose RUN`: what is wrong with a run, since when, probably why, and which command to try."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ourospec.cli.gates import show_gates
from ourospec.cli.options import parse_options
from ourospec.cli.output import bold, print_json, print_section, progress
from ourospec.cli.program import as_typed
from ourospec.runs import open_run
from ourospec.telemetry.plain_text import visible
from ourospec.telemetry.wording import title

if TYPE_CHECKING:
    from ourospec.telemetry.alarms import Episode
    from ourospec.telemetry.diagnosis import Diagnosis

WIDEST = 100


@dataclass(frozen=True)
class DiagnoseOptions:
    """Replay a run's events through the red flags: collapse, explosion, a missed budget, and what else goes wrong.

    The exit code is 0 with findings, too: they are answers, not errors.
    """

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="Run directory.")]
    gates: Annotated[
        bool,
        tyro.conf.arg(
            help="Judge the gates of the newest checkpoint, too, on held-out text: what passes gain, whether the "
            "gates know, and what an oracle would have done. Takes half a minute for a small model."
        ),
    ] = False
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.")] = False


def main(arguments: list[str]) -> None:
    """Diagnose, and print."""
    options = parse_options(DiagnoseOptions, arguments, "diagnose")
    from ourospec.telemetry.diagnosis import diagnose

    found = diagnose(open_run(options.run))
    judged = judge_gates(options) if options.gates else None
    if options.json:
        print_json({**as_data(found, options.run), **({"gates": judged} if judged else {})})
        return
    show(found, options.run)
    if judged:
        show_gates(judged)


def judge_gates(options: DiagnoseOptions) -> Mapping[str, Any]:
    """What measure.gates says of the newest checkpoint."""
    from ourospec.cli.loading import load_run

    with progress(shown=not options.json and sys.stderr.isatty()) as tell:
        return load_run(options.run).gate_quality(tell=tell)


def as_data(found: Diagnosis, run: str) -> dict[str, Any]:
    """What `--json` prints."""
    span = found.signs.span()
    return {
        "run": run,
        "family": found.start.get("family"),
        "name": found.start.get("name"),
        "status": found.status,
        "step": found.step,
        "total_steps": found.total_steps or None,
        "healthy": not any(episode.until is None for episode in found.episodes),
        "findings": [
            {
                **episode.finding._asdict(),
                "until": episode.until,
                "try": episode.finding.advice(run, complete=found.complete),
            }
            for episode in found.ordered
        ],
        "policy_steps": None if span is None else dict(zip(("number", "first", "last"), span, strict=True)),
        "vital_signs": {sign.name: sign.number for sign in found.signs.signs()},
    }


def show(found: Diagnosis, run: str) -> None:
    """Print for a person."""
    where = f"step {found.step:,}" + (f" of {found.total_steps:,}" if found.total_steps else "")
    print(bold(f"{visible(run)}, {visible(title(found.start))}: {visible(found.status)} after {where}"))
    if found.stage():
        print(found.stage())
    print()
    for episode in found.ordered:
        show_episode(episode, found, run)
    if not found.episodes:
        print("Nothing to complain of.\n")
    span = found.signs.span()
    about = "" if span is None else f" (the last {span[0]:,} policy steps, {span[1]:,} to {span[2]:,})"
    rows = [(sign.name, sign.words) for sign in found.signs.signs()]
    if rows:
        print_section(f"Vital signs{about}", rows)


def show_episode(episode: Episode, found: Diagnosis, run: str) -> None:
    """One finding: what, when, the numbers, the likely cause, the command."""
    finding = episode.finding
    when = "still so" if episode.until is None else f"until step {episode.until:,}"
    when = f"from step {finding.since:,}, noticed at step {finding.step:,}, {when}"
    print(bold(f"{finding.severity}: {finding.title}") + f"  ({when})")
    for name, text in (("", finding.evidence), ("Likely cause: ", finding.cause)):
        print(wrapped(name + visible(text)))
    if episode.until is None:
        print(f"  Try:  {as_typed(finding.advice(run, complete=found.complete))}")
    print()


def wrapped(text: str) -> str:
    """In lines that fit, indented."""
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    return textwrap.fill(text, width, initial_indent="  ", subsequent_indent="  ")
