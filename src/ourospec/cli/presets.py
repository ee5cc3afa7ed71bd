"""`ouro presets`: what there is to train."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from ourospec.cli.options import parse_options
from ourospec.cli.output import print_json, print_section
from ourospec.cli.program import as_typed
from ourospec.cli.suggest import did_you_mean
from ourospec.errors import ConfigError

if TYPE_CHECKING:
    from ourospec.recipe import Recipe


@dataclass(frozen=True)
class PresetsOptions:
    """List the presets, family by family."""

    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.")] = False


def main(arguments: list[str]) -> None:
    """List."""
    options = parse_options(PresetsOptions, arguments, "presets")
    described = {name: describe(build) for name, build in all_presets().items()}
    for name, each in all_collections().items():
        described[name] = f"All of these, one after another: {', '.join(each)}."
    if options.json:
        print_json(described)
        return
    for family in dict.fromkeys(name.split("/")[0] for name in described):
        own = ((name, what) for name, what in described.items() if name.split("/")[0] == family)
        print_section(family, own)
    rows = [
        ("train one", "ouro train PRESET"),
        ("what it costs", "ouro plan PRESET"),
        ("its settings", "ouro train PRESET --help"),
    ]
    print_section("Next", ((what, as_typed(command)) for what, command in rows))


def find_preset(name: str) -> Recipe:
    """The recipe of a preset.

    Raises:
        ConfigError: there is none of that name; the message names those near it.
    """
    presets = all_presets()
    if name in presets:
        return presets[name]()
    if name in all_collections():
        raise ConfigError(
            f"{name} is a collection of presets, and one is needed here.",
            f"Name one of them: {', '.join(all_collections()[name])}. All together: ouro train {name}",
        )
    raise ConfigError(
        f"There is no preset {name!r}.",
        f"{did_you_mean(name, [*presets, *all_collections()])}All of them: ouro presets",
    )


def all_presets() -> dict[str, Callable[[], Recipe]]:
    """Name -> what builds the recipe."""
    import ourospec

    return dict(ourospec.presets())


def all_collections() -> Mapping[str, Sequence[str]]:
    """Name -> the presets that it stands for."""
    from ourospec import api

    return api.collections()


def describe(build: Callable[[], Recipe]) -> str:
    """The first line of a preset's docstring."""
    return (inspect.getdoc(build) or "").partition("\n")[0]
