"""What adaptive_lm is trained for: the next token, and not to think longer than that is worth."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from ourospec.config import Config
from ourospec.contracts import Clock, Effort, Mean, Output
from ourospec.nn.depth import LayerTrace
from ourospec.nn.next_token import NextToken


class PlainDepth(Config):
    """The plain recipe: passes are forced at first, then the gates are free under a constant price."""

    forced_passes: Annotated[int, Field(ge=0)] = 2
    """Passes that every token runs during the warm-up; 0 for no warm-up."""
    forced_fraction: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the run that the warm-up takes; 1 trains a model of fixed depth."""
    price: Annotated[float, Field(ge=0)] = 0.01
    """Nats per target that one more executed pass in every layer costs, once the gates are free."""


class AdaptiveObjective(NextToken):
    """Next-token loss + price · mean executed passes, billed per token and layer.

    The bill is the executed depth; its gradient is the soft depth's (LayerTrace.priced_passes).
    """

    def __init__(self, config: PlainDepth, max_passes: int) -> None:
        self.config, self.max_passes = config, max_passes

    def forced(self, clock: Clock) -> bool:
        """Whether this step still belongs to the warm-up."""
        warming = self.config.forced_fraction == 1 or clock.fraction < self.config.forced_fraction
        return bool(self.config.forced_passes) and warming

    def effort(self, clock: Clock) -> Effort | None:
        if not self.forced(clock):
            return None
        return Effort(forced_passes=min(self.config.forced_passes, self.max_passes))

    def extra(self, output: Output, clock: Clock) -> tuple[Tensor | None, dict[str, Mean]]:
        traces: tuple[LayerTrace, ...] = output.trace
        cost = None
        if not self.forced(clock):
            cost = self.config.price * torch.stack([t.priced_passes.mean() for t in traces]).mean()
        return cost, depth_metrics(output.passes, traces, self.max_passes)


@torch.no_grad()
def depth_metrics(passes: Tensor, traces: tuple[LayerTrace, ...], max_passes: int) -> dict[str, Mean]:
    """Where the passes went. passes [L, B, T]; vectors are [max_passes] or [L]."""
    ran = torch.stack([(passes == k).float().mean() for k in range(1, max_passes + 1)])
    survival = torch.stack([_mean_survival(trace, max_passes) for trace in traces]).mean(0)
    metrics = {
        "mean_passes": passes.float().mean(),
        "passes_by_layer": passes.float().mean((1, 2)),
        "depth_histogram": ran,
        "survival": survival,
    }
    if traces[0].gates:
        metrics["gate"] = torch.stack([trace.gates[0].mean() for trace in traces]).mean()
    tokens = passes[0].numel()
    return {name: Mean(value * tokens, tokens) for name, value in metrics.items()}


def _mean_survival(trace: LayerTrace, max_passes: int) -> Tensor:
    means = torch.stack([s.mean() for s in trace.survival])
    return torch.nn.functional.pad(means, (0, max_passes - len(trace.survival)))
