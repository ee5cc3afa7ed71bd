"""Mixtures of Gaussians as what a model says of a real number (mixture density networks, Bishop 1994).

Letters: D model width, K components.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ourospec.nn.init import mark_by_entry

LEAST_SCALE = 1e-4
"""Of a component, in units of the predicted number: no component can shrink onto a single target."""
LOG_ROOT_TWO_PI = 0.5 * math.log(2 * math.pi)


class MixtureTensors(NamedTuple):
    """p(y) = Σ_k π_k N(y; μ_k, σ_k²), one for each row; all float32 at least."""

    log_weights: Tensor
    """[..., K] ln π_k; Σ π_k = 1."""
    means: Tensor
    """[..., K]."""
    scales: Tensor
    """[..., K] standard deviations."""

    def log_prob(self, y: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
        """ln p(y), in nats."""
        standard = (y.unsqueeze(-1) - self.means) / self.scales
        each = self.log_weights - 0.5 * standard.square() - self.scales.log() - LOG_ROOT_TWO_PI
        return torch.logsumexp(each, dim=-1)

    def mean(self) -> Float[Tensor, "*rows"]:
        """Σ π_k μ_k."""
        return (self.log_weights.exp() * self.means).sum(-1)

    def weight_entropy(self) -> Float[Tensor, "*rows"]:
        """−Σ π_k ln π_k, in nats."""
        return -(self.log_weights.exp() * self.log_weights).sum(-1)

    def at(self, index: Any) -> MixtureTensors:
        """Some of the rows."""
        return MixtureTensors(*(tensor[index] for tensor in self))


class MixtureHead(nn.Module):
    """One linear map to weights (softmax), means (softplus: what is predicted is positive) and scales (softplus).

    Computed in float32 under autocast, too: a density's logarithm loses its digits first.
    """

    def __init__(self, width: int, components: int) -> None:
        super().__init__()
        self.components = components
        self.out = mark_by_entry(nn.Linear(width, 3 * components))

    def init_parameters(self) -> None:
        """Small weights, means spread from 0.3 to 1.8 and scales of 0.3: about what a spacing may be."""
        nn.init.normal_(self.out.weight, std=0.02)
        means = torch.linspace(0.3, 1.8, self.components)
        scales = torch.full((self.components,), 0.3)
        self.out.bias.copy_(torch.cat([torch.zeros(self.components), _inverse(means), _inverse(scales)]))

    def forward(self, x: Float[Tensor, "*rows D"]) -> MixtureTensors:
        with torch.autocast(x.device.type, enabled=False):
            raw = self.out(x.to(self.out.weight.dtype))
            logits, means, scales = raw.chunk(3, dim=-1)
            return MixtureTensors(logits.log_softmax(-1), F.softplus(means), F.softplus(scales) + LEAST_SCALE)


def _inverse(y: Tensor) -> Tensor:
    """x with softplus(x) = y."""
    return y + torch.log(-torch.expm1(-y))
