"""`ouro claim FILE`: put a claim about models to the test."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ourospec.cli.failures import say
from ourospec.cli.options import parse_options
from ourospec.cli.output import bold, print_json, print_table
from ourospec.errors import ConfigError, Interrupted


@dataclass(frozen=True)
class ClaimOptions:
    """Train the arms of a claim over seeds, tune and test them alike, and say whether the claim is shown.

    Give the same command again after any interruption: what is done is kept, and a run half trained goes on.
    """

    file: Annotated[
        tyro.conf.Positional[str],
        tyro.conf.arg(metavar="FILE", help="What is claimed, such as benchmarks/claims/smoke.json."),
    ]
    out: Annotated[
        str,
        tyro.conf.arg(
            metavar="DIR", help="Runs and results.", help_behavior_hint="(default: runs/claims/NAME)"
        ),
    ] = ""
    quick: Annotated[
        bool, tyro.conf.arg(help="Everything in little, to see that it works; shows nothing about the claim.")
    ] = False
    jobs: Annotated[
        int,
        tyro.conf.arg(
            help="Processes that train and score side by side, one thread each; 1: one with all threads."
        ),
    ] = 1
    json: Annotated[bool, tyro.conf.arg(help="Print the results as one JSON document.")] = False


def main(arguments: list[str]) -> None:
    """Test the claim, print what was found and name the files."""
    options = parse_options(ClaimOptions, arguments, "claim")
    if options.jobs < 1:
        raise ConfigError(f"--jobs {options.jobs}: somebody has to do the work.", "Say --jobs 1 or more.")
    from ourospec.claims import results
    from ourospec.claims.config import quickened, read_claim
    from ourospec.claims.harness import Harness
    from ourospec.claims.parts import Workshop
    from ourospec.claims.verdict import question

    claim = read_claim(Path(options.file))
    name = Path(options.file).stem + ("-quick" if options.quick else "")
    folder = Path(options.out) if options.out else Path("runs") / "claims" / name
    if options.quick:
        claim = quickened(claim)
    tell = (lambda _: None) if options.json else say
    tell(f"under test: {question(claim.statement)}")
    try:
        with Workshop(folder, min(options.jobs, 4 * (os.cpu_count() or 1)), tell) as workshop:
            found = Harness(claim, workshop).run()
    except (Interrupted, KeyboardInterrupt) as error:
        raise Interrupted(
            f"Stopped; what is done is kept in {folder}.", "Give the same command again to go on."
        ) from error
    verdict = found.verdict(options.quick)
    paths = results.write_results(found, verdict, folder, options.quick)
    if options.json:
        print_json(results.as_data(found, verdict, options.quick))
        return
    for rows in (results.rate_rows(found), results.leak_rows(found)):
        print_table(rows)
    for rows in (results.arm_rows(found), results.answer_rows(found), results.difference_rows(found)):
        if rows:
            print_table(rows)
    for warning in found.warnings:
        say(warning, "warning")
    print(bold(verdict.sentence))
    print("\n".join(f"  {path}" for path in paths))
