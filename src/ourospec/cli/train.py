"""`ouro train PRESET [--field.name VALUE ...]`: train, or go on with a run."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ourospec.cli.options import leading, values_of
from ourospec.cli.program import as_typed
from ourospec.errors import ConfigError
from ourospec.runs import RunDirectory

if TYPE_CHECKING:
    from ourospec.contracts import Observer
    from ourospec.recipe import Recipe

USAGE = """usage: ouro train PRESET [--run DIR] [--field.name VALUE ...]

Train a preset, or go on with a run that was stopped: the same command resumes it.

  PRESET            a name that `ouro presets` lists, a run directory, or a file like its recipe.json; the name of a
                    collection trains all its presets, one after another, and prints one table
  --run DIR         run directory [runs/FAMILY-PRESET]
  --print-config    print the resolved recipe as JSON, and do nothing
  --quiet           print nothing but warnings
  --set-price X     go on with this price of a pass, in nats; the controller then moves it on
  --hard-kill       one pass everywhere, from beginning to end: the baseline without recurrence
  --tensorboard     also write curves for TensorBoard, into DIR/tensorboard
  --wandb [MODE]    also log to Weights & Biases, into DIR/wandb; MODE is offline or online [offline]
  --test            a few steps on the CPU with a batch of 2, to see that everything works [runs/test-FAMILY-PRESET]

With a family in the place of a preset, --specialization NAME means FAMILY/NAME; --wandb-mode offline, online or
disabled means --wandb.

Every setting of the recipe is an option, for example

  ouro train adaptive_lm/tiny --train.steps 200 --optim.lr 1e-3 --model.width 128
  ouro train adaptive_lm/tiny --data.source files --data.source.paths book.txt
  ouro train adaptive_lm/tiny --train.epochs 2.5 --train.keep-best true

With --train.epochs the number of steps follows from the training data; --train.steps beside it is refused.

The settings of a preset, with units and defaults:  ouro train PRESET --help"""


HARD_KILL = "--objective.schedule.hard-kill"


@dataclass(frozen=True)
class TrainOptions:
    """What is not part of the recipe."""

    run: Annotated[
        str, tyro.conf.arg(help="Run directory.", help_behavior_hint="(default: runs/FAMILY-PRESET)")
    ] = ""
    print_config: Annotated[
        bool, tyro.conf.arg(help="Print the resolved recipe as JSON, and do nothing.", help_behavior_hint="")
    ] = False
    quiet: Annotated[bool, tyro.conf.arg(help="Print nothing but warnings.", help_behavior_hint="")] = False
    set_price: Annotated[
        float | None,
        tyro.conf.arg(
            help="Price of a pass in nats with which to go on; the controller then moves it.",
            help_behavior_hint="(default: the run's own)",
        ),
    ] = None
    tensorboard: Annotated[
        bool,
        tyro.conf.arg(help="Write curves for TensorBoard into the run directory.", help_behavior_hint=""),
    ] = False
    test: Annotated[
        bool,
        tyro.conf.arg(
            help="A few steps on the CPU with a batch of 2, as far as nothing else is said.",
            help_behavior_hint="",
        ),
    ] = False
    wandb: Annotated[
        Literal["off", "offline", "online"],
        tyro.conf.arg(help="Log to Weights & Biases; --wandb alone means offline, which sends nothing."),
    ] = "off"


def main(arguments: list[str]) -> None:
    """Train, and print what is worth trying next.

    Raises:
        OuroError: anything that a person can do something about, see ourospec.errors.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(as_typed(USAGE))
        return
    start, overrides = leading(arguments, "preset", "ouro train PRESET --field.name VALUE")
    from ourospec.cli.presets import all_collections
    from ourospec.cli.shortcuts import spell_out

    start, overrides = spell_out(start, overrides)
    presets = all_collections().get(start)
    if presets is not None:
        from ourospec.cli.several import train_collection

        train_collection(start, presets, overrides)
        return
    recipe, options = resolve(start, overrides)
    if options.print_config:
        print(recipe.to_json(), end="")
        return
    from ourospec import api
    from ourospec.telemetry.console import ConsoleObserver

    run = RunDirectory(run_path(start, recipe, options))
    watcher = ConsoleObserver(
        sys.stderr if options.quiet else sys.stdout,
        quiet=options.quiet,
        recipe=recipe.model_dump(mode="json"),
        run=str(run.path),
    )
    watchers = [watcher, *other_watchers(run, options)]
    finish = api.train(
        recipe,
        run.path,
        observers=watchers,
        tell=None if options.quiet else tell,
        set_price=options.set_price,
    )
    if not options.quiet:
        if finish.status == "already complete":
            steps = find_recipe(str(run.path)).train.steps
            print(f"{run.path} was trained to its end before: {finish.step:,} of {steps:,} steps.")
        print(next_commands(run, recipe))


