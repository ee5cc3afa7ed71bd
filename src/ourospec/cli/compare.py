"""`ouro compare [RUN ...]`: models of spacings and everything that needs no network, on the same frozen targets."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ourospec.cli.options import parse_options
from ourospec.cli.output import bold, print_json, print_table, progress
from ourospec.errors import ConfigError, DataError
from ourospec.telemetry.quantities import UNKNOWN, with_error

if TYPE_CHECKING:
    from ourospec.data.spacings import SpacingData, SpacingDataset, Targets
    from ourospec.measure.density import Density

REFERENCE = "sine kernel, 32 past"


@dataclass(frozen=True)
class CompareOptions:
    """Compare runs that predict spacings with laws, the sine kernel and linear regression on the same held-out targets.

    Each run is held against the data that it was trained with; runs of other data get a table of their own. Without a
    run, the baselines alone on both splits.
    """

    runs: Annotated[
        tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="RUN ...", help="Run directories.")
    ] = ()
    table: Annotated[
        str,
        tyro.conf.arg(
            metavar="FILE",
            help="Without a run: heights of zeros, one a line.",
            help_behavior_hint="(default: the first --count zeros)",
        ),
    ] = ""
    unchecked: Annotated[
        bool, tyro.conf.arg(help="The table's heights need not be zeros of the zeta function.")
    ] = False
    count: Annotated[int, tyro.conf.arg(help="Without a run: how many zeros.")] = 2_001_052
    split: Annotated[
        Literal["both", "tail", "interleaved"], tyro.conf.arg(help="Without a run: what is held out.")
    ] = "both"
    block: Annotated[
        int, tyro.conf.arg(help="Without a run: spacings of a block of the interleaved split.")
    ] = 25_600
    targets: Annotated[int, tyro.conf.arg(help="Held-out spacings to predict, evenly spread, at most.")] = (
        20_000
    )
    against: Annotated[
        str, tyro.conf.arg(metavar="NAME", help="With what the rest is compared, pair by pair.")
    ] = REFERENCE
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.")] = False


@dataclass(frozen=True)
class Opened:
    """A run as a predictor."""

    name: str
    fitted: Any

    def predict(self, targets: Targets) -> Density:
        """The fitted model's densities."""
        return self.fitted.predict(targets)


def main(arguments: list[str]) -> None:
    """Compare, and print."""
    options = parse_options(CompareOptions, arguments, "compare")
    if options.targets < 1:
        raise ConfigError(f"--targets {options.targets} leaves nothing to predict.", "Name 1 or more.")
    with progress(shown=not options.json and sys.stderr.isatty()) as teller:
        tell = teller or (lambda _: None)
        opened = [(open_data(data, options, tell), runs) for data, runs in assemble(options)]
        tables = [compare(dataset, runs, options, tell) for dataset, runs in opened]
    if options.json:
        print_json({"against": options.against, "tables": tables})
        return
    for table in tables:
        show(table, options.against)


def assemble(options: CompareOptions) -> list[tuple[SpacingData, list[str]]]:
    """The data of each table, and the runs that were trained on it.

    Raises:
        ConfigError: a run that does not learn from spacings, or one named twice.
    """
    from ourospec.data.spacings import SpacingData, TableSource, ZerosSource
    from ourospec.recipe import read_recipe
    from ourospec.runs import open_run

    if not options.runs:
        table = TableSource(path=options.table, check=not options.unchecked) if options.table else None
        source = table or ZerosSource(count=options.count)
        splits = ("tail", "interleaved") if options.split == "both" else (options.split,)
        return [(SpacingData(source=source, split=split, block=options.block), []) for split in splits]
    if len(set(options.runs)) < len(options.runs):
        raise ConfigError("A run is named twice.", "Name every run once.")
    import ourospec.families  # noqa: F401  makes recipes readable

    tables: list[tuple[SpacingData, list[str]]] = []
    for path in options.runs:
        recipe = read_recipe(open_run(path).recipe)
        data = getattr(recipe, "data", None)
        if not isinstance(data, SpacingData):
            raise ConfigError(
                f"{path} holds a {recipe.family}, which does not predict spacings.",
                "Compare models of text with: ouro claim FILE",
            )
        for known, runs in tables:
            if known == data:
                runs.append(path)
                break
        else:
            tables.append((data, [path]))
    return tables


def open_data(data: SpacingData, options: CompareOptions, tell: Callable[[str], None]) -> SpacingDataset:
    """The data of a table, or an error that names this verb's options."""
    from ourospec.data.spacings import open_spacings

    try:
        return open_spacings(data, tell)
    except DataError as error:
        if options.runs:
            raise
        other = ", or a smaller --block, or --split tail" if data.split == "interleaved" else ""
        raise DataError(error.args[0], f"Name more zeros: --table FILE, or --count N{other}.") from error


def compare(
    dataset: SpacingDataset, runs: Sequence[str], options: CompareOptions, tell: Callable[[str], None]
) -> dict[str, Any]:
    """One table: what is predicted, and how well by whom."""
    from ourospec import api
    from ourospec.data.spacings import frozen_targets
    from ourospec.measure.spacings.comparison import baselines, compare_predictors

    targets = frozen_targets(dataset.heldout, most=options.targets)
    opened = [Opened(path, api.open_fitted(path)) for path in runs]
    found = compare_predictors([*opened, *baselines(dataset.train, tell)], targets, options.against, tell)
    return {
        "data": dataset.summary,
        "targets": len(targets.target),
        "blocks": found[0]["blocks"],
        "runs": list(runs),
        "predictors": found,
    }


def show(table: dict[str, Any], against: str) -> None:
    """Print for a person, the best first."""
    data = table["data"]
    low, high = data["heldout"]["lowest"], data["heldout"]["highest"]
    print(bold(f"{data['source']}, split {data['split']}"))
    print(
        f"{table['targets']:,} held-out spacings at heights {low:,.0f} to {high:,.0f}, each with the 256 before it; "
        f"± is the standard error over {table['blocks']} stretches.\n"
    )
    rows = [("", "nats", f"gain over {against}", "CRPS", "PIT KS", "in 80%", "spread", "P(s < 0)")]
    for found in table["predictors"]:
        mark = "* " if found["name"] in table["runs"] else "  "
        rows.append(
            (
                mark + found["name"],
                with_error(found["nll"], found["nll_se"], 4),
                gain(found["gain"]) if found["name"] != against else UNKNOWN,
                f"{found['crps']:.4f}",
                f"{found['pit_ks']:.4f}",
                f"{found['coverage_80']:.1%}",
                f"{found['sharpness']:.3f}",
                f"{found['below_zero']:.2%}",
            )
        )
    print_table(rows)
    if table["runs"]:
        print("* a run. In brackets: the paired bootstrap's 95% interval.\n")
    else:
        print("In brackets: the paired bootstrap's 95% interval.\n")


def gain(found: dict[str, float]) -> str:
    """A difference in nats with its interval; positive is better than the reference."""
    if not math.isfinite(found["low"]):
        return f"{found['difference']:+.4f}"
    return f"{found['difference']:+.4f} ({found['low']:+.4f} to {found['high']:+.4f})"
