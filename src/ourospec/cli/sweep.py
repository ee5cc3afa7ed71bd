"""`ouro sweep PRESET --seeds 7,42,...`: the same recipe with several seeds, and how far they lie apart."""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ourospec.cli.options import leading
from ourospec.cli.output import print_json, print_table
from ourospec.cli.program import as_typed
from ourospec.cli.several import train_and_measure
from ourospec.errors import ConfigError
from ourospec.runs import RunDirectory
from ourospec.telemetry.quantities import UNKNOWN, duration, with_error

if TYPE_CHECKING:
    from ourospec.recipe import Recipe

USAGE = """usage: ouro sweep PRESET --seeds N,N,... [--runs DIR] [--field.name VALUE ...]

Train a recipe once for each seed, one after the other, and print the held-out loss of each, their median and their
spread. The same command goes on where it was stopped; seeds that are done are not trained again.

  PRESET           a name that `ouro presets` lists, a run directory, or a file like its recipe.json
  --seeds N,N,...  the seeds
  --runs DIR       folder of the runs, a directory for each seed [runs/sweep-FAMILY-PRESET]
  --json           print one JSON document
  --quiet          print nothing of the training

Every setting of the recipe is an option, as in ouro train:

  ouro sweep spacing_mdn/e4_tiny --seeds 7,42,1337 --train.steps 500

DIR/seeds.png shows the held-out losses while they trained, with a line where the models have a reference."""


@dataclass(frozen=True)
class SweepOptions:
    """What is not part of the recipe."""

    seeds: Annotated[str, tyro.conf.arg(metavar="N,N,...", help="The seeds.")] = ""
    runs: Annotated[
        str,
        tyro.conf.arg(
            metavar="DIR",
            help="Folder of the runs.",
            help_behavior_hint="(default: runs/sweep-FAMILY-PRESET)",
        ),
    ] = ""
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.", help_behavior_hint="")] = False
    quiet: Annotated[bool, tyro.conf.arg(help="Print nothing of the training.", help_behavior_hint="")] = (
        False
    )


def main(arguments: list[str]) -> None:
    """Sweep, and print.

    Raises:
        OuroError: see ourospec.api.train; a seed that diverges is a row of the table, not an error.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(as_typed(USAGE))
        return
    start, overrides = leading(arguments, "preset", "ouro sweep PRESET --seeds N,N,...")
    from ourospec.cli.overrides import parse_overrides
    from ourospec.cli.train import find_recipe, refuse_two_lengths, spelt_out

    recipe, options = parse_overrides(
        find_recipe(start),
        spelt_out(overrides),
        prog=f"ouro sweep {shlex.quote(start)}",
        hidden=("family", "name", "seed"),
        extras=SweepOptions,
    )
    refuse_two_lengths(recipe, overrides)
    seeds = parse_seeds(options.seeds)
    folder = Path(options.runs) if options.runs else Path("runs") / f"sweep-{recipe.family}-{recipe.name}"
    shown = not (options.quiet or options.json)
    rows = [train_seed(recipe, seed, folder, shown=shown) for seed in seeds]
    figures = {
        "preset": f"{recipe.family}/{recipe.name}",
        "runs": str(folder),
        **summarise(rows),
        "seeds": rows,
    }
    figures["references"], figures["picture"] = draw(recipe, rows, folder)
    if options.json:
        print_json(figures)
    else:
        show(figures)


def parse_seeds(text: str) -> list[int]:
    """The numbers of a list like 7,42,1337.

    Raises:
        ConfigError: it is none, or a seed is named twice.
    """
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise ConfigError(
            f"--seeds takes whole numbers with commas between them, not {text!r}.", "Write: --seeds 7,42,1337"
        ) from None
    if min(seeds) < 0 or max(seeds) >= 2**31 or len(set(seeds)) < len(seeds):
        raise ConfigError(
            f"--seeds {text}: each has to be a number from 0 to 2,147,483,647, and named once.",
            "Write: --seeds 7,42,1337",
        )
    return seeds


def train_seed(recipe: Recipe, seed: int, folder: Path, *, shown: bool) -> dict[str, Any]:
    """Train with this seed, or find it done, and evaluate: the figures of one row."""
    run = RunDirectory(folder / f"seed-{seed}")
    mine = type(recipe).model_validate({**dict(recipe), "seed": seed})
    row = train_and_measure(mine, run, lambda opened, tell: opened.evaluate(tell=tell), shown=shown)
    return {"seed": seed, **row}


def summarise(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median, extremes and standard deviation over the seeds that did not diverge; None where there are too few."""
    losses = [row["loss"] for row in rows if row["loss"] is not None]
    return {
        "median": statistics.median(losses) if losses else None,
        "least": min(losses, default=None),
        "greatest": max(losses, default=None),
        "deviation": statistics.stdev(losses) if len(losses) > 1 else None,
        "diverged": len(rows) - len(losses),
    }


def draw(
    recipe: Recipe, rows: Sequence[Mapping[str, Any]], folder: Path
) -> tuple[dict[str, float], str | None]:
    """The references of the models, and the path of the picture: None where there is nothing to draw with, or on."""
    from ourospec import api
    from ourospec.errors import ResourceError
    from ourospec.loaded_model import LoadedModel
    from ourospec.measure.report.history import read_history
    from ourospec.measure.report.plot import Painter
    from ourospec.measure.report.seeds import seed_figure

    done = [row for row in rows if row["loss"] is not None]
    references: dict[str, float] = {}
    if done and not isinstance(opened := api.open_fitted(done[0]["run"]), LoadedModel):
        # All seeds are held against the same targets, so one asks for all.
        references = dict(opened.references())
    histories = {f"seed {row['seed']}": read_history(RunDirectory(Path(row["run"]))) for row in rows}
    figure = seed_figure(histories, references, f"{recipe.family}/{recipe.name}, seed by seed")
    if not figure.data:
        return references, None
    path = folder / "seeds.png"
    try:
        Painter().paint(figure, path)
    except ResourceError:
        return references, None
    return references, str(path)


def show(figures: Mapping[str, Any]) -> None:
    """Print for a person: the seeds, then what they say together."""
    head = ["seed", "loss", "steps", "training", "run"]
    rows = [
        [
            str(row["seed"]),
            with_error(row["loss"], row["loss_se"], 4) if row["loss"] is not None else row["status"],
            f"{row['step']:,}" if "step" in row else UNKNOWN,
            duration(row.get("seconds")),
            row["run"],
        ]
        for row in figures["seeds"]
    ]
    print()
    print_table([head, *rows])
    if figures["median"] is None:
        print("No seed came to its end.")
        return
    spread = "" if figures["deviation"] is None else f", standard deviation {figures['deviation']:.4f}"
    print(
        f"median {figures['median']:.4f} nats per target; from {figures['least']:.4f} to {figures['greatest']:.4f}"
        f"{spread}"
    )
    for name, height in figures["references"].items():
        below = sum(row["loss"] is not None and row["loss"] < height for row in figures["seeds"])
        print(f"{name}: {height:.4f}; {below} of {len(figures['seeds'])} seeds lie below it")
    if figures["picture"]:
        print(f"picture: {figures['picture']}")
