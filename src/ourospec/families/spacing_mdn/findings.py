"""What the diagnostics of a model of spacings share: thresholds, rows of the table, and what is looked at.

Letters: N targets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, NamedTuple

import numpy as np
from pydantic import Field

from ourospec.config import Config
from ourospec.data.spacings import Targets, frozen_targets

if TYPE_CHECKING:
    from ourospec.families.spacing_mdn.fitted import FittedSpacings

Tell = Callable[[str], None]


class Thresholds(Config):
    """What counts as passed: the document's figures, in nats where it had percent."""

    ablation: Annotated[float, Field(ge=0)] = 0.02
    """A: nats that the most useful register is worth, at least."""
    similarity: float = 0.5
    """B: mean cosine between two registers' vectors, less than."""
    gradient_correlation: float = 0.6
    """C: mean |correlation| of two registers' gradients, at most."""
    readout_entropy: float = 0.5
    """D: entropy of the readout as a share of its largest, more than."""
    effect_entropy: float = 1.5
    """E: entropy of the registers' effects for eight of them, more than; for M of them times ln M / ln 8."""
    drift: float = 0.5
    """G: slope of ln MAE on ln horizon, less than."""
    blocks: float = 0.1
    """H: nats by which stretches of the held-out side differ beyond chance, less than."""
    centre_spread: float = 10.0
    """I: standard deviation over registers of where they look, in spacings of 256, more than."""
    permutation: float = 0.02
    """J: nats lost by carrying another register's identity, less than."""
    rank: float = 0.5
    """K: share of the directions of the registers' gradients that holds 90% of their variance, more than."""
    content_share: float = 0.3
    """Content only: nats lost without identities, as a share of what all registers are worth, at most."""


DOCUMENT = Thresholds()


class Finding(NamedTuple):
    """A row of the table."""

    letter: str
    name: str
    value: float | None
    """None where the model has nothing to measure."""
    error: float | None
    """Standard error over stretches of targets, where there is one."""
    threshold: str
    """In words; empty where there is none."""
    passed: bool | None
    """None where there is no threshold, or nothing to measure."""
    evidence: str


class Sample(NamedTuple):
    """What a diagnosis looks at."""

    fitted: FittedSpacings
    targets: Targets
    """Their past is as long as the model looks back."""
    losses: np.ndarray
    """[N] nats, nothing being taken away."""
    means: np.ndarray
    """[N] predicted means."""
    thresholds: Thresholds
    tell: Tell


def take_sample(fitted: FittedSpacings, most: int, thresholds: Thresholds, tell: Tell) -> Sample:
    """The targets, and what the whole model makes of them."""
    tell("reading the zeros")
    whole = frozen_targets(fitted.dataset.heldout, min(fitted.context, 256), most)
    targets = whole._replace(
        **dict(zip(("past", "past_heights"), whole.looking_back(fitted.context), strict=True))
    )
    density = fitted.predict(targets)
    return Sample(fitted, targets, -density.log_prob(targets.target), density.mean(), thresholds, tell)


def some(targets: Targets, count: int) -> np.ndarray:
    """Indices of `count` targets at most, evenly spread."""
    size = len(targets.target)
    return np.unique(np.linspace(0, size - 1, min(count, size)).round().astype(np.int64))


def rows(targets: Targets, index: np.ndarray) -> Targets:
    """Some of the targets."""
    return Targets(*(part[index] for part in targets[:4]))


def not_there(letter: str, name: str, why: str) -> Finding:
    """A row of something that this model does not have."""
    return Finding(letter, name, None, None, "", None, why)
