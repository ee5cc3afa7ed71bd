"""Weights in 8 bits: the one quantiser of the house.

Letters: R rows of a matrix (its outputs), N columns (its inputs).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from ourospec.errors import ConfigError

GREATEST_CODE = 127
"""Codes reach from −127 to 127: symmetric, so that −w has the code −c and zero is kept exactly."""


class QuantisedRows(NamedTuple):
    """W ≈ scales[:, None] · codes; no weight is off by more than half its row's scale."""

    codes: Int8[Tensor, "*stack R N"]
    scales: Float[Tensor, "*stack R"]


def quantise_rows(weight: Float[Tensor, "*stack R N"]) -> QuantisedRows:
    """Symmetric rounding to 8 bits, with one float32 scale for each row: its largest magnitude / 127.

    Raises:
        ConfigError: a weight is not finite.
    """
    wide = weight.detach().float()
    largest = wide.abs().amax(-1)
    if not bool(torch.isfinite(largest).all()):
        raise ConfigError(
            "Weights that are not finite numbers cannot be kept in 8 bits.",
            "This model has diverged: take an earlier checkpoint.",
        )
    scales = largest / GREATEST_CODE
    # A row of zeros has the scale 0; it is divided by 1 to keep its codes at 0.
    codes = (wide / torch.where(scales > 0, scales, 1.0)[..., None]).round_()
    return QuantisedRows(codes.clamp_(-GREATEST_CODE, GREATEST_CODE).to(torch.int8), scales)


def dequantise_rows(rows: QuantisedRows) -> Float[Tensor, "*stack R N"]:
    """The float32 weights that the codes stand for."""
    return rows.codes.float() * rows.scales[..., None]
