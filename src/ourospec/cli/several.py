"""Several trainings one after another, each a row of a table; and `ouro train` of a whole collection of presets."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ourospec.cli.output import print_json, print_table, progress
from ourospec.errors import DivergedError
from ourospec.runs import RunDirectory
from ourospec.telemetry.quantities import UNKNOWN, count, duration, with_error

if TYPE_CHECKING:
    from ourospec.cli.train import TrainOptions
    from ourospec.contracts import Observer
    from ourospec.data.text import TextData
    from ourospec.recipe import Recipe

Measure = Callable[[Any, Callable[[str], None] | None], Mapping[str, Any]]
"""Of an opened run and a teller: its held-out figures, with `loss` and `loss_se`."""


def train_and_measure(
    recipe: Recipe,
    run: RunDirectory,
    measure: Measure,
    *,
    shown: bool,
    watchers: Sequence[Observer] = (),
    tell: Callable[[str], None] | None = None,
    set_price: float | None = None,
) -> dict[str, Any]:
    """Train a recipe, or find it done, and measure it: the figures of one row. A run that diverges is a row, too.

    Args:
        shown: print the training, and how far the measurement is.
        tell: hears what is being prepared before the first step.

    Raises:
        OuroError: see ourospec.api.train.
    """
    from ourospec import api
    from ourospec.telemetry.console import ConsoleObserver

    console = ConsoleObserver(
        sys.stdout if shown else sys.stderr,
        quiet=not shown,
        recipe=recipe.model_dump(mode="json"),
        run=str(run.path),
    )
    try:
        finish = api.train(recipe, run.path, observers=[console, *watchers], tell=tell, set_price=set_price)
    except DivergedError as error:
        return {
            "run": str(run.path),
            "status": "diverged",
            "why": str(error),
            "loss": None,
            "loss_se": None,
        }
    with progress(shown=shown and sys.stderr.isatty()) as line:
        found = measure(api.open_fitted(run.path), line)
    return {
        "run": str(run.path),
        "status": "complete",
        "step": finish.step,
        "seconds": finish.seconds,
        "loss": found["loss"],
        "loss_se": found["loss_se"],
        "figures": dict(found),
    }


def train_collection(start: str, presets: Sequence[str], overrides: Sequence[str]) -> None:
    """Train the presets of a collection in their order, the options meaning each of them, and print one table.

    The same command goes on where it was stopped; what is done is not trained again. With --run DIR the runs are
    folders of DIR.

    Raises:
        OuroError: see ourospec.api.train.
    """
    from ourospec.cli.train import other_watchers, resolve, run_path, tell

    # All are resolved before the first is trained: a mistake in an option costs nothing.
    resolved = [resolve(name, overrides, asked=start) for name in presets]
    recipes, options = [recipe for recipe, _ in resolved], resolved[0][1]
    if options.print_config:
        print_json([recipe.model_dump(mode="json") for recipe in recipes])
        return
    shared = shared_puzzles(recipes)

    def measure(opened: Any, line: Callable[[str], None] | None) -> Mapping[str, Any]:
        return opened.evaluate(tell=line) if shared is None else opened.evaluate(shared, tell=line)

    rows = []
    for name, recipe in zip(presets, recipes, strict=True):
        run = RunDirectory(run_path(name, recipe, _within(options, recipe)))
        watchers = other_watchers(run, options)
        row = train_and_measure(
            recipe,
            run,
            measure,
            shown=not options.quiet,
            watchers=watchers,
            tell=None if options.quiet else tell,
            set_price=options.set_price,
        )
        rows.append({"name": name, "parameters": parameters_of(run), **row})
    if not options.quiet:
        show(rows, shared)


def _within(options: TrainOptions, recipe: Recipe) -> TrainOptions:
    """The options for one run: a directory that was named holds a folder for each."""
    if not options.run:
        return options
    return dataclasses.replace(options, run=str(Path(options.run) / f"{recipe.family}-{recipe.name}"))


def shared_puzzles(recipes: Sequence[Recipe]) -> TextData | None:
    """The tasks of all recipes, equally many puzzles of each, held out from every one of them; None where not all of
    them learn from puzzles."""
    from ourospec.data.puzzles.config import MixtureSource, Part, PuzzleRows
    from ourospec.data.text import TextData

    found = [data for recipe in recipes if isinstance(data := getattr(recipe, "data", None), TextData)]
    sources = [data.source for data in found if isinstance(data.source, PuzzleRows)]
    if len(sources) < len(recipes):
        return None
    shares = [share for source in sources for lesson in source.lessons() for share in lesson.shares]
    tasks = {share.task.model_dump_json(): share.task for share in shares}
    mixture = MixtureSource(
        parts=tuple(Part(task=task) for task in tasks.values()),
        heldout_examples=sources[0].heldout_examples,
    )
    # Whether a problem is held out is a matter of its hash being below the fraction: the least holds for all.
    fraction = min(data.heldout_fraction for data in found)
    return TextData(source=mixture, tokenizer=found[0].tokenizer, heldout_fraction=fraction)


def parameters_of(run: RunDirectory) -> int | None:
    """As the run's start event tells."""
    starts = (event for event in run.read_events() if event["kind"] == "start")
    return next(starts, {}).get("parameters")


def show(rows: Sequence[Mapping[str, Any]], shared: TextData | None) -> None:
    """Print for a person: a line for each run."""
    asks = shared is not None
    lines = [
        [
            "name",
            "parameters",
            "held-out loss",
            *(["exact match"] if asks else []),
            "passes",
            "training",
            "run",
        ]
    ]
    for row in rows:
        figures = row.get("figures", {})
        passes = figures.get("mean_passes")
        lines.append(
            [
                row["name"],
                count(row["parameters"]),
                with_error(row["loss"], row["loss_se"], 4) if row["loss"] is not None else row["status"],
                *([exact_match(figures)] if asks else []),
                UNKNOWN if passes is None else f"{passes:.2f}",
                duration(row.get("seconds")),
                row["run"],
            ]
        )
    print()
    print_table(lines)
    if shared is not None:
        what = shared.source.describe()
        print(f"All on the same held-out {what}; equally many of each. Passes as each model decides itself.")


def exact_match(figures: Mapping[str, Any]) -> str:
    """With its error, where it was measured."""
    return with_error(figures.get("exact_match"), figures.get("exact_match_se"))
