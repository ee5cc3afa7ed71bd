"""A verb's own options: a frozen dataclass, read from the command line by tyro."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TypeVar

import tyro

from ourospec.cli.suggest import did_you_mean, normal
from ourospec.errors import ConfigError

if TYPE_CHECKING:
    from ourospec.contracts import Effort
    from ourospec.measure.calibration_record import Budget

Options = TypeVar("Options")

Checkpoint = Annotated[
    Literal["newest", "best"],
    tyro.conf.arg(help="Whose weights: the newest, or those of the least held-out loss (train.keep-best)."),
]
MaxPasses = Annotated[int | None, tyro.conf.arg(help="Passes per token and layer at most; None: as trained.")]
Threshold = Annotated[
    float | None,
    tyro.conf.arg(help="Survival under which a token leaves its layer, 0 to 1; None: as trained."),
]
Readout = Annotated[
    str | None,
    tyro.conf.arg(
        help="Let a statistic of the update decide in place of the learned gates: update, direction or "
        "second_difference; None: the gates."
    ),
]
BudgetPasses = Annotated[
    float | None,
    tyro.conf.arg(
        help="Mean passes per token and layer, for which `ouro calibrate` has found a threshold; None: as trained."
    ),
]
BudgetMs = Annotated[
    float | None,
    tyro.conf.arg(help="Milliseconds a token, as --budget."),
]


class DepthOptions(Protocol):
    """What a verb is told about how long the model may think."""

    @property
    def max_passes(self) -> int | None: ...

    @property
    def threshold(self) -> float | None: ...

    @property
    def readout(self) -> str | None: ...

    @property
    def budget(self) -> float | None: ...

    @property
    def budget_ms(self) -> float | None: ...


def chosen_depth(options: DepthOptions) -> tuple[Effort, Budget | None]:
    """The depth that was asked for, and the budget, if one was.

    Raises:
        ConfigError: two budgets.
    """
    from ourospec.contracts import Effort
    from ourospec.measure.calibration_record import Budget

    if options.budget is not None and options.budget_ms is not None:
        raise ConfigError("Two budgets were given, one of passes and one of time.", "Leave one of them out.")
    effort = Effort(max_passes=options.max_passes, threshold=options.threshold, readout=options.readout)
    if options.budget is not None:
        return effort, Budget(options.budget)
    return effort, Budget(options.budget_ms, "ms") if options.budget_ms is not None else None


def budget_text(figures: Mapping[str, Any]) -> str:
    """The budget among printed figures, in words; empty where there is none."""
    if figures["budget_ms"] is not None:
        return f"{figures['budget_ms']:g} ms"
    return f"{figures['budget']:g}" if figures["budget"] is not None else ""


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


def leading(arguments: Sequence[str], what: str, usage: str) -> tuple[str, list[str]]:
    """What a command is about, which stands first, and everything behind it.

    Args:
        what: it is. usage: how the command is written.

    Raises:
        ConfigError: an option stands there.
    """
    first, *rest = arguments
    if first.startswith("-"):
        raise ConfigError(f"{first} stands where the {what} should.", f"Write: {usage}")
    return first, rest


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
