"""What a model of spacings says in one forward pass.

Letters: B rows, R positions, M registers, D width, K components.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ourospec.nn.mixture import MixtureTensors


class Densities(NamedTuple):
    """Of the spacings that follow a past."""

    last: MixtureTensors
    """[B, K] of the spacing after the past."""
    each: MixtureTensors | None
    """[B, R, K] of the spacings after each of the past's last R ends; None where they were not asked for."""
    slots: Tensor | None = None
    """[B, M, D] final states of registers that have read the spacings."""
