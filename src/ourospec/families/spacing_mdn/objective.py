"""What training minimises: −ln p of the targets, less a little entropy of the mixture's weights, and more for E4."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from ourospec.config import Config
from ourospec.contracts import Clock, Mean, Stateless, Step
from ourospec.data.spacings import SpacingBatch
from ourospec.families.spacing_mdn.densities import Densities
from ourospec.families.spacing_mdn.proxies import ProxyTask
from ourospec.families.spacing_mdn.registers import (
    Ablation,
    NoRegisters,
    PostfixRegisters,
    RegisterConfig,
    order_of,
)
from ourospec.nn.mixture import MixtureTensors


class DensityObjective(Config):
    """Terms beside the likelihood."""

    entropy_weight: Annotated[float, Field(ge=0)] = 0.005
    """Nats of loss taken off per nat of entropy of the mixture's weights, so that no component dies early."""


class SpacingObjective(Stateless):
    """Σ over targets of −ln p(y) − c H(π); for registers that read, the loss at the spacings and the auxiliary task.

    It keeps no state. With `permute_per_batch` it says which identities registers carry, by (seed, step) alone.
    """

    def __init__(
        self, config: DensityObjective, registers: RegisterConfig | None = None, seed: int = 0
    ) -> None:
        self.config = config
        self.registers = registers or NoRegisters()
        self.seed = seed

    def __call__(self, model: Any, batch: SpacingBatch, carry: Any, clock: Clock) -> Step:
        many = batch.targets.shape[1] > 1
        place = self.registers
        dense = place.dense_weight if isinstance(place, PostfixRegisters) else 0.0
        changed = self._identities(clock.step)
        found: Densities = model(batch.past, batch.past_heights, changed, each=many or dense > 0)
        if many:
            assert found.each is not None
            mixture, targets = found.each, batch.targets
        else:
            mixture, targets = found.last, batch.targets[:, 0]
        nats = -mixture.log_prob(targets).sum()
        entropy = mixture.weight_entropy().sum()
        count = batch.num_targets
        metrics = {"nll": Mean(nats.detach(), count), "weight_entropy": Mean(entropy.detach(), count)}
        loss = nats - self.config.entropy_weight * entropy
        if dense and found.each is not None:
            at_spacings = dense_nats(found.each, batch)
            metrics["dense_nll"] = Mean(at_spacings.detach(), count)
            loss = loss + dense * at_spacings
        if (
            found.slots is not None
            and isinstance(place, PostfixRegisters)
            and isinstance(place.task, ProxyTask)
        ):
            error = model.proxies(found.slots, batch.past, place.task)
            metrics["proxy_error"] = Mean(error.detach(), count)
            loss = loss + place.task.weight_at(clock.step) * error
        return Step(loss, count, metrics, carry)

    def _identities(self, step: int) -> Ablation | None:
        place = self.registers
        if isinstance(place, NoRegisters) or place.ids != "permute_per_batch":
            return None
        return Ablation(id_order=order_of(place.count, self.seed, step))


def dense_nats(each: MixtureTensors, batch: SpacingBatch) -> Tensor:
    """Mean over positions of −ln p at the spacings themselves, summed over rows."""
    wanted = batch.past[:, 1:]
    return -each.at((slice(None), slice(None, -1))).log_prob(wanted).mean(1).sum()
