"""A predictor going on by itself: what it draws is its next past.

Letters: S starts, M members of an ensemble, H steps, C spacings of a past.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ourospec.data.spacings.dataset import Series
from ourospec.data.spacings.targets import Targets
from ourospec.data.spacings.unfolding import heights_of, unfolded
from ourospec.errors import DataError
from ourospec.measure.density import Density, Tabulated
from ourospec.measure.spacings.statistics import gue_statistics, statistics

HORIZONS = (1, 10, 50, 200)
"""Steps ahead at which a rollout is scored."""
LEAST = 1e-3
"""Spacing in the place of a draw at or below 0, which a mixture of Gaussians may give but no series can have."""

Predict = Callable[[Targets], Density]
Tell = Callable[[str], None]


class Starts(NamedTuple):
    """Where rollouts begin, and how it went on in truth."""

    heights: np.ndarray
    """[S, C + 1]."""
    future: np.ndarray
    """[S, H] spacings."""


def starts_of(heldout: Sequence[Series], context: int, steps: int, count: int) -> Starts:
    """At most `count` starts, evenly spread over the held-out series.

    Raises:
        DataError: no series is long enough.
    """
    places = [
        (number, at)
        for number, series in enumerate(heldout)
        for at in range(context, len(series.spacings) - steps + 1, max(1, steps // 2))
    ]
    if not places:
        raise DataError(
            f"No held-out stretch has {context} spacings and {steps} more to roll out over.",
            "Give more zeros, or larger blocks (--data.block).",
        )
    chosen = [
        places[i] for i in np.unique(np.linspace(0, len(places) - 1, min(count, len(places))).astype(int))
    ]
    return Starts(
        np.stack([heldout[number].heights[at - context : at + 1] for number, at in chosen]),
        np.stack([heldout[number].spacings[at : at + steps] for number, at in chosen]),
    )


def roll_out(
    predict: Predict,
    heights: np.ndarray,
    steps: int,
    generator: np.random.Generator | None,
    tell: Tell | None = None,
) -> np.ndarray:
    """Spacings [R, steps] that follow the pasts with these heights [R, C + 1].

    Each step is drawn from the density of the next spacing, or is its mean where there is no generator; the height
    goes on with it, so that models that look at heights see a past of one piece.
    """
    heights = heights.astype(np.float64)
    spacings = np.diff(unfolded(heights), axis=1)
    found = np.empty((len(heights), steps))
    rows = np.arange(len(heights))
    for step in range(steps):
        density = predict(Targets(spacings, heights, np.ones(len(rows)), rows))
        if isinstance(density, Tabulated) and len(density.pdf) < len(rows):
            density = density.repeated(len(rows))  # one law for all, drawn from apart
        drawn = density.mean() if generator is None else density.sample(generator)
        found[:, step] = np.maximum(drawn, LEAST)
        following = heights_of(unfolded(heights[:, -1]) + found[:, step])
        heights = np.concatenate([heights[:, 1:], following[:, None]], axis=1)
        spacings = np.concatenate([spacings[:, 1:], found[:, step : step + 1]], axis=1)
        if tell is not None and step % 20 == 0:
            tell(f"rolling out: step {step} of {steps}")
    return found


def ensemble_crps(members: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """E|X − y| − ½ E|X − X′| of ensembles [M, ...] and what came [...], the pairs being of different members (the fair
    score of Ferro 2014, which does not depend on M)."""
    count = len(members)
    ordered = np.sort(members, axis=0)
    ranks = 2 * np.arange(1, count + 1) - count - 1
    apart = 2 * np.tensordot(ranks, ordered, axes=1) / (count * (count - 1))
    return np.abs(members - truth).mean(0) - apart / 2


def score_rollout(
    predict: Predict,
    starts: Starts,
    train: np.ndarray,
    members: int = 16,
    seed: int = 0,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """An ensemble from each start, scored step by step and as a series of its own.

    Args:
        train: spacings of the training data, from which the ensemble that knows no past is drawn.

    Returns:
        `horizons`; at each: `crps` of the ensemble with `crps_se` over starts, `climate` the CRPS of as many training
        spacings drawn at random, `mae` of the rollout that feeds its means back (the document's error);
        `statistics` of what was drawn, of the `zeros` that came and of the `gue`.
    """
    count, steps = starts.future.shape
    generator = np.random.default_rng(seed)
    drawn = roll_out(predict, np.repeat(starts.heights, members, axis=0), steps, generator, tell)
    ensemble = drawn.reshape(count, members, steps).transpose(1, 0, 2)
    means = roll_out(predict, starts.heights, steps, None, tell)
    horizons = [horizon for horizon in HORIZONS if horizon <= steps]
    at = np.array(horizons) - 1
    crps = ensemble_crps(ensemble, starts.future)[:, at]
    ignorant = ensemble_crps(generator.choice(train, (400, 1, 1)), starts.future)[:, at]
    error = np.abs(means - starts.future)
    return {
        "starts": count,
        "members": members,
        "horizons": horizons,
        "crps": crps.mean(0).tolist(),
        "crps_se": _errors(crps),
        "climate": ignorant.mean(0).tolist(),
        "worse_by": (crps - ignorant).mean(0).tolist(),
        "worse_by_se": _errors(crps - ignorant),
        "mae": error[:, at].mean(0).tolist(),
        "statistics": statistics(drawn),
        "zeros": statistics(starts.future),
        "gue": gue_statistics(),
    }


def _errors(values: np.ndarray) -> list[float]:
    """Standard errors over starts [S, horizons]."""
    if len(values) < 2:
        return [float("nan")] * values.shape[1]
    return (values.std(0, ddof=1) / np.sqrt(len(values))).tolist()
