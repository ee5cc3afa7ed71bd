"""The public interface, for notebooks and scripts as for the command line. Stable within a major version."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ourospec.contracts import Event, Fitted, Observer
from ourospec.data.tokenizers import load_tokenizer
from ourospec.device import DeviceName, choose_device
from ourospec.errors import ConfigError
from ourospec.families import COLLECTIONS, PRESETS
from ourospec.loaded_model import LoadedModel, Score, Trace
from ourospec.measure.report import write_report
from ourospec.recipe import Recipe, TextRecipe, read_recipe
from ourospec.runs import RunDirectory, open_run
from ourospec.telemetry.environment import write_environment
from ourospec.telemetry.jsonl import JsonlObserver
from ourospec.telemetry.log_file import LogFile
from ourospec.telemetry.samples import SampleFiles
from ourospec.telemetry.stats_file import StatsFile
from ourospec.train.loop import Finish, fit
from ourospec.train.recipe_file import as_recorded, refuse_other_recipe
from ourospec.train.weights import Which, load_weights

__all__ = ["LoadedModel", "Score", "Trace", "collections", "load", "open_fitted", "presets", "train"]


def presets() -> dict[str, Callable[[], Recipe]]:
    """All presets by name, such as "adaptive_lm/tiny": each call makes a fresh Recipe."""
    return dict(PRESETS)


def collections() -> dict[str, tuple[str, ...]]:
    """Names that stand for several presets, and which."""
    return dict(COLLECTIONS)


def train(
    recipe: Recipe | str,
    run_dir: str | Path,
    *,
    observers: Sequence[Observer] = (),
    tell: Callable[[str], None] | None = None,
    set_price: float | None = None,
) -> Finish:
    """Train a recipe, or go on with it where the directory already holds it, and write the report.

    Args:
        recipe: a Recipe, or the name of a preset.
        run_dir: where everything goes; see runs.RunDirectory.
        observers: watchers beside those that write the directory's own files.
        tell: hears, in a few words each, what is being prepared before the first step.
        set_price: nats per pass with which to start or to go on, as far as the market's floor and ceiling allow; a
            warning event records it.

    Raises:
        OuroError: see train.loop.fit, which this calls.
    """
    if isinstance(recipe, str) and recipe not in PRESETS:
        raise ConfigError(f"There is no preset {recipe!r}.", f"There are: {', '.join(PRESETS)}.")
    chosen = PRESETS[recipe]() if isinstance(recipe, str) else recipe
    run = RunDirectory(Path(run_dir))
    # Before anything is prepared or written: another run's directory stays as it is.
    unsettled = chosen.train.unsettled
    refuse_other_recipe(run, as_recorded(run, chosen.to_json(), _as_now, unsettled), unsettled)
    files = (JsonlObserver(run), LogFile(run), StatsFile(run), SampleFiles(run), _Paperwork(run))
    job = chosen.assemble(run, [*files, *observers], tell)
    job = replace(job, recipe_json=as_recorded(run, job.recipe_json, _as_now))
    if set_price is not None:
        job = replace(job, adjust=partial(_set_price, set_price))
    return fit(job)


def _as_now(path: Path) -> str:
    """A recipe file as this version would write it."""
    return read_recipe(path).to_json()


def _set_price(price: float, objective: Any) -> str:
    """Override the price of a pass, and say so.

    Raises:
        ConfigError: this objective has no price, or the price is not a number.
    """
    if not hasattr(objective, "set_price"):
        raise ConfigError("This model pays no price for passes.", "Leave --set-price out.")
    if not math.isfinite(price):
        raise ConfigError(f"A price of {price} cannot be paid.", "Name a number of nats, such as 0.01.")
    before, taken = objective.price, objective.set_price(price)
    bounded = "" if taken == price else f" ({price:g} is outside the market's bounds)"
    return f"The price of a pass was set by hand: {taken:g} nats instead of {before:g}{bounded}."


@dataclass(frozen=True)
class _Paperwork:
    """Records the machine when a run starts and writes the report when it ends, however it ends.

    As an observer it does so only for a start that got past the lock and the recipe, and cannot break the run.
    """

    run: RunDirectory

    def on_event(self, event: Event) -> None:
        if event.kind == "start":
            write_environment(self.run, {key: event.data[key] for key in ("device", "precision")})
        elif event.kind == "end":
            write_report(self.run)

    def close(self) -> None:
        """Nothing is held open."""


def load(run_dir: str | Path, *, device: DeviceName = "auto", which: Which = "newest") -> LoadedModel:
    """The newest whole checkpoint of a language model's run, ready for use.

    Args:
        which: "best" for the weights with the least held-out loss, where the run keeps them (train.keep_best).

    Raises:
        ConfigError: there is no run at that path, its recipe cannot be read, or it does not read text.
        ResourceError: it has no whole checkpoint, or keeps no best weights.
    """
    recipe, run = _recipe_of(run_dir)
    if not isinstance(recipe, TextRecipe):
        raise ConfigError(
            f"{run.path} holds a {recipe.family}, which does not read text.",
            "Measure it with: ouro evaluate RUN. In Python: ourospec.api.open_fitted(run)",
        )
    return _load_text(recipe, run, device, which)


def open_fitted(
    run_dir: str | Path, *, device: DeviceName = "auto", which: Which = "newest"
) -> LoadedModel | Fitted:
    """As `load`, for a run of any family.

    Raises:
        ConfigError: there is no run at that path, or its recipe cannot be read.
        ResourceError: it has no whole checkpoint, or keeps no best weights.
    """
    recipe, run = _recipe_of(run_dir)
    if isinstance(recipe, TextRecipe):
        return _load_text(recipe, run, device, which)
    return recipe.open(run, device, which)


def _recipe_of(run_dir: str | Path) -> tuple[Recipe, RunDirectory]:
    run = open_run(run_dir)
    return read_recipe(run.recipe), run


def _load_text(recipe: TextRecipe, run: RunDirectory, device: DeviceName, which: Which) -> LoadedModel:
    policy = choose_device(device, recipe.train.precision)
    weights, origin = load_weights(run, which)
    tokenizer = load_tokenizer(run.tokenizer)
    with torch.random.fork_rng(devices=[]):
        model = recipe.build_model(tokenizer)
    model.load_state_dict(weights)
    objective = recipe.build_objective()
    objective.load_state_dict(origin.objective)
    return LoadedModel(model.to(policy.device).eval(), tokenizer, recipe, policy, run, origin, objective)
