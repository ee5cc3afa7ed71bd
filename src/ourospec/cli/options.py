"""A verb's own options: a frozen dataclass, read from the command line by tyro."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from ourospec.cli.suggest import did_you_mean, normal
from ourospec.errors import ConfigError

Options = TypeVar("Options")

MaxPasses = Annotated[int | None, tyro.conf.arg(help="Passes per token and layer at most; None: as trained.")]
Threshold = Annotated[
    float | None,
    tyro.conf.arg(help="Survival under which a token leaves its layer, 0 to 1; None: as trained."),
]


def parse_options(options: type[Options], arguments: Sequence[str], verb: str) -> Options:
    """Read a verb's options. Ends the process for `--help` and for values that cannot be read (status 2).

    Args:
        options: a dataclass; `--a-field` sets `a_field`, booleans are switches.
        arguments: what follows the verb.
        verb: for the help text.

    Raises:
        ConfigError: an option that does not exist; the message names those near it.
    """
    fields = dataclasses.fields(options)  # pyright: ignore[reportArgumentType]
    flags = {f"--{field.name.replace('_', '-')}": "" for field in fields}
    refuse_unknown(arguments, flags, f"ouro {verb} --help")
    return tyro.cli(
        options,
        args=list(arguments),
        prog=f"ouro {verb}",
        description=options.__doc__,
        config=(tyro.conf.FlagCreatePairsOff,),
    )


def refuse_unknown(arguments: Iterable[str], flags: Mapping[str, str], help_command: str) -> None:
    """Raise ConfigError for the first option that is not among `flags` (flag -> description)."""
    known = {normal(flag) for flag in flags} | {"help"}
    for flag in flags_of(arguments):
        if normal(flag) not in known:
            advice = did_you_mean(flag, flags)
            raise ConfigError(f"There is no option {flag}.", f"{advice}All options: {help_command}")


def flags_of(arguments: Iterable[str]) -> list[str]:
    """The options among the arguments, without the values glued to them by `=`."""
    return [
        argument.split("=", 1)[0] for argument in arguments if argument.startswith("--") and argument != "--"
    ]


def values_of(arguments: Sequence[str]) -> dict[str, Any]:
    """The first value after each option (normalised name -> value), where there is one."""
    values: dict[str, Any] = {}
    for index, argument in enumerate(arguments):
        if not argument.startswith("--"):
            continue
        name, glued, value = argument.partition("=")
        following = arguments[index + 1] if index + 1 < len(arguments) else "--"
        if glued or not following.startswith("--"):
            values[normal(name)] = value if glued else following
    return values
