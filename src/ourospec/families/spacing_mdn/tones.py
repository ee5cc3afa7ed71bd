"""Our model: it follows the tones of the zeros through the past, and foretells from their phases.

Letters: B rows, T spacings of the past, R targets, J tones, W windows, F features, D width, K components.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.data.spacings import RESERVE, Series
from ourospec.errors import ConfigError
from ourospec.families.spacing_mdn.densities import Densities
from ourospec.families.spacing_mdn.registers import Ablation
from ourospec.families.spacing_mdn.spectrum import strongest_tones
from ourospec.nn.cost import ModelCost, matmul_flops
from ourospec.nn.init import initialise, mark_residual
from ourospec.nn.mixture import MixtureHead, MixtureTensors

TYPICAL_LOG_DENSITY = 11.0
"""ln(t/2π) in the middle of what is learnt from; taken off the height before it is read."""


class TonesConfig(Config):
    """The shape of the model that follows tones."""

    kind: Literal["tones"] = "tones"
    """Which model."""
    tones: Annotated[int, Field(ge=0)] = 100
    """J: the strongest frequencies of the training zeros, found before training and then fixed. 0: a plain network over
    the last spacings."""
    highest: Annotated[float, Field(gt=0)] = 6.2
    """No frequency above this, in radians per unit of height."""
    windows: tuple[Annotated[int, Field(ge=1, le=RESERVE)], ...] = (128, 512, 2_048)
    """Over how many of the last zeros each tone is heard; the longest is the context."""
    lags: Annotated[int, Field(ge=1)] = 16
    """Last spacings that are read as they are."""
    width: Annotated[int, Field(ge=8)] = 512
    """D."""
    layers: Annotated[int, Field(ge=1)] = 3
    """Layers before the head; all but the first add to their input."""
    components: Annotated[int, Field(ge=1)] = 8
    """K."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of what a layer adds that is left out in training."""

    @property
    def context(self) -> int:
        """Spacings of the past that a prediction is made from."""
        return max((*self.windows, self.lags))

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.windows) != sorted(set(self.windows)):
            raise ValueError(f"model.windows has to rise; it is {self.windows}")
        if bool(self.tones) != bool(self.windows):
            raise ValueError("model.tones are heard over model.windows: give both, or 0 tones and no window")
        return self


