"""Spacings of zeta zeros, and of what is compared with them: unfolding, splits, streams and frozen targets."""

from ourospec.data.spacings.config import (
    GueSource,
    PhaseRandomisedSource,
    ShuffledSource,
    SpacingData,
    SpacingSource,
    TableSource,
    WignerSource,
    ZerosSource,
)
from ourospec.data.spacings.dataset import Series, SpacingDataset, open_spacings
from ourospec.data.spacings.stream import SpacingBatch, SpacingStream
from ourospec.data.spacings.targets import CONTEXT, RESERVE, Targets, frozen_targets
from ourospec.data.spacings.unfolding import heights_of, unfold, unfolded

__all__ = [
    "CONTEXT",
    "RESERVE",
    "GueSource",
    "PhaseRandomisedSource",
    "Series",
    "ShuffledSource",
    "SpacingBatch",
    "SpacingData",
    "SpacingDataset",
    "SpacingSource",
    "SpacingStream",
    "TableSource",
    "Targets",
    "WignerSource",
    "ZerosSource",
    "frozen_targets",
    "heights_of",
    "open_spacings",
    "unfold",
    "unfolded",
]
