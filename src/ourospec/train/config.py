"""Settings of the trainer: how much, how often, and on what."""

from __future__ import annotations

import math
from typing import Annotated, Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ourospec.config import Config
from ourospec.contracts import Repeating
from ourospec.device import DeviceName, Precision
from ourospec.errors import ConfigError

WRITTEN_WHERE_ON = ("epochs", "patience", "min_improvement", "keep_best")


class TrainConfig(Config):
    """Steps, batches, and the schedule of evaluations, samples and checkpoints."""

    steps: Annotated[int, Field(ge=1)] = 1000
    """Optimiser steps of the whole run."""
    epochs: Annotated[float, Field(ge=0, le=1_000_000)] = 0.0
    """Times that the run goes through its training data, a fraction too; steps then follow from it. 0: steps say."""
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Rows per optimiser step, over all micro-batches."""
    micro_batch_size: Annotated[int, Field(ge=1)] = 16
    """Rows that go through the model at once; less needs less memory and gives the same gradient."""
    window: Annotated[int, Field(ge=2)] = 256
    """Positions per row, in tokens."""
    eval_every: Annotated[int, Field(ge=0)] = 100
    """Optimiser steps between two held-out evaluations. 0: only at the end; with epochs, after each."""
    eval_tokens: Annotated[int, Field(ge=1)] = 32768
    """Held-out tokens scored per evaluation, at most."""
    sample_every: Annotated[int, Field(ge=0)] = 200
    """Optimiser steps between two rounds of samples. 0: only at the end."""
    save_every: Annotated[int, Field(ge=1)] = 100
    """Optimiser steps between two checkpoints: the most that a crash can cost."""
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2
    """Checkpoints kept, the newest ones; at least two, so that a damaged one has a predecessor."""
    keep_best: bool = False
    """Also keep the weights with the least held-out loss."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps without a better held-out loss after which the run ends before its time. 0: never."""
    min_improvement: Annotated[float, Field(ge=0, le=1_000)] = 0.0
    """Nats by which a held-out loss has to be below the best so far to count as better, for patience."""
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

    @model_validator(mode="after")
    def _patience_hears(self) -> Self:
        if self.patience and not (self.eval_every or self.epochs):
            raise ValueError("patience waits for held-out losses: set eval_every, too")
        return self

    @model_serializer(mode="wrap")
    def _only_what_is_on(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is off and came later is not written, so that run directories of before stay theirs."""
        told = handler(self)
        return {name: value for name, value in told.items() if value or name not in WRITTEN_WHERE_ON}

    def settled(self, stream: object) -> Self:
        """The same in plain steps: with `epochs`, `steps` becomes what they take, and an `eval_every` of 0 one epoch.

        Raises:
            ConfigError: epochs of a stream that has none.
        """
        if not self.epochs:
            return self
        each = stream.steps_per_epoch if isinstance(stream, Repeating) else None
        if each is None:
            raise ConfigError(
                f"train.epochs is {self.epochs:g}, but this training data never comes to an end: puzzles are made as "
                "they are needed, and parts of a mixture end at different times.",
                "Say how long to train in steps: --train.steps N --train.epochs 0",
            )
        # Rounded before it is raised: 0.1 epochs of 30 steps are 3, of which floating point makes a little more.
        steps = max(1, math.ceil(round(self.epochs * each, 6)))
        return self.model_copy(update={"steps": steps, "eval_every": self.eval_every or max(1, round(each))})

    @property
    def unsettled(self) -> tuple[str, ...]:
        """What `settled` will find out, by its names in a recipe."""
        names = ("train.steps",) if self.epochs else ()
        return names if self.eval_every else (*names, "train.eval_every") if names else ()
