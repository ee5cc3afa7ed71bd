"""`ouro distill RUN --budget 1.2`: train a student that says with few passes what its teacher says with all."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ourospec.cli.options import leading, values_of
from ourospec.cli.output import bold, flop, print_json, print_table, progress, without_nan
from ourospec.cli.program import as_typed
from ourospec.errors import ConfigError
from ourospec.runs import RunDirectory
from ourospec.telemetry.quantities import UNKNOWN, with_error

if TYPE_CHECKING:
    from ourospec.api import LoadedModel
    from ourospec.contracts import Effort
    from ourospec.recipe import Recipe

USAGE = """usage: ouro distill RUN --budget PASSES [--out DIR] [--student PRESET] [--field.name VALUE ...]

Train a student that says with few passes what its teacher, a trained run, says with all of them.

  RUN               the teacher: a run directory
  --budget PASSES   mean passes per token and layer that the student may run
  --out DIR         the student's run directory [RUN-distilled-PASSES]
  --student PRESET  a fresh student like this preset; without it, the teacher's own weights go on being trained
  --steps N         optimiser steps [a quarter of the teacher's; with --student, the preset's]
  --tokens N        size of the samples on which teacher and student are compared [40000]
  --print-config    print the resolved recipe as JSON, and do nothing
  --quiet           print nothing but warnings
  --json            print the comparison as one JSON document

The same command goes on with a run that was stopped. Every setting of the student's recipe is an option:

  ouro distill runs/adaptive_lm-tiny --budget 1.2 --distil.where answer --distil.weight 2 --optim.lr 1e-3

All of them, with units and defaults:  ouro distill RUN --help"""
RESULT = "distillation.json"
HEADINGS = ("", "passes", "loss", "bits per byte", "FLOPs per token")


@dataclass(frozen=True)
class DistillOptions:
    """What is not part of the recipe."""

    budget: Annotated[
        float | None, tyro.conf.arg(help="Mean passes per token and layer that the student may run.")
    ] = None
    out: Annotated[
        str,
        tyro.conf.arg(
            help="The student's run directory.", help_behavior_hint="(default: RUN-distilled-PASSES)"
        ),
    ] = ""
    student: Annotated[
        str,
        tyro.conf.arg(
            help="Preset of a fresh student; without it the teacher's weights go on being trained.",
            help_behavior_hint="",
        ),
    ] = ""
    steps: Annotated[
        int | None,
        tyro.conf.arg(
            help="Optimiser steps.",
            help_behavior_hint="(default: a quarter of the teacher's, or the preset's)",
        ),
    ] = None
    tokens: Annotated[
        int, tyro.conf.arg(help="Size of the samples on which teacher and student are compared, in tokens.")
    ] = 40_000
    print_config: Annotated[
        bool, tyro.conf.arg(help="Print the resolved recipe as JSON, and do nothing.", help_behavior_hint="")
    ] = False
    quiet: Annotated[bool, tyro.conf.arg(help="Print nothing but warnings.", help_behavior_hint="")] = False
    json: Annotated[
        bool, tyro.conf.arg(help="Print the comparison as one JSON document.", help_behavior_hint="")
    ] = False


def main(arguments: list[str]) -> None:
    """Train the student, and compare it with its teacher.

    Raises:
        OuroError: anything that a person can do something about, see ourospec.errors.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(as_typed(USAGE))
        return
    teacher, overrides = leading(arguments, "run", "ouro distill RUN --budget 1.2")
    recipe, options = resolve(teacher, overrides)
    if options.print_config:
        print(recipe.to_json(), end="")
        return
    if options.tokens < 1:
        raise ConfigError(f"Samples of {options.tokens} tokens were asked for.", "Say: --tokens 40000")
    from ourospec import api
    from ourospec.telemetry.console import ConsoleObserver

    assert options.budget is not None
    run = RunDirectory(Path(options.out or f"{teacher.rstrip('/')}-distilled-{options.budget:g}"))
    silent = options.quiet or options.json
    watcher = ConsoleObserver(
        sys.stderr if silent else sys.stdout,
        quiet=silent,
        recipe=recipe.model_dump(mode="json"),
        run=str(run.path),
    )
    api.train(recipe, run.path, observers=[watcher], tell=None if silent else print)
    with progress(shown=not silent and sys.stderr.isatty()) as tell:
        found = compare(teacher, run, recipe, options, tell)
    from ourospec.storage import write_whole

    write_whole(run.path / RESULT, (json.dumps(without_nan(found), indent=2) + "\n").encode())
    if options.json:
        print_json(found)
    elif not options.quiet:
        show(found, run)


def resolve(teacher: str, overrides: Sequence[str]) -> tuple[Recipe, DistillOptions]:
    """The student's recipe, with what the command line changes about it.

    Raises:
        ConfigError: no budget, one that cannot be held, or a run that can teach nothing.
    """
    from ourospec.cli.overrides import parse_overrides
    from ourospec.cli.presets import find_preset
    from ourospec.cli.train import refuse_two_lengths
    from ourospec.families import distilled

    given = values_of(overrides)
    helping = any(argument in ("-h", "--help") for argument in overrides)
    if "budget" not in given and not helping:
        raise ConfigError(
            "There is no budget that the student should keep.",
            f"Say how many passes per token and layer: ouro distill {shlex.quote(teacher)} --budget 1.2",
        )
    default = distilled(
        teacher,
        number(given.get("budget", "1.2"), "--budget 1.2"),
        student=find_preset(given["student"]) if given.get("student") else None,
        steps=math.ceil(number(given["steps"], "--steps 500")) if "steps" in given else None,
    )
    recipe, options = parse_overrides(
        default,
        overrides,
        prog=f"ouro distill {shlex.quote(teacher)}",
        hidden=("family", "name", "teacher", "start"),
        extras=DistillOptions,
    )
    for option in ("steps", "train.steps"):
        refuse_two_lengths(recipe, overrides, option)
    return recipe, options