class TonesModel(nn.Module):
    """Features, standardised; a small network of residual layers; a mixture.

    A tone f is heard over the last w zeros as z = (1/w) Σ exp(i f (t_n − t_{n−k})), k < w: its phase and strength where
    the past ends, whatever the height. What the tones will do next is a linear map of z, so the first layer can turn
    the clock on; and since frequencies are constant in t and not in unfolded units, nothing of that changes with the
    height. Besides, the network reads the last spacings and ln(t/2π).
    """

    frequencies: Tensor
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(self, config: TonesConfig) -> None:
        super().__init__()
        self.config = config
        self.context = config.context
        features = 2 * config.tones * len(config.windows) + config.lags + 1
        # In float64, for phases; part of the weights, as is how features are standardised.
        self.register_buffer("frequencies", torch.zeros(config.tones, dtype=torch.float64))
        self.register_buffer("feature_mean", torch.zeros(features))
        self.register_buffer("feature_scale", torch.ones(features))
        self.first = nn.Linear(features, config.width)
        self.layers = nn.ModuleList(
            mark_residual(nn.Linear(config.width, config.width)) for _ in range(config.layers - 1)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = MixtureHead(config.width, config.components)
        initialise(self, residual_branches=config.layers)

    def targets_per_row(self, window: int) -> int:
        """In training: the spacings after each end of the window's past that has a whole context before it."""
        return window - self.context + 1

    @torch.no_grad()
    def prepare(self, train: Sequence[Series], windows: Sequence[Series]) -> None:
        """Find the tones in the training zeros, and the scale of the features in some windows of them.

        Where the zeros have fewer tones than asked for, the rest are silent: of frequency 0.
        """
        if self.config.tones:
            found = strongest_tones(train, self.config.tones, self.config.highest)
            self.frequencies[: len(found)] = torch.from_numpy(found)
        heights = torch.from_numpy(np.stack([window.heights[:-1] for window in windows]))
        past = torch.from_numpy(np.stack([window.spacings[:-1] for window in windows]).astype(np.float32))
        features = torch.cat(
            [self._features(past[i : i + 1], heights[i : i + 1]).flatten(0, 1) for i in range(len(past))]
        )
        self.feature_mean.copy_(features.mean(0))
        self.feature_scale.copy_(features.std(0).clamp(min=1e-3))

    def forward(
        self,
        past: Float[Tensor, "B T"],
        past_heights: Float[Tensor, "B U"],
        ablation: Ablation | None = None,
        each: bool = False,
    ) -> Densities:
        """Densities of what follows: after the whole past, or after each of its ends that has a whole context.

        Args:
            past: spacings, unfolded, the newest last; `context` at least.
            past_heights: U = T + 1 heights that bound them.
            each: whether all T − context + 1 densities are wanted, [B, T − context + 1, K].

        Raises:
            ConfigError: a past shorter than the context, or an ablation of registers, of which there are none.
        """
        if ablation is not None and ablation != Ablation():
            raise ConfigError("This model has no registers to take anything from.")
        if past.shape[1] < self.context:
            raise ConfigError(
                f"{past.shape[1]} spacings were given; the model looks back on {self.context}.",
                "Give it a longer past, or train with shorter model.windows.",
            )
        if not each:
            past, past_heights = past[:, -self.context :], past_heights[:, -self.context - 1 :]
        features = (self._features(past, past_heights) - self.feature_mean) / self.feature_scale
        x = self.dropout(F.gelu(self.first(features)))
        for layer in self.layers:
            x = x + self.dropout(F.gelu(layer(x)))
        found = self.head(x)
        return Densities(found.at((slice(None), -1)), found if each else None)

    def predict(
        self,
        past: Float[Tensor, "B T"],
        past_heights: Float[Tensor, "B U"],
        ablation: Ablation | None = None,
    ) -> MixtureTensors:
        """The density of the next spacing alone."""
        return self(past, past_heights, ablation).last

    def cost(self, context: float) -> ModelCost:
        """FLOPs per target: matrix products; hearing the tones costs some 20 more per tone and window."""
        del context
        return ModelCost(matmul_flops(self), (), ())

    def _features(self, past: Float[Tensor, "B T"], heights: Float[Tensor, "B U"]) -> Float[Tensor, "B R F"]:
        """At each of the last R = T − context + 1 ends of the past."""
        with torch.autocast(past.device.type, enabled=False):
            rows, length = past.shape
            ends = length - self.context + 1
            dtype = self.feature_mean.dtype
            recent = past.to(dtype).unfold(1, self.config.lags, 1)[:, -ends:] - 1.0
            density = torch.log(heights[:, -ends:, None] / (2 * math.pi)) - TYPICAL_LOG_DENSITY
            heard = [self._tones(heights, ends).reshape(rows, ends, -1)] if self.config.tones else []
            return torch.cat([*heard, recent, density.to(dtype)], dim=-1)

    def _tones(self, heights: Float[Tensor, "B U"], ends: int) -> Float[Tensor, "B R W J 2"]:
        """Real and imaginary part of each z."""
        since = (heights - heights[:, :1])[..., None] * (self.frequencies / (2 * math.pi)).to(heights.dtype)
        # Whole turns are taken off before the phases are rounded to float32.
        phase = (since - since.round()).to(self.feature_mean.dtype) * (2 * math.pi)
        cos, sin = phase.cos(), phase.sin()
        # Σ exp(−i f t) up to each zero; the last ones are turned back to where the past ends.
        sums = [F.pad(part.cumsum(1), (0, 0, 1, 0)) for part in (cos, -sin)]
        end_cos, end_sin = cos[:, -ends:], sin[:, -ends:]
        found = []
        for window in self.config.windows:
            stop, start = sums[0].shape[1], sums[0].shape[1] - window
            real, imaginary = (
                (part[:, stop - ends : stop] - part[:, start - ends : start]) / window for part in sums
            )
            found.append(
                torch.stack(
                    [real * end_cos - imaginary * end_sin, real * end_sin + imaginary * end_cos], dim=-1
                )
            )
        return torch.stack(found, dim=2)
