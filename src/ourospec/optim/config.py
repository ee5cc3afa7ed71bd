"""Settings of the optimiser and its schedule."""

from typing import Annotated

from pydantic import Field

from ourospec.config import Config


class OptimConfig(Config):
    """AdamW with a linear warm-up, a cosine descent, and optionally an average of the weights.

    Source: Loshchilov and Hutter 2019 (decoupled weight decay) and 2017 (cosine schedule).
    """

    lr: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Highest learning rate, reached at the end of the warm-up."""
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Learning rate of the last step, as a fraction of the highest."""
    warmup_fraction: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of all steps over which the learning rate rises linearly."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay per step of the mean gradient."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay per step of the mean squared gradient."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the mean squared gradient, in units of the gradient."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Share of a matrix's weight lost per step, per unit of learning rate."""
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """Largest Euclidean norm of the whole gradient; a longer one is scaled down to it. 0: never."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the average of the weights by which the model is judged and kept. 0: no average."""
