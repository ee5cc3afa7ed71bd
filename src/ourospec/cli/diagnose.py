"""`ouro diagnose RUN`: what is wrong with a run, since when, probably why, and which command to try."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ourospec.cli.failures import say
from ourospec.cli.findings import show_findings, show_together, together
from ourospec.cli.gates import show_gates
from ourospec.cli.options import parse_options
from ourospec.cli.output import bold, print_json, print_section, progress
from ourospec.cli.program import as_typed
from ourospec.errors import ConfigError, ResourceError
from ourospec.runs import RunDirectory, open_run
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

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="RUN ...", help="Run directories; several of one family are also summed up."),
    ]
    gates: Annotated[
        bool,
        tyro.conf.arg(
            help="Judge the gates of the newest checkpoint, too, on held-out text: what passes gain, whether the "
            "gates know, and what an oracle would have done. Takes half a minute for a small model."
        ),
    ] = False
    targets: Annotated[
        int,
        tyro.conf.arg(
            help="Of models that do not read text: held-out targets for the family's own diagnostics, at most; 0 "
            "leaves them out."
        ),
    ] = 5_000
    pictures: Annotated[
        str,
        tyro.conf.arg(
            metavar="DIR",
            help="Write those diagnostics as pictures, too. Needs matplotlib.",
            help_behavior_hint="(default: none)",
        ),
    ] = ""
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.")] = False


def main(arguments: list[str]) -> None:
    """Diagnose, and print."""
    options = parse_options(DiagnoseOptions, arguments, "diagnose")
    if not options.runs:
        raise ConfigError("There is no run to diagnose.", "Name one: ouro diagnose RUN")
    if options.targets < 0:
        raise ConfigError(f"--targets {options.targets} is no number of targets.", "Name 0 or more.")
    from ourospec.telemetry.diagnosis import diagnose

    documents, asked = [], []
    for run in options.runs:
        found = diagnose(open_run(run))
        judged = judge_gates(run, options) if options.gates else None
        own = ask_family(run, options) if options.targets else None
        asked += [own] if own else []
        documents.append(
            {
                **as_data(found, run),
                **({"gates": judged} if judged else {}),
                **({"model": own} if own else {}),
            }
        )
        if options.json:
            continue
        show(found, run)
        if judged:
            show_gates(judged)
        if own:
            show_findings(own)
    if options.json:
        many = {"runs": documents, "together": together(asked)}
        print_json(documents[0] if len(documents) == 1 else many)
    elif len(asked) > 1:
        show_together(asked)


def judge_gates(run: str, options: DiagnoseOptions) -> Mapping[str, Any]:
    """What measure.gates says of the newest checkpoint."""
    from ourospec.cli.loading import load_run

    with progress(shown=not options.json and sys.stderr.isatty()) as tell:
        return load_run(run).gate_quality(tell=tell)


def ask_family(run: str, options: DiagnoseOptions) -> Mapping[str, Any] | None:
    """What a family that does not read text says of a run's newest checkpoint.

    None where there is no checkpoint, or text is read.
    """
    if reads_text(open_run(run)):
        return None
    from ourospec.cli.loading import open_any
    from ourospec.loaded_model import LoadedModel

    try:
        fitted = open_any(run)
    except ResourceError as error:
        say(f"the model is not diagnosed: {error.args[0]}", "warning")
        return None
    if isinstance(fitted, LoadedModel):
        return None
    from ourospec.measure.report.plot import paint

    with progress(shown=not options.json and sys.stderr.isatty()) as tell:
        found = fitted.diagnose(most=options.targets, tell=tell)
    if options.pictures:
        folder = Path(options.pictures)
        if len(options.runs) > 1:
            folder /= open_run(run).path.name
        paint(fitted.figures(found), folder, option="--pictures")
    return found


def reads_text(run: RunDirectory) -> bool:
    """Whether a run's data has a tokenizer, read from the file alone: what only tells of events needs no torch."""
    try:
        return "tokenizer" in json.loads(run.recipe.read_text(encoding="utf-8"))["data"]
    except (OSError, ValueError, KeyError, TypeError):
        return True


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
