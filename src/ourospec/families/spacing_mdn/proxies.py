"""Eight statistics of a window that registers can be asked to know: the auxiliary task of E4.

Source: the document's Q3-proxies and its guide. Letters: N windows, T spacings, dx and d²x first and second
differences.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.errors import ConfigError
from ourospec.nn.init import mark_by_entry

NAMES = ("mean", "entropy", "roughness", "floor", "curvature", "halves", "high frequency", "rigidity")
PROXIES = len(NAMES)
BINS = 16
"""Of the histogram whose entropy is taken, over spacings 0 to 4."""
RIGID = 16
"""Spacings of the stretches whose variances are compared by the original's rigidity."""


class NoProxies(Config):
    """No auxiliary task."""

    kind: Literal["none"] = "none"
    """Which task."""


class ProxyTask(Config):
    """Read the statistics off the registers, by one linear map; mean squared error on z-scores."""

    kind: Literal["proxies"] = "proxies"
    """Which task."""
    definitions: Literal["guide", "original"] = "guide"
    """Whose formulas: the guide's, or those of the original code."""
    readout: Literal["mean", "diagonal"] = "mean"
    """All statistics from each register, averaged over them; or statistic i from register i."""
    weight: Annotated[float, Field(ge=0)] = 1e-2
    """Of the task in the loss, once it is reached."""
    first_weight: Annotated[float, Field(ge=0)] = 1e-3
    """Of the task at the end of the first ramp, which starts from 0."""
    ramp: tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = (500, 3_000)
    """Optimiser steps at which the two ramps end."""

    def weight_at(self, step: int) -> float:
        """Linear from 0 to `first_weight`, then to `weight`."""
        first, second = self.ramp
        if step < first:
            return self.first_weight * step / first
        share = min(1.0, (step - first) / max(1, second - first))
        return self.first_weight + (self.weight - self.first_weight) * share


ProxyConfig = Annotated[NoProxies | ProxyTask, Field(discriminator="kind")]


class ProxyReadout(nn.Module):
    """One linear map from a register's state to the standardised statistics, which it also standardises.

    In float32 under autocast, too.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = mark_by_entry(nn.Linear(width, PROXIES))
        # Of the training windows; part of the weights, so that a resumed run goes on with the same.
        self.register_buffer("mean", torch.zeros(PROXIES))
        self.register_buffer("scale", torch.ones(PROXIES))

    def calibrate(self, windows: Float[Tensor, "N T"], task: ProxyTask) -> None:
        """Take mean and standard deviation from some windows."""
        found = proxies(windows, task.definitions)
        self.mean.copy_(found.mean(0))
        self.scale.copy_(found.std(0).clamp(min=1e-6))

    def forward(self, slots: Float[Tensor, "B M D"], past: Float[Tensor, "B T"], task: ProxyTask) -> Tensor:
        """Mean squared error, summed over rows.

        Raises:
            ConfigError: the diagonal reading with another number of registers than statistics.
        """
        with torch.autocast(past.device.type, enabled=False):
            wanted = (proxies(past, task.definitions) - self.mean) / self.scale
            said = self.out(slots.to(self.out.weight.dtype))
        if task.readout == "mean":
            return (said.mean(1) - wanted).square().mean(1).sum()
        if slots.shape[1] != PROXIES:
            raise ConfigError(
                f"Reading statistic i from register i takes {PROXIES} registers; there are {slots.shape[1]}.",
                f'Set registers.count to {PROXIES}, or the readout of the task to "mean".',
            )
        return (said.diagonal(dim1=1, dim2=2) - wanted).square().mean(1).sum()


def proxies(
    x: Float[Tensor, "N T"], definitions: Literal["guide", "original"] = "guide"
) -> Float[Tensor, "N 8"]:
    """The statistics, in the order of NAMES, not yet standardised."""
    dx = x.diff(dim=1)
    bend = dx.diff(dim=1)
    left, right = x.chunk(2, dim=1)
    shared = {
        "mean": x.mean(1) - 1.0,
        "roughness": dx.abs().amax(1),
        "floor": x.quantile(0.01, dim=1),
        "curvature": bend.abs().mean(1),
    }
    if definitions == "original":
        own = {
            "entropy": 0.5 * torch.log(2 * math.pi * math.e * x.var(1).clamp(min=1e-12)),
            "halves": (left.mean(1) - right.mean(1)).abs(),
            "high frequency": bend.square().mean(1),
            "rigidity": _stretches(x).var(2).var(1),
        }
    else:
        own = {
            "entropy": _entropy(_histogram(x)),
            "halves": _divergence(_histogram(left), _histogram(right)),
            "high frequency": _high_frequency(dx),
            "rigidity": _rigidity(x),
        }
    found = {**shared, **own}
    return torch.stack([found[name] for name in NAMES], dim=1)


def _histogram(x: Tensor) -> Tensor:
    """[N, BINS] shares of the spacings in equal bins from 0 to 4; what lies outside counts in the last one."""
    bins = (x * (BINS / 4.0)).long().clamp(0, BINS - 1)
    counts = torch.zeros(len(x), BINS, dtype=x.dtype, device=x.device)
    return counts.scatter_add_(1, bins, torch.ones_like(x)) / x.shape[1]


def _entropy(shares: Tensor) -> Tensor:
    return -torch.special.xlogy(shares, shares).sum(1)


def _divergence(first: Tensor, second: Tensor) -> Tensor:
    """Jensen and Shannon's, in nats."""
    return _entropy((first + second) / 2) - (_entropy(first) + _entropy(second)) / 2


def _high_frequency(dx: Tensor) -> Tensor:
    """Share of the power of dx in the upper quarter of its frequencies."""
    power = torch.fft.rfft(dx - dx.mean(1, keepdim=True), dim=1).abs().square()
    return power[:, -(power.shape[1] // 4) :].sum(1) / power.sum(1).clamp(min=1e-12)


def _rigidity(x: Tensor) -> Tensor:
    """Mean square of the staircase of zeros about the straight line that fits it best (Dyson and Mehta's Δ₃)."""
    stairs = x.cumsum(1)
    line = torch.linspace(-1.0, 1.0, x.shape[1], dtype=x.dtype, device=x.device)
    centred = stairs - stairs.mean(1, keepdim=True)
    slope = (centred * line).sum(1, keepdim=True) / line.square().sum()
    return (centred - slope * line).square().mean(1)


def _stretches(x: Tensor) -> Tensor:
    """[N, n, RIGID]; a rest at the end is left out, and windows shorter than two stretches are halved."""
    size = min(RIGID, max(2, x.shape[1] // 2))
    return x[:, : x.shape[1] // size * size].unflatten(1, (-1, size))
