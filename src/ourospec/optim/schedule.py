"""The learning rate as a pure function of the step: there is no state to save, and none to get wrong."""

from __future__ import annotations

import math
from typing import Literal

from ourospec.optim.config import OptimConfig


def learning_rate(step: int, config: OptimConfig, total: int, peak: float | None = None) -> float:
    """The learning rate of optimiser step `step`, counted from 0, of `total`.

    With w = round(warmup_fraction * total) steps of warm-up, m = final_lr_fraction, and lr the highest rate, which is
    `peak` where it is given and config.lr otherwise:

        lr * (step + 1) / w                                      while step < w
        lr * (m + (1 - m) * (1 + cos(pi * p)) / 2)               after that,

    where p runs from 0 at the first step after the warm-up to 1 at the last step. No step is wasted at a
    learning rate of 0 at the start. Steps past the end keep the last value.
    """
    highest = config.lr if peak is None else peak
    warmup = _warmup_steps(config, total)
    if step < warmup:
        return highest * (step + 1) / warmup
    progress = min((step - warmup) / max(total - 1 - warmup, 1), 1.0)
    cosine = 0.5 * (1.0 + math.cos(math.pi * progress))
    floor = config.final_lr_fraction
    return highest * (floor + (1.0 - floor) * cosine)


def phase(step: int, config: OptimConfig, total: int) -> Literal["warmup", "cosine", "done"]:
    """By which rule `learning_rate` finds the rate of step `step`: rising, falling, or past the end."""
    if step >= total:
        return "done"
    return "warmup" if step < _warmup_steps(config, total) else "cosine"


def _warmup_steps(config: OptimConfig, total: int) -> int:
    return round(config.warmup_fraction * total)
