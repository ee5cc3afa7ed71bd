"""The recipe of spacing_mdn: from zeros to a job for the trainer, and from a run to a model in use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from ourospec.contracts import Clock, Fitted, Observer, Probe
from ourospec.data.spacings import (
    SpacingData,
    SpacingDataset,
    SpacingStream,
    Targets,
    frozen_targets,
    open_spacings,
)
from ourospec.device import DeviceName, DevicePolicy, choose_device
from ourospec.families.spacing_mdn.fitted import FittedSpacings, densities, figures_of
from ourospec.families.spacing_mdn.objective import DensityObjective, SpacingObjective
from ourospec.families.spacing_mdn.tones import TonesConfig, TonesModel
from ourospec.families.spacing_mdn.transformer import SpacingTransformer, TransformerConfig
from ourospec.recipe import Recipe, Tell
from ourospec.runs import RunDirectory
from ourospec.train.loop import Job
from ourospec.train.rng import undisturbed
from ourospec.train.weights import Which, load_weights

PREPARED = 256
"""Training windows from which a model takes the scale of what it reads."""


class SpacingRecipe(Recipe):
    """Everything that decides a run of spacing_mdn.

    A row of a batch is a past of train.window spacings; train.eval_tokens is how many frozen targets an evaluation
    during training takes.
    """

    family: Literal["spacing_mdn"] = "spacing_mdn"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Name of the model family."""
    data: SpacingData = SpacingData()
    """The zeros, and what is held out."""
    model: Annotated[TransformerConfig | TonesConfig, Field(discriminator="kind")] = TransformerConfig()
    """The shape of the model."""
    objective: DensityObjective = DensityObjective()
    """What is minimised beside the likelihood."""
    patience: Annotated[int, Field(ge=0)] = 0
    """train.patience by its older name: either of them."""

    @model_validator(mode="after")
    def _one_patience(self) -> Self:
        if self.patience and self.train.patience not in (0, self.patience):
            raise ValueError(
                f"patience is {self.patience} and train.patience {self.train.patience}: they are one setting, set one"
            )
        return self

    @model_validator(mode="after")
    def _window_fits(self) -> Self:
        window, context = self.train.window, self.model.context
        if isinstance(self.model, TonesConfig) and window < context:
            raise ValueError(
                f"train.window is {window}, and the model looks back on {context} spacings: set it to {context} at "
                "least, and one more for each further target of a row"
            )
        if isinstance(self.model, TransformerConfig) and window > context:
            raise ValueError(
                f"train.window is {window}; model.context lets {context} spacings be read at once"
            )
        return self

    def build_model(self) -> SpacingTransformer | TonesModel:
        """A freshly initialised model; its buffers are set by `prepare`."""
        return (
            TonesModel(self.model) if isinstance(self.model, TonesConfig) else SpacingTransformer(self.model)
        )

    def build_objective(self) -> SpacingObjective:
        """What training minimises."""
        registers = self.model.registers if isinstance(self.model, TransformerConfig) else None
        return SpacingObjective(self.objective, registers, self.seed)

    @property
    def context(self) -> int:
        """Spacings that a prediction is made from."""
        return min(self.train.window, self.model.context)

    def open_stream(self, dataset: SpacingDataset, targets: int) -> SpacingStream:
        """The training windows in the order of this recipe; its fingerprint stands in every checkpoint."""
        settings = self.train
        return SpacingStream(
            dataset,
            past=settings.window,
            targets=targets,
            batch_size=settings.batch_size,
            micro_batch_size=settings.micro_batch_size,
            seed=self.seed,
        )

    def assemble(self, run: RunDirectory, observers: Sequence[Observer], tell: Tell = None) -> Job:
        policy = choose_device(self.train.device, self.train.precision)
        dataset = open_spacings(self.data, tell)
        with undisturbed():
            torch.manual_seed(self.seed)
            model = self.build_model()
        targets = model.targets_per_row(self.train.window)
        stream = self.open_stream(dataset, targets)
        train = self.train.settled(stream)
        patience = self.patience or train.patience
        model.prepare(dataset.train, stream.windows(PREPARED))
        heldout = frozen_targets(dataset.heldout, min(self.context, 256), self.train.eval_tokens)
        return Job(
            model=model,
            objective=self.build_objective(),
            stream=stream,
            probes=[Probe("eval", train.eval_every, _evaluation(heldout, self.context, policy))],
            observers=observers,
            run=run,
            recipe_json=self.model_copy(update={"train": train}).to_json(),
            train=train.model_copy(update={"patience": patience}),
            optim=self.optim,
            seed=self.seed,
            policy=policy,
            about={
                "data": dataset.summary,
                "unit": "spacing",
                "tokens_per_step": self.train.batch_size * targets,
            },
        )

    def open(self, run: RunDirectory, device: DeviceName = "auto", which: Which = "newest") -> Fitted:
        policy = choose_device(device, self.train.precision)
        weights, origin = load_weights(run, which)
        with torch.random.fork_rng(devices=[]):
            model = self.build_model()
        model.load_state_dict(weights)
        return FittedSpacings(model.to(policy.device).eval(), self, policy, run, origin)


def _evaluation(
    targets: Targets, context: int, policy: DevicePolicy
) -> Callable[[Any, Clock], Mapping[str, Any]]:
    """The `run` of an "eval" contracts.Probe: always the same held-out targets."""

    def run(model: Any, clock: Clock) -> Mapping[str, Any]:
        del clock
        return {"split": "heldout", **figures_of(densities(model, targets, context, policy), targets)}

    return run