def number(text: str, example: str) -> float:
    """A number of the command line, which is needed before the rest of it can be read.

    Raises:
        ConfigError: it is none, or none that counts anything.
    """
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ConfigError(f"{example.split()[0]} {text} is not a number above 0.", f"Say: {example}")
    return found


def compare(
    teacher: str,
    run: RunDirectory,
    recipe: Any,
    options: DistillOptions,
    tell: Callable[[str], None] | None,
) -> dict[str, Any]:
    """Both on the same held-out text: with one pass, with as many as the teacher taught with, and in the budget."""
    from ourospec.cli.loading import load_run
    from ourospec.contracts import Effort

    deep, shallow = recipe.teaching_effort(), Effort(forced_passes=1)
    rows: dict[str, Any] = {}
    for name, path in (("teacher", teacher), ("student", str(run.path))):
        loaded = load_run(path)
        most = loaded.recipe.model.depth.max_passes  # pyright: ignore[reportAttributeAccessIssue]
        efforts = {"one": shallow, "all": deep if name == "teacher" else Effort(forced_passes=most)}
        for kind, effort in efforts.items():
            if tell is not None:
                tell(f"scoring the {name} with {effort.forced_passes} passes")
            rows[f"{name}_{kind}"] = loaded.evaluate(most_tokens=options.tokens, effort=effort)
        rows[f"{name}_budget"] = in_budget(loaded, options, tell)
    return {
        "teacher": teacher,
        "student": str(run.path),
        "budget": options.budget,
        "teacher_passes": deep.forced_passes,
        **rows,
    }


def in_budget(
    loaded: LoadedModel, options: DistillOptions, tell: Callable[[str], None] | None
) -> Mapping[str, Any] | None:
    """The figures at the threshold that meets the budget, calibrated where it was not; None where none does."""
    assert options.budget is not None
    try:
        effort: Effort = loaded.effort_for(options.budget)
    except ConfigError:
        try:
            loaded.calibrate([options.budget], most_tokens=options.tokens, tell=tell)
        except ConfigError:
            return None
        effort = loaded.effort_for(options.budget)
    return loaded.evaluate(most_tokens=options.tokens, effort=effort, tell=tell)


def show(found: Mapping[str, Any], run: RunDirectory) -> None:
    """The table, and what is to be read from it."""
    budget, deep = found["budget"], found["teacher_passes"]
    print("\n" + bold(f"{found['student']}, taught by {found['teacher']}"))
    names = {
        "teacher_all": f"teacher, {deep} passes",
        "teacher_one": "teacher, 1 pass",
        "teacher_budget": f"teacher at {budget:g}",
        "student_budget": f"student at {budget:g}",
        "student_one": "student, 1 pass",
        "student_all": "student, all passes",
    }
    print_table([HEADINGS, *(line(label, found[name]) for name, label in names.items())])
    for sentence in remarks(found):
        print(sentence)
    path = shlex.quote(str(run.path))
    print(as_typed(f"Kept in {run.path / RESULT}. Try: ouro generate {path} --budget {budget:g}"))


def line(label: str, figures: Mapping[str, Any] | None) -> tuple[str, ...]:
    """A row of the table."""
    if figures is None:
        return (label, *[UNKNOWN] * (len(HEADINGS) - 1))
    named = ("mean_passes", "loss", "bits_per_byte")
    return (
        label,
        *(with_error(figures[name], figures[f"{name}_se"]) for name in named),
        flop(figures["flops_per_token"]),
    )


def remarks(found: Mapping[str, Any]) -> list[str]:
    """What the figures say, in sentences."""
    deep, one = found["teacher_all"]["loss"], found["teacher_one"]["loss"]
    said = []
    if deep >= one:
        said.append(
            f"The teacher's {found['teacher_passes']} passes foretell no better than its one ({deep:.4f} and {one:.4f} "
            "nats): there was nothing to hand on. Fewer may: --distil.passes 2."
        )
    for name in ("teacher", "student"):
        if found[f"{name}_budget"] is None:
            said.append(
                f"No threshold keeps the {name} within {found['budget']:g} passes: its gates cannot say so."
            )
    if found["teacher_budget"] is not None and found["student_budget"] is not None:
        reached, before = found["student_budget"]["loss"], found["teacher_budget"]["loss"]
        said.append(
            f"At {found['budget']:g} passes the student's loss is {reached - before:+.4f} nats against the teacher's, "
            f"and against its {found['teacher_passes']} passes {reached - deep:+.4f}."
        )
        said.append(
            "Training alone lowers it, too: what the teacher added is the difference from --distil.weight 0."
        )
    return said
