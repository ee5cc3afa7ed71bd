"""A trained model of spacings in use: predictive densities, and figures on the frozen targets.

Letters: N targets, K components.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ourospec.data.spacings import SpacingDataset, Targets, frozen_targets, open_spacings
from ourospec.device import DevicePolicy
from ourospec.errors import DataError
from ourospec.families.spacing_mdn.registers import Ablation
from ourospec.measure.density import Mixture, score
from ourospec.measure.report.drawing import Figure
from ourospec.measure.spacings.comparison import gue_optimal
from ourospec.nn.mixture import MixtureTensors
from ourospec.runs import RunDirectory
from ourospec.telemetry.quantities import with_error
from ourospec.train.weights import WeightsOrigin

if TYPE_CHECKING:
    from ourospec.families.spacing_mdn.recipe import SpacingRecipe

READ_AT_ONCE = 1 << 16
"""Spacings of the past that go through a model at a time; changes speed and memory only."""


def densities(
    model: Any, targets: Targets, context: int, policy: DevicePolicy, ablation: Ablation | None = None
) -> Mixture:
    """What a model foretells of some targets, in its eval mode.

    Args:
        context: spacings that it looks back on; see Targets.looking_back.

    Raises:
        DataError: a target has a shorter past.
    """
    rows = max(1, READ_AT_ONCE // context)
    parts: list[MixtureTensors] = []
    with policy.inference(model):
        for start in range(0, len(targets.target), rows):
            past, heights = targets.looking_back(context, slice(start, start + rows))
            exact = torch.float32 if policy.device.type == "mps" else torch.float64
            found = model.predict(
                torch.as_tensor(past.astype(np.float32), device=policy.device),
                torch.as_tensor(heights, device=policy.device, dtype=exact),
                ablation,
            )
            parts.append(MixtureTensors(*(tensor.float().cpu() for tensor in found)))
    log_weights, means, scales = (torch.cat(column).double().numpy() for column in zip(*parts, strict=True))
    weights = np.exp(log_weights)
    return Mixture(weights / weights.sum(1, keepdims=True), means, scales)


def figures_of(found: Mixture, targets: Targets) -> dict[str, Any]:
    """measure.density.score, with nats per target as `loss`."""
    figures = score(found, targets.target, targets.block)
    return {"loss": figures.pop("nll"), "loss_se": figures.pop("nll_se"), **figures}


@dataclass(frozen=True)
class FittedSpacings:
    """A trained model with everything that belongs to it. A predictor, and a contracts.Fitted. Not thread-safe."""

    model: Any
    """The torch module, in eval mode: `model.predict(past, past_heights, ablation)`."""
    recipe: SpacingRecipe
    policy: DevicePolicy
    run: RunDirectory
    origin: WeightsOrigin
    """Which checkpoint the weights come from."""

    @property
    def name(self) -> str:
        """As it stands in tables: the run's own name."""
        return self.run.path.name

    @property
    def context(self) -> int:
        """Spacings that a prediction is made from."""
        return self.recipe.context

    @cached_property
    def dataset(self) -> SpacingDataset:
        """The spacings that it was trained on, and those held out.

        Raises:
            DataError: they are no longer those of the training.
        """
        dataset = open_spacings(self.recipe.data)
        stream = self.recipe.open_stream(dataset, self.model.targets_per_row(self.recipe.train.window))
        if stream.fingerprint != self.origin.data:
            raise DataError(
                f"The spacings ({self.recipe.data.source.describe()}) are no longer those of the training, so that "
                "what is held out now may have been trained on.",
                "Restore the table, or train anew in another directory.",
            )
        return dataset

    @cached_property
    def targets(self) -> Targets:
        """The frozen targets of its own split."""
        return frozen_targets(self.dataset.heldout)

    def predict(self, targets: Targets, ablation: Ablation | None = None) -> Mixture:
        """The densities of some targets.

        Raises:
            DataError: a target has a shorter past than the model looks back on.
            ConfigError: an ablation of registers that are not there.
        """
        return densities(self.model, targets, self.context, self.policy, ablation)

    def evaluate(self, *, tell: Callable[[str], None] | None = None) -> Mapping[str, Any]:
        """Figures on all frozen targets of its split, see measure.density.score; errors over stretches of targets.

        Raises:
            DataError: the spacings have changed since the training.
        """
        if tell is not None:
            tell("reading the zeros")
        targets = self.targets
        if tell is not None:
            tell(f"foretelling {len(targets.target):,} spacings")
        summary = self.dataset.summary
        return {
            "family": self.recipe.family,
            "step": self.origin.step,
            "source": summary["source"],
            "split": summary["split"],
            "context": self.context,
            **figures_of(self.predict(targets), targets),
        }

    def rows(self, figures: Mapping[str, Any]) -> list[tuple[str, str]]:
        """The figures of `evaluate` as names and values for a person."""

        def figure(name: str, digits: int) -> str:
            return with_error(figures[name], figures[f"{name}_se"], digits)

        coverage = ", ".join(f"{figure(f'coverage_{level}', 3)} of {level / 100:g}" for level in (50, 80, 95))
        return [
            ("spacings", f"{figures['source']}; held out: {figures['split']}"),
            (
                "targets",
                f"{figures['targets']:,} in {figures['blocks']} stretches, each from {figures['context']} "
                "spacings before it",
            ),
            ("loss", f"{figure('loss', 4)} nats per spacing"),
            ("CRPS", f"{figure('crps', 4)} mean spacings"),
            ("PIT", f"{figure('pit_ks', 4)} from uniform at most (Kolmogorov and Smirnov)"),
            ("coverage", coverage),
            ("sharpness", f"{figure('sharpness', 4)} mean spacings, the mean standard deviation"),
            ("below 0", f"{figures['below_zero']:.2g} of the mass"),
        ]

    def references(self) -> dict[str, float]:
        """What the best predictor of the sine process loses on the same targets: repulsion, and no primes."""
        return {"GUE-optimal": gue_optimal(self.targets).value}

    def diagnose(self, *, most: int, tell: Callable[[str], None] | None = None) -> Mapping[str, Any]:
        """Diagnostics A to K on at most `most` held-out targets; see diagnostics.diagnose."""
        from ourospec.families.spacing_mdn.diagnostics import diagnose

        return diagnose(self, most, tell=tell)

    def figures(self, found: Mapping[str, Any]) -> list[Figure]:
        """What `diagnose` found, as pictures."""
        from ourospec.families.spacing_mdn.diagnostic_figures import draw_diagnosis

        return draw_diagnosis(found)
