"""An exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """average <- d * average + (1 - d) * weights, after every optimiser step.

    It starts at the initial weights. Those would weigh d^t after t steps, too much in a short run, so the
    decay of step t (from 0) is d_t = min(d, (1 + t) / (10 + t)): at first the average covers about the last
    ninth of the steps so far. Buffers are not averaged. Parameters that are not floating-point or not trained
    are carried along unchanged.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = dict(model.named_parameters())
        self.tensors = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as optimiser step `step` (from 0) left them."""
        decay = min(self.decay, (1 + step) / (10 + step))
        moving = [name for name, p in self._parameters.items() if p.requires_grad and p.is_floating_point()]
        torch._foreach_lerp_(
            [self.tensors[name] for name in moving],
            [self._parameters[name].detach() for name in moving],
            1.0 - decay,
        )

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Inside, the model has the average as its weights; afterwards it has its own again."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        """Trade storage between parameters and average: nothing is copied, nothing is rounded."""
        for name, parameter in self._parameters.items():
            parameter.data, self.tensors[name] = self.tensors[name], parameter.data

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over a saved average.

        Raises:
            KeyError: a parameter is missing in it.
        """
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[name])
