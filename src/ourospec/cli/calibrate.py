"""`ouro calibrate RUN --budget 1.3`: find the threshold at which a run meets a budget, and keep it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from ourospec.cli.options import Readout, parse_options
from ourospec.cli.output import bold, print_json, print_table, progress
from ourospec.errors import ConfigError
from ourospec.telemetry.quantities import UNKNOWN, counted, decimal, with_error

if TYPE_CHECKING:
    from ourospec.api import LoadedModel
    from ourospec.measure.calibration_record import Budget, Calibrated, CalibrationRecord, Figures, Pace

HEADINGS = ("budget", "threshold", "passes", "loss", "bits per byte", "ms per token")


@dataclass(frozen=True)
class CalibrateOptions:
    """Find the threshold at which a run meets a budget of passes or of time, and keep it in the run."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="Run directory.")]
    budget: Annotated[
        tuple[float, ...],
        tyro.conf.arg(
            metavar="PASSES ...",
            help="Mean passes per token and layer; several may be given.",
            help_behavior_hint="",
        ),
    ] = ()
    budget_ms: Annotated[
        tuple[float, ...],
        tyro.conf.arg(
            metavar="MS ...",
            help="Milliseconds of decoding a token on this machine; several may be given.",
            help_behavior_hint="",
        ),
    ] = ()
    readout: Readout = None
    tokens: Annotated[
        int, tyro.conf.arg(help="Size of the sample of training text on which depth is measured, in tokens.")
    ] = 20_000
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.")] = False


def main(arguments: list[str]) -> None:
    """Search, keep, and print."""
    options = parse_options(CalibrateOptions, arguments, "calibrate")
    if not options.budget and not options.budget_ms:
        raise ConfigError(
            "There is no budget to calibrate for.",
            f"Say how many passes per token and layer: ouro calibrate {options.run} --budget 1.3",
        )
    if options.tokens < 1:
        raise ConfigError(f"A sample of {options.tokens} tokens was asked for.", "Say: --tokens 20000")
    from ourospec.cli.loading import load_run
    from ourospec.measure.calibration_record import Budget

    with progress(shown=not options.json and sys.stderr.isatty()) as tell:
        loaded = load_run(options.run)
        budgets = [Budget(passes, "passes", options.readout) for passes in options.budget]
        budgets += [Budget(ms, "ms", options.readout) for ms in options.budget_ms]
        dropped = outdated(loaded)
        record = loaded.calibrate(budgets, most_tokens=options.tokens, tell=tell)
    if options.json:
        print_json({"run": options.run, "dropped": dropped, **record.model_dump()})
    else:
        show(loaded, record, budgets, dropped)


def outdated(loaded: LoadedModel) -> str | None:
    """What of an earlier calibration will not be kept, in a sentence."""
    from ourospec.measure.calibration_record import read_calibration

    try:
        before = read_calibration(loaded.run)
    except ConfigError as error:
        return f"Dropped: {error.args[0]}"
    if before is None or before.fits(loaded.weights):
        return None
    budgets = ", ".join(entry.budget.describe() for entry in before.budgets)
    return f"Dropped: what was calibrated for the weights after step {before.step:,} ({budgets})."


def show(
    loaded: LoadedModel, record: CalibrationRecord, budgets: Sequence[Budget], dropped: str | None
) -> None:
    """Print for a person: what was asked for now, and which else are kept."""
    found = [entry for budget in budgets if (entry := record.find(budget)) is not None]
    first = found[0]
    print(bold(f"{loaded.run.path}, {loaded.recipe.family} after step {record.step:,}"))
    print(f"Sample: {counted(first.tokens, 'token')} of {counted(first.documents, 'document')} trained on.\n")
    timed = next((entry.pace_as_trained for entry in found if entry.pace_as_trained), None)
    rows = [HEADINGS, line("as trained", None, first.as_trained, timed)]
    rows += [line(entry.budget.describe(), entry.threshold, entry.figures, entry.pace) for entry in found]
    columns = len(HEADINGS) if timed else len(HEADINGS) - 1
    print_table([row[:columns] for row in rows])
    for entry in found:
        print(remark(entry))
    others = [e.budget.describe() for e in record.budgets if e not in found]
    print(f"Kept in {loaded.run.calibration}{' beside ' + ', '.join(others) if others else ''}.")
    if dropped:
        print(dropped)


def line(name: str, threshold: float | None, figures: Figures, pace: Pace | None) -> tuple[str, ...]:
    """A row of the table."""
    return (
        name,
        decimal(threshold, 4),
        with_error(figures.mean_passes, figures.mean_passes_se),
        with_error(figures.loss, figures.loss_se),
        with_error(figures.bits_per_byte, figures.bits_per_byte_se),
        f"{pace.ms:.2f} (spread {pace.spread:.2f})" if pace else UNKNOWN,
    )


def remark(entry: Calibrated) -> str:
    """What the budget costs in loss, and whether it was met."""
    change = with_error(entry.loss_change, entry.loss_change_se, 4)
    text = (
        f"{entry.budget.describe()}: loss {'+' if entry.loss_change >= 0 else ''}{change} against as trained."
    )
    if entry.met:
        return text
    why = (
        "the depth jumps there, since many gates say nearly the same"
        if entry.unit == "passes"
        else "time varies by more than that from one measurement to the next, or the depth jumps there"
    )
    return f"{text} Not met: {entry.achieved:.3f} {entry.unit} is the nearest that was found; {why}."
