"""One optimiser step: gradients of all micro-batches, one look at the numbers, then the update.

Everything that is summed over micro-batches is summed in `accumulate`; a reduction over ranks belongs between
it and `look`, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ourospec.contracts import Batch, Clock, Mean, Objective
from ourospec.device import DevicePolicy
from ourospec.errors import DataError, DivergedError


@dataclass(frozen=True)
class Totals:
    """Sums over the micro-batches of one step, on the device. The gradients lie in the parameters."""

    loss_sum: Tensor
    """Nats."""
    num_targets: int
    metrics: Mapping[str, Mean]
    carry: Any


@dataclass(frozen=True)
class Reading:
    """The numbers of one step, on the host."""

    loss: float
    """Nats per target."""
    grad_norm: float
    """Euclidean norm of the whole gradient, before clipping."""
    num_targets: int
    metrics: dict[str, Any]
    """Numbers, and nested lists of them."""


def accumulate(
    model: nn.Module,
    objective: Objective,
    batches: Sequence[Batch],
    carry: Any,
    clock: Clock,
    policy: DevicePolicy,
) -> Totals:
    """Add up the gradient of the mean loss over all targets of all micro-batches.

    Each micro-batch's sum of losses is divided by the number of targets of the whole step, so the gradient is
    that of one large batch however unevenly the targets are spread, up to the rounding of the sums. An objective that
    carries rows on learns from them in place of the batch's; then the targets are those that it counts.

    Raises:
        DataError: there is no target in any micro-batch.
        ValueError: the objective counts other targets than the batch, and has no true attribute `carries_rows`.
    """
    num_targets = sum(batch.num_targets for batch in batches)
    counted = 0
    if num_targets == 0:
        raise DataError(
            f"The batch of step {clock.step} holds no target to learn from.",
            "Look at the data around it: every position is padding or masked.",
        )
    loss_sum: Tensor | None = None
    metrics: dict[str, Mean] = {}
    for batch in batches:
        with policy.autocast():
            step = objective(model, batch.to(policy.device), carry, clock)
        if step.num_targets != batch.num_targets and not getattr(objective, "carries_rows", False):
            raise ValueError(
                f"the objective counts {step.num_targets} targets, the batch {batch.num_targets}"
            )
        (step.loss_sum / num_targets).backward()
        carry, counted = step.carry, counted + step.num_targets
        detached = step.loss_sum.detach()
        loss_sum = detached if loss_sum is None else loss_sum + detached
        for name, mean in step.metrics.items():
            total, weight = mean.total.detach(), mean.weight
            if name in metrics:
                total, weight = total + metrics[name].total, weight + metrics[name].weight
            metrics[name] = Mean(total, weight)
    assert loss_sum is not None  # there are targets, so there are batches
    if counted != num_targets:
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        torch._foreach_mul_(gradients, num_targets / counted)
    return Totals(loss_sum, counted, metrics, carry)


def look(totals: Totals, gradients: Iterable[Tensor]) -> Reading:
    """Bring the step's numbers to the host, all in one transfer: the only time that the host waits."""
    norm = torch.nn.utils.get_total_norm(gradients)
    values = [totals.loss_sum / totals.num_targets, norm]
    values += [mean.total / mean.weight for mean in totals.metrics.values()]
    packed = torch.cat([value.reshape(-1).to(norm.device, torch.float32) for value in values])
    numbers = packed.tolist()
    metrics: dict[str, Any] = {}
    start = 2
    for name, value in zip(totals.metrics, values[2:], strict=True):
        metrics[name] = _shaped(numbers[start : start + value.numel()], value.shape)
        start += value.numel()
    return Reading(numbers[0], numbers[1], totals.num_targets, metrics)


def _shaped(numbers: list[float], shape: torch.Size) -> Any:
    """The numbers of a tensor as nested lists; those of a scalar as a number."""
    if not shape:
        return numbers[0]
    if len(shape) == 1:
        return numbers
    each = len(numbers) // shape[0]
    return [_shaped(numbers[i * each : (i + 1) * each], shape[1:]) for i in range(shape[0])]


def refuse_divergence(reading: Reading, clock: Clock, last_checkpoint: str) -> None:
    """Stop before a number that is none gets into the weights.

    Raises:
        DivergedError: the loss or the gradient's norm is not finite.
    """
    if math.isfinite(reading.loss) and math.isfinite(reading.grad_norm):
        return
    raise DivergedError(
        f"Step {clock.step + 1} of {clock.total} has loss {reading.loss} and gradient norm {reading.grad_norm}. "
        f"The weights were not touched. Last checkpoint: {last_checkpoint}.",
        "Start anew in another directory with a lower learning rate (--optim.lr, with Muon --optim.muon.lr, too), a "
        "longer warm-up (--optim.warmup-fraction) or --train.precision float32.",
    )


def clip(gradients: list[Tensor], norm: float, longest: float) -> float:
    """Scale the whole gradient down to the length `longest` (0: never) and return its length afterwards.

    The norm is on the host already, so a gradient that is short enough is not even read.
    """
    if longest == 0 or norm <= longest:
        return norm
    torch._foreach_mul_(gradients, longest / norm)
    return longest