def resolve(start: str, overrides: Sequence[str], asked: str = "") -> tuple[Recipe, TrainOptions]:
    """The recipe of a preset, run directory or recipe.json, with what the command line changes about it.

    Args:
        asked: the collection that was named in its place.
    """
    from ourospec.cli.overrides import parse_overrides

    recipe, options = parse_overrides(
        find_recipe(start),
        spelt_out(overrides),
        prog=f"ouro train {shlex.quote(asked or start)}",
        hidden=("family", "name"),
        extras=TrainOptions,
    )
    refuse_two_lengths(recipe, overrides)
    return recipe, options


def refuse_two_lengths(recipe: Recipe, arguments: Sequence[str], option: str = "train.steps") -> None:
    """Raise ConfigError for a number of steps that epochs would overrule."""
    steps = values_of(arguments).get(option)
    if steps is not None and recipe.train.epochs:
        raise ConfigError(
            f"--{option} {steps} says how long to train, and so does train.epochs, which is {recipe.train.epochs:g}.",
            f"Leave --{option} out, or add --train.epochs 0 to train by steps.",
        )


def spelt_out(arguments: Sequence[str]) -> list[str]:
    """What has a short form in full: `--wandb` without a mode, and `--hard-kill`, which is a setting of the recipe."""
    spelt: list[str] = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=False):
        if argument == "--hard-kill":
            spelt.extend((HARD_KILL, "true"))
        elif argument == "--wandb" and following.startswith("--"):
            spelt.extend((argument, "offline"))
        else:
            spelt.append(argument)
    return spelt


def other_watchers(run: RunDirectory, options: TrainOptions) -> list[Observer]:
    """Observers of other tools, where they were asked for.

    Raises:
        ResourceError: the tool's package is not installed.
        ConfigError: it cannot be used online from here.
    """
    found: list[Observer] = []
    if options.tensorboard:
        from ourospec.telemetry.tensorboard import TensorBoardObserver

        found.append(TensorBoardObserver(run))
    if options.wandb != "off":
        from ourospec.telemetry.wandb import WandbObserver

        found.append(WandbObserver(run, options.wandb))
    return found


def find_recipe(start: str) -> Recipe:
    """A preset's recipe, or the one that a run directory or a file holds.

    Raises:
        ConfigError: it is neither.
    """
    from ourospec.cli.presets import find_preset

    inside = RunDirectory(Path(start)).recipe
    path = inside if inside.is_file() else Path(start)
    if path.is_file():
        import ourospec.families  # noqa: F401  (makes their recipes readable)
        from ourospec.recipe import read_recipe

        return read_recipe(path)
    return find_preset(start)


def run_path(start: str, recipe: Recipe, options: TrainOptions) -> Path:
    """Where the run lives: as asked, or the run directory that was named, or by the preset's name."""
    if options.run:
        return Path(options.run)
    if (Path(start) / "recipe.json").is_file() and not options.test:
        return Path(start)
    # A trial must not take the place of the run that it is a trial of.
    return Path("runs") / f"{'test-' if options.test else ''}{recipe.family}-{recipe.name}"


def tell(what: str) -> None:
    """What is being prepared before the first step; the first time it can take a minute."""
    print(f"{what} ...", flush=True)


def next_commands(run: RunDirectory, recipe: Recipe) -> str:
    """What is worth trying, as it can be typed here."""
    path = shlex.quote(str(run.path))
    commands = [f"ouro {words.format(run=path)}" for words in recipe.next_verbs()]
    return as_typed("\nTry next:\n" + "\n".join(f"  {command}" for command in commands))
