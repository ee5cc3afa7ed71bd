"""Options of `ouro train` that stand for several others; their names are those of Cognate's command line.

FAMILY --specialization NAME          the preset FAMILY/NAME
--wandb-mode offline|online|disabled  --wandb of that mode, or none
--test                                a short run on the CPU to see that everything works
"""

from __future__ import annotations

from collections.abc import Sequence

from ourospec.cli.options import flags_of, values_of
from ourospec.cli.suggest import did_you_mean, normal
from ourospec.errors import ConfigError

SPECIALIZATION, WANDB_MODE, TEST = "specialization", "wandb_mode", "test"
MODES = {"offline": "offline", "online": "online", "disabled": "off"}
TEST_STEPS, TEST_ROWS, TEST_TOKENS = 10, 2, 2_000
"""Of a run with --test, where nothing else is said: optimiser steps, rows of a batch, tokens of an evaluation."""


def spell_out(start: str, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """What is trained, and the options that the short ones stand for.

    Args:
        start: what stands first behind `ouro train`.

    Raises:
        ConfigError: they do not go together, or a word is none of those that there are.
    """
    given, flags = values_of(arguments), {normal(flag) for flag in flags_of(arguments)}
    rest = without(arguments, SPECIALIZATION, WANDB_MODE)
    if SPECIALIZATION in flags:
        start = specialized(start, given.get(SPECIALIZATION, ""))
    if WANDB_MODE in flags:
        if "wandb" in flags:
            raise ConfigError("--wandb and --wandb-mode mean the same.", "Leave one of them out.")
        mode = given.get(WANDB_MODE, "")
        if mode not in MODES:
            raise ConfigError(f"--wandb-mode has no mode {mode!r}.", f"One of: {', '.join(MODES)}")
        rest += ["--wandb", MODES[mode]]
    if TEST in flags:
        rest += trial_settings(given)
    return start, rest


def without(arguments: Sequence[str], *names: str) -> list[str]:
    """The arguments less some options and their values."""
    kept: list[str] = []
    dropping = False
    for argument in arguments:
        if argument.startswith("--"):
            flag, glued, _ = argument.partition("=")
            dropped = normal(flag) in names
            dropping = dropped and not glued
            if dropped:
                continue
        elif dropping:
            dropping = False
            continue
        kept.append(argument)
    return kept


def specialized(family: str, name: str) -> str:
    """The preset of that family.

    Raises:
        ConfigError: it is no family's name alone, or has no such preset.
    """
    from ourospec.cli.presets import all_presets

    presets = list(all_presets())
    families = dict.fromkeys(preset.split("/")[0] for preset in presets)
    if family not in families:
        raise ConfigError(
            f"--specialization goes with a family alone, not with {family}.",
            f"Name one of {', '.join(families)}, or leave --specialization out.",
        )
    own = [preset.split("/")[1] for preset in presets if preset.split("/")[0] == family]
    if name not in own:
        near = did_you_mean(name, own) if name else ""
        raise ConfigError(f"{family} has no specialization {name!r}.", f"{near}There are: {', '.join(own)}")
    return f"{family}/{name}"


def trial_settings(given: dict[str, str]) -> list[str]:
    """What --test sets, as far as it was not set by hand: a batch that was asked for stays what it is."""
    rows = given.get("train.batch_size", str(TEST_ROWS))
    settings = {
        "train.device": "cpu",
        "train.steps": str(TEST_STEPS),
        "train.batch_size": rows,
        "train.micro_batch_size": rows,
        "train.eval_tokens": str(TEST_TOKENS),
    }
    return [
        word
        for name, value in settings.items()
        if name not in given
        for word in (f"--{name.replace('_', '-')}", value)
    ]
