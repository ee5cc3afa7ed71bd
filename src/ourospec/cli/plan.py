"""`ouro plan PRESET`: what a run would cost here, without training it."""

from __future__ import annotations

import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ourospec.cli.options import leading
from ourospec.cli.output import flop, print_json, print_section
from ourospec.cli.program import as_typed
from ourospec.cli.suggest import normal
from ourospec.runs import RunDirectory
from ourospec.telemetry.quantities import count, duration, size
from ourospec.telemetry.reading import unit

if TYPE_CHECKING:
    from ourospec.recipe import Recipe
    from ourospec.train.loop import Job

USAGE = """usage: ouro plan PRESET [--no-measure] [--json] [--field.name VALUE ...]

Say what a run would take, without training it: parameters by part, FLOPs per token, memory at its peak, disk,
and hours on this machine, estimated from ten seconds of measuring.

  PRESET         a name that `ouro presets` lists, a run directory, or a recipe.json
  --no-measure   do not measure: no hours, and memory without activations
  --json         print one JSON document

Every setting of the recipe is an option, as in ouro train:

  ouro plan adaptive_lm/small --train.micro-batch-size 8

The settings of a preset, with units and defaults:  ouro plan PRESET --help"""

SECONDS = 10.0


@dataclass(frozen=True)
class PlanOptions:
    """What is not part of the recipe."""

    no_measure: Annotated[
        bool,
        tyro.conf.arg(help="No measuring: no hours, memory without activations.", help_behavior_hint=""),
    ] = False
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.", help_behavior_hint="")] = False


def main(arguments: list[str]) -> None:
    """Plan, and print."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(as_typed(USAGE))
        return
    start, overrides = leading(arguments, "preset", "ouro plan PRESET [options]")
    from ourospec.cli.overrides import parse_overrides
    from ourospec.cli.train import find_recipe, refuse_two_lengths

    recipe, options = parse_overrides(
        find_recipe(start),
        overrides,
        prog=f"ouro plan {shlex.quote(start)}",
        hidden=("family", "name"),
        extras=PlanOptions,
    )
    refuse_two_lengths(recipe, overrides)
    figures = estimate(recipe, 0.0 if options.no_measure else SECONDS, tell=not options.json)
    if options.json:
        print_json(figures)
    else:
        show(start, figures)
        print(as_typed(f"Train it:  {training_command(start, overrides)}"))


def estimate(recipe: Recipe, seconds: float, *, tell: bool) -> dict[str, Any]:
    """The plan as JSON-ready data: bytes, seconds, FLOPs. 0 seconds: what is known without measuring."""
    from ourospec.cli.train import tell as say_so

    with tempfile.TemporaryDirectory() as folder:
        job = recipe.assemble(RunDirectory(Path(folder)), (), say_so if tell else None)
        about = {"unit": unit(job.about), "steps": job.train.steps, "epochs": job.train.epochs or None}
        if not seconds:
            return about | unmeasured(job)
        if tell:
            say_so(f"measuring for about {duration(seconds)}")
        return about | measured(job, seconds)


def measured(job: Job, seconds: float) -> dict[str, Any]:
    """Everything, with times and memory from a few micro-batches."""
    from ourospec.measure.plan import Workload, plan_run

    work = Workload(
        model=job.model,
        objective=job.objective,
        stream=job.stream,
        policy=job.policy,
        optim=job.optim,
        steps=job.train.steps,
        window=job.train.window,
        keep_checkpoints=job.train.keep_checkpoints,
        keep_best=job.train.keep_best,
    )
    return plan_run(work, seconds).as_data()


def unmeasured(job: Job) -> dict[str, Any]:
    """What the model's structure alone says."""
    from ourospec.measure.cost import checkpoint_bytes, disk_bytes, memory_plan, parameters_by_part

    model: Any = job.model
    parts = parameters_by_part(model)
    cost = model.cost((job.train.window + 1) / 2)
    checkpoint = checkpoint_bytes(model, job.optim)
    memory = memory_plan(model, job.optim)
    return {
        "parameters": parts,
        "parameters_total": sum(parts.values()),
        "tokens_per_step": job.about.get("tokens_per_step", job.train.batch_size * job.train.window),
        "flops_per_token": cost.uniform(),
        "flops_per_further_pass": sum(cost.later_pass),
        "memory": {
            "weights": memory.weights,
            "gradients": memory.gradients,
            "optimizer": memory.optimizer,
            "average": memory.average,
        },
        "memory_total": memory.total,
        "checkpoint": checkpoint,
        "disk": disk_bytes(model, job.optim, job.train.keep_checkpoints, keep_best=job.train.keep_best),
    }


def show(start: str, figures: Mapping[str, Any]) -> None:
    """Print for a person."""
    print()
    whole = figures["parameters_total"]
    parts = [(name, f"{count(n):>8}  {n / whole:4.0%}") for name, n in figures["parameters"].items()]
    print_section(f"Parameters of {start}", [*parts, ("all", f"{count(whole):>8}")])
    tokens = figures["tokens_per_step"] * figures["steps"]
    further = figures["flops_per_further_pass"]
    flops = [("one pass per layer" if further else "model", f"{flop(figures['flops_per_token'])} forward")]
    if further:
        flops.append(("each further pass", flop(further)))
    thing = figures["unit"]
    print_section(f"Per {thing}", flops)
    memory = [(name, size(n)) for name, n in figures["memory"].items() if n]
    total = size(figures["memory_total"])
    note = "" if "pace" in figures else ", activations not counted: they need the measurement"
    print_section("Memory at the peak", [*memory, ("all", f"{total}{note}")])
    free = size(shutil.disk_usage(Path.cwd()).free)
    disk = (
        f"{size(figures['disk'])} at most, a checkpoint being {size(figures['checkpoint'])}; {free} are free"
    )
    print_section("Disk", [("checkpoints", disk)])
    epochs = f", {figures['epochs']:g} epochs of the training data" if figures["epochs"] else ""
    rows = [("work", f"{figures['steps']:,} steps, {count(tokens)} {thing}s{epochs}")]
    if "seconds" in figures:
        speed = figures["tokens_per_second"]
        spread = figures["pace"]["spread"]
        rows += [
            ("speed here", f"{speed:,.0f} {thing}s/s (times of single micro-batches spread by {spread:.0%})"),
            ("whole run", f"{duration(figures['seconds'])}, evaluations and samples not counted"),
        ]
    print_section("Time", rows)


def training_command(start: str, arguments: Sequence[str]) -> str:
    """What trains exactly what was planned: the same arguments, without the plan's own switches."""
    own = {field.name for field in fields(PlanOptions)}
    kept = [word for word in arguments if not (word.startswith("--") and normal(word) in own)]
    return shlex.join(["ouro", "train", start, *kept])
