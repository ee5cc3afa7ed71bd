"""From an arm of a claim to the recipe of a run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, JsonValue, ValidationError

from ourospec.claims.config import Claim, TrainedArm, explain
from ourospec.errors import ConfigError
from ourospec.families import PRESETS
from ourospec.recipe import TextRecipe

LEARNING_RATE = "optim.lr"


def recipe_of(claim: Claim, arm: TrainedArm, seed: int, learning_rate: float, steps: int = 0) -> TextRecipe:
    """The recipe of an arm for a seed; with `steps`, a shorter one.

    Raises:
        ConfigError: a preset that is not there, or a setting that it does not take.
    """
    changes = {**claim.common, **arm.set, "seed": seed, LEARNING_RATE: learning_rate}
    if steps:
        changes |= {"train.steps": steps, "train.epochs": 0}
    if arm.preset not in PRESETS:
        raise ConfigError(
            f"Arm {arm.name}: there is no preset {arm.preset!r}.", f"There are: {', '.join(PRESETS)}."
        )
    recipe = with_settings(PRESETS[arm.preset](), changes, f"Arm {arm.name}")
    if not isinstance(recipe, TextRecipe):
        raise ConfigError(f"Arm {arm.name}: {arm.preset} does not read text.", "Name another preset.")
    return recipe


def with_settings(recipe: Any, changes: Mapping[str, JsonValue], where: str) -> Any:
    """A recipe with settings changed by dotted path; a path to a group takes the whole group, its kind included.

    Raises:
        ConfigError: a path that leads nowhere, or a value that is refused there.
    """
    values = json.loads(recipe.to_json())
    for path, value in changes.items():
        *groups, last = path.split(".")
        place, model = values, recipe
        for group in groups:
            place, model = place.get(group), getattr(model, group, None)
            if not isinstance(place, dict):
                break
        # What is switched off is not written, and can be switched on all the same.
        known = sorted(type(model).model_fields) if isinstance(model, BaseModel) else []
        if not isinstance(place, dict) or (last not in place and last not in known):
            there = f"There are here: {', '.join(known)}." if known else "Nothing is set below that."
            raise ConfigError(f"{where}: the recipe has no setting {path}.", there)
        place[last] = value
    try:
        return type(recipe).model_validate_json(json.dumps(values))
    except ValidationError as error:
        lines = [explain(problem["loc"], problem["msg"]) for problem in error.errors()]
        raise ConfigError(
            f"{where}: " + "\n".join(lines), "Correct `set` or `common` of the claim file."
        ) from None


def refuse_unlike(claim: Claim) -> None:
    """Refuse arms that do not read the same text in the same way: their losses could not be compared.

    Raises:
        ConfigError: naming what differs.
    """
    rate = claim.tuning.learning_rates[0]
    recipes = {arm.name: recipe_of(claim, arm, claim.seeds[0], rate) for arm in claim.trained}
    if not recipes:
        raise ConfigError("The claim trains nothing.", "Give at least one arm a preset.")
    (first, model), *others = recipes.items()
    for name, recipe in others:
        same = {"data": recipe.data == model.data, "train.window": recipe.train.window == model.train.window}
        differing = [what for what, equal in same.items() if not equal]
        if differing:
            raise ConfigError(
                f"Arms {first} and {name} differ in {' and '.join(differing)}: their losses per token mean different "
                "things.",
                "Put these settings into `common`.",
            )
