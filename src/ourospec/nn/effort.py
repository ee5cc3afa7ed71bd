"""What a call may ask of a loop, and what it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ourospec.contracts import Effort
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.nn.gate import READOUTS


def limits(effort: Effort, tokens: Sequence[int], most: int, *, gated: bool) -> tuple[int, bool]:
    """How many passes at most, and whether everyone runs them all.

    Args:
        tokens: B and T.
        most: passes that the loop can run.
        gated: whether it has something learned that decides.

    Raises:
        ConfigError: it cannot be done.
    """
    if effort.plan is not None and (
        list(effort.plan.shape) != list(tokens)
        or not 1 <= int(effort.plan.min()) <= int(effort.plan.max()) <= most
    ):
        raise ConfigError(
            f"A plan of passes {list(effort.plan.shape)} was given for tokens {list(tokens)}.",
            f"Give each token of each layer a number of passes from 1 to {most}.",
        )
    for asked in (effort.forced_passes, effort.max_passes):
        if asked is not None and not 1 <= asked <= most:
            raise ConfigError(
                f"{asked} passes were asked for; this model runs 1 to {most} in each layer.",
                f"Choose a number from 1 to {most}.",
            )
    if effort.readout is not None and effort.readout not in READOUTS:
        raise ConfigError(f"There is no readout {effort.readout!r}.", f"There are: {', '.join(READOUTS)}.")
    if effort.threshold is not None and not gated and effort.readout is None:
        raise ConfigError(
            "A threshold was asked for, but this model runs a fixed number of passes and has no gates.",
            "Leave the threshold out, or use a run whose model.depth.halting is token.",
        )
    if effort.threshold is not None and not 0 <= effort.threshold <= 1:
        raise ConfigError(
            f"A threshold of {effort.threshold} was asked for; survival lies between 0 and 1.",
            "Choose a threshold from 0 (never leave) to 1 (leave as soon as a gate doubts).",
        )
    if effort.forced_passes is not None:
        return effort.forced_passes, True
    decided = gated or effort.readout is not None or effort.plan is not None
    return min(most, effort.max_passes or most), not decided


def most_passes(model: Any, policy: DevicePolicy) -> int:
    """The most passes that a contracts.LanguageModel lets itself be forced to, in every layer: it refuses one more."""
    some = torch.zeros(1, 1, dtype=torch.long, device=policy.device)
    most = 0
    with policy.inference(model):
        while True:
            try:
                model(some, effort=Effort(forced_passes=most + 1))
            except ConfigError:
                return most
            most += 1
