"""The recipe of a run directory: written once, at the first start, and never overwritten by another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ourospec.errors import ConfigError
from ourospec.runs import RunDirectory
from ourospec.train.durable import explained, replace_file

SHOWN = 20


def recipe_digest(recipe_json: str) -> str:
    """SHA-256 of what the recipe says, whatever the order and spacing of its fields."""
    canonical = json.dumps(json.loads(recipe_json), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def refuse_other_recipe(run: RunDirectory, recipe_json: str, unsettled: Collection[str] = ()) -> None:
    """See that a directory is new, or belongs to this very recipe. Cheap: worth asking before data is opened.

    Args:
        unsettled: fields that the data will decide (train.steps, where epochs are given), not compared yet.

    Raises:
        ConfigError: the directory holds another recipe (the message shows each field that differs), or has
            the traces of a run but no recipe.
    """
    if not run.exists():
        # An event file without events is only an observer that came early.
        if run.checkpoints.exists() or (run.events.exists() and run.events.stat().st_size > 0):
            raise ConfigError(
                f"{run.path} holds a run's files but no {run.recipe.name}; nobody can say whose they are.",
                "Choose another directory with --run DIR.",
            )
        return
    try:
        present = _flatten(json.loads(run.recipe.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{run.recipe} cannot be read: {error}", "Restore it, or choose another directory with --run DIR."
        ) from error
    asked = _flatten(json.loads(recipe_json))
    if fields := _differing(present, asked, unsettled):
        lines = [f"  {name}: {_show(present, name)} there, {_show(asked, name)} here" for name in fields]
        if len(lines) > SHOWN:
            lines[SHOWN:] = [f"  and {len(lines) - SHOWN} more"]
        raise ConfigError(
            f"{run.path} holds a run with a different recipe:\n" + "\n".join(lines),
            "Choose another directory with --run DIR, or give the fields their values there to go on with that run.",
        )


def as_recorded(
    run: RunDirectory,
    recipe_json: str,
    reads: Callable[[Path], str],
    unsettled: Collection[str] = (),
) -> str:
    """The run's own text of its recipe where that says the same, else `recipe_json`.

    A run may have begun with a version that knew fewer fields; those stand at their defaults then. Its checkpoints are
    bound to the text as it was.

    Args:
        reads: a recipe file as this version would write it; raises ConfigError where it cannot.
    """
    try:
        now, text = reads(run.recipe), run.recipe.read_text(encoding="utf-8")
    except (OSError, ConfigError):
        return recipe_json
    known, asked = (_flatten(json.loads(recipe)) for recipe in (now, recipe_json))
    return recipe_json if _differing(known, asked, unsettled) else text


def _differing(present: dict[str, str], asked: dict[str, str], unsettled: Collection[str]) -> list[str]:
    """Names of the fields that are not alike."""
    names = (name for name in {**present, **asked} if name not in unsettled)
    return [name for name in names if present.get(name) != asked.get(name)]


def record_recipe(run: RunDirectory, recipe_json: str) -> None:
    """Write the recipe if the directory has none.

    Raises:
        ResourceError: it cannot be written.
    """
    if not run.exists():
        with explained("Writing the recipe", run.path):
            run.path.mkdir(parents=True, exist_ok=True)
            replace_file(run.recipe, recipe_json)


def _flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested objects as dotted names; leaves as JSON text, so that 1, 1.0 and true stay apart."""
    if isinstance(value, dict) and value:
        parts = (_flatten(part, f"{prefix}.{key}" if prefix else key) for key, part in value.items())
        return {name: leaf for part in parts for name, leaf in part.items()}
    return {prefix: json.dumps(value)}


def _show(fields: dict[str, str], name: str) -> str:
    return fields.get(name, "absent")
