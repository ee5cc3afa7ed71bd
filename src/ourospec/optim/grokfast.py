"""Grokfast: a gradient with its slow part amplified."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from ourospec.optim.config import GrokfastConfig


class Grokfast:
    """μ ← αμ + (1 − α)g;  ĝ = g + λμ, for every gradient by itself (Lee et al. 2024, arXiv 2405.20233, section 3).

    μ begins as the first gradient. As a filter it passes what changes with angular frequency ω at the gain
    |1 + λ(1 − α)/(1 − αe^{−iω})|: 1 + λ for what stays, 1 + λ(1 − α)/(1 + α) for what changes sign at every step, and
    so never less than 1.
    """

    def __init__(self, config: GrokfastConfig) -> None:
        self.config = config
        self.means: dict[nn.Parameter, Tensor] = {}
        """μ of each parameter that has had a gradient."""

    @torch.no_grad()
    def amplify(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put ĝ in the place of g."""
        gradients, means = [], []
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if parameter not in self.means:
                self.means[parameter] = parameter.grad.clone()
            gradients.append(parameter.grad)
            means.append(self.means[parameter])
        if gradients:
            torch._foreach_lerp_(means, gradients, 1.0 - self.config.decay)
            torch._foreach_add_(gradients, means, alpha=self.config.strength)
