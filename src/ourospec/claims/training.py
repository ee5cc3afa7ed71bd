"""One training run of a claim: an ordinary run directory, whose step events also say what the step cost."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ourospec.claims.flops import COUNTED, CountedObjective
from ourospec.errors import DivergedError
from ourospec.recipe import TextRecipe
from ourospec.runs import RunDirectory
from ourospec.telemetry.events import read_records
from ourospec.telemetry.jsonl import JsonlObserver
from ourospec.train.loop import fit
from ourospec.train.recipe_file import refuse_other_recipe


@dataclass(frozen=True)
class Trained:
    """What a training run took."""

    parameters: int
    tokens: int
    """Seen in training."""
    flops: float
    """Counted in a sample of the steps and taken for all of them; nothing of evaluations."""
    counted_steps: int
    seconds: float
    """In optimiser steps, on whatever else the machine was doing."""


def run_name(recipe: TextRecipe) -> str:
    """The run directory's name: the same for the same recipe, whatever the claim."""
    digest = hashlib.sha256(recipe.to_json().encode()).hexdigest()[:10]
    return f"{recipe.family}-{recipe.name}-seed{recipe.seed}-{digest}"


def train_run(recipe: TextRecipe, runs: Path) -> Trained | None:
    """Train, or go on, or find it done; None where the run diverged.

    Raises:
        OuroError: see train.loop.fit; an interrupted run goes on when it is called again.
    """
    run = RunDirectory(runs / run_name(recipe))
    refuse_other_recipe(run, recipe.to_json(), recipe.train.unsettled)
    job = recipe.assemble(run, [JsonlObserver(run)])
    objective = CountedObjective(job.objective, job.train.steps)
    # What would be measured or drawn at the end only is not: the harness measures finished runs itself.
    probes = [probe for probe in job.probes if probe.every]
    try:
        fit(replace(job, objective=objective, probes=probes))
    except DivergedError:
        return None
    finally:
        objective.close()
    return read_trained(run)


def read_trained(run: RunDirectory) -> Trained:
    """From the events of a finished run."""
    parameters = tokens = steps = 0
    seconds, counts = 0.0, []
    for record in read_records(run):
        if record.kind == "start":
            parameters = record.data["parameters"]
        if record.kind == "step":
            steps, tokens, seconds = record.step, record.data["tokens"], record.data["seconds"]
            if COUNTED in record.data:
                counts.append(record.data[COUNTED])
    mean = sum(counts) / max(len(counts), 1)
    return Trained(parameters, tokens, mean * steps, len(counts), seconds)


def as_data(trained: Trained | None) -> dict[str, Any] | None:
    """JSON-ready."""
    return None if trained is None else asdict(trained)
