"""Settings of the trainer: how much, how often, and on what."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from ourospec.config import Config
from ourospec.device import DeviceName, Precision


class TrainConfig(Config):
    """Steps, batches, and the schedule of evaluations, samples and checkpoints."""

    steps: Annotated[int, Field(ge=1)] = 1000
    """Optimiser steps of the whole run."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Rows per optimiser step, over all micro-batches."""
    micro_batch_size: Annotated[int, Field(ge=1)] = 16
    """Rows that go through the model at once; less needs less memory and gives the same gradient."""
    window: Annotated[int, Field(ge=2)] = 256
    """Positions per row, in tokens."""
    eval_every: Annotated[int, Field(ge=0)] = 100
    """Optimiser steps between two held-out evaluations. 0: only at the end."""
    eval_tokens: Annotated[int, Field(ge=1)] = 32768
    """Held-out tokens scored per evaluation, at most."""
    sample_every: Annotated[int, Field(ge=0)] = 200
    """Optimiser steps between two rounds of samples. 0: only at the end."""
    save_every: Annotated[int, Field(ge=1)] = 100
    """Optimiser steps between two checkpoints: the most that a crash can cost."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    """Checkpoints kept, the newest ones; at least two, so that a damaged one has a predecessor."""
    device: DeviceName = "auto"
    """Where to compute; "auto" takes the best device present."""
    precision: Precision = "auto"
    """Arithmetic of the forward pass; "auto" takes bfloat16 where the hardware multiplies it faster."""

    @model_validator(mode="after")
    def _whole_micro_batches(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size ({self.micro_batch_size}) must divide batch_size ({self.batch_size})"
            )
        return self
