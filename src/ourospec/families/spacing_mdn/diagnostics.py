"""Diagnostics A to K of a model of spacings, in one table: what the document measured, mended where it misled.

Each number is a function of a fitted model and of its frozen targets. What stands in `DOCUMENT` is the threshold that
the document gave; where the number itself was mended, docs/diagnose.md says how.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ourospec.errors import DataError
from ourospec.families.spacing_mdn.findings import (
    DOCUMENT,
    Finding,
    Sample,
    Tell,
    Thresholds,
    not_there,
    rows,
    some,
    take_sample,
)
from ourospec.families.spacing_mdn.register_effects import register_effects
from ourospec.families.spacing_mdn.register_vectors import register_vectors
from ourospec.measure.density import score
from ourospec.measure.oracle import by_document
from ourospec.measure.spacings.response import heard_primes
from ourospec.measure.spacings.rollout import score_rollout, starts_of

if TYPE_CHECKING:
    from ourospec.families.spacing_mdn.fitted import FittedSpacings

STRETCHES = 4
"""Of the held-out targets, between which H looks for a difference."""
RESPONSE_TARGETS = 64
"""Targets over which the response to the past is averaged."""


def diagnose(
    fitted: FittedSpacings, most: int = 5_000, thresholds: Thresholds = DOCUMENT, tell: Tell | None = None
) -> dict[str, Any]:
    """All diagnostics of a run, in float32.

    Args:
        most: held-out targets, at most; errors shrink with their square root.

    Returns:
        JSON-ready: `findings`, a list of Finding as mappings; `details`, what pictures are drawn from; `targets`.

    Raises:
        DataError: the spacings are no longer those of the training.
    """
    fitted = replace(fitted, policy=replace(fitted.policy, autocast_dtype=None))
    sample = take_sample(fitted, most, thresholds, tell or (lambda _: None))
    found, details = [], {}
    for look in (_calibration, register_effects, register_vectors, _rollout, _blocks, _primes):
        findings, more = look(sample)
        found += findings
        details |= more
    return {
        "findings": [finding._asdict() for finding in sorted(found, key=_order)],
        "targets": len(sample.targets.target),
        "details": details,
    }


def _order(finding: Finding) -> tuple[bool, str]:
    return len(finding.letter) > 1, finding.letter


def _calibration(sample: Sample) -> tuple[list[Finding], dict[str, Any]]:
    density = sample.fitted.predict(sample.targets)
    return [], {"score": score(density, sample.targets.target, sample.targets.block)}


def _rollout(sample: Sample) -> tuple[list[Finding], dict[str, Any]]:
    """G: the model going on by itself, by its means as in the document, and by ensembles."""
    fitted, name = sample.fitted, "rollout drift"
    longest = max(len(series.spacings) for series in fitted.dataset.heldout)
    steps = min(200, (longest - fitted.context) // 2)
    try:
        starts = starts_of(fitted.dataset.heldout, fitted.context, max(steps, 1), 24)
    except DataError as error:
        return [not_there("G", name, error.args[0])], {}
    train = np.concatenate([series.spacings for series in fitted.dataset.train])
    found = score_rollout(fitted.predict, starts, train, tell=sample.tell)
    horizons, mae = np.array(found["horizons"]), np.array(found["mae"])
    if len(horizons) < 2:
        return [not_there("G", name, f"held-out stretches leave {steps} steps, too few for a slope")], {}
    slope = float(np.polyfit(np.log(horizons), np.log(mae), 1)[0])
    limit = sample.thresholds.drift
    errors = ", ".join(f"{error:.3f} at {horizon}" for horizon, error in zip(horizons, mae, strict=True))
    worse = np.array(found["worse_by"]) > 2 * np.array(found["worse_by_se"])
    scores = ", ".join(
        f"{crps:.3f} against {climate:.3f} at {horizon}"
        for crps, climate, horizon in zip(found["crps"], found["climate"], horizons, strict=True)
    )
    return [
        Finding(
            "G", name, slope, None, f"slope < {limit:g}", slope < limit,
            f"MAE of the mean rollout {errors}; a constant 1 has some 0.33 at any distance",
        ),
        Finding(
            "G ensemble", "ensemble CRPS over climate", float(np.max(found["worse_by"])),
            float(found["worse_by_se"][int(np.argmax(found["worse_by"]))]), "nowhere worse by 2 errors",
            not bool(worse.any()), f"CRPS of {found['members']} members against random training spacings: {scores}",
        ),
    ], {"rollout": found}  # fmt: skip


def _blocks(sample: Sample) -> tuple[list[Finding], dict[str, Any]]:
    """H: what is left of the differences between stretches of the held-out side once chance is taken off."""
    parts = np.array_split(np.arange(len(sample.losses)), STRETCHES)
    told = [by_document(sample.losses[part], sample.targets.block[part]) for part in parts]
    means, errors = (np.array(column) for column in zip(*told, strict=True))
    if not np.isfinite(errors).all():
        return [not_there("H", "held-out stretches", "too few stretches for an error")], {}
    beyond = float(np.sqrt(max(0.0, means.var(ddof=1) - float(np.mean(errors**2)))))
    limit = sample.thresholds.blocks
    each = ", ".join(f"{mean:.3f} ± {error:.3f}" for mean, error in told)
    evidence = (
        f"nats {each}; the document's std/mean {means.std() / abs(means.mean()):.2f} means little near 0"
    )
    finding = Finding("H", "stretches differ by", beyond, None, f"< {limit:g} nats", beyond < limit, evidence)
    return [finding], {"blocks": {"nats": means.tolist(), "nats_se": errors.tolist()}}


def _primes(sample: Sample) -> tuple[list[Finding], dict[str, Any]]:
    """Which primes the model has heard."""
    targets = rows(sample.targets, some(sample.targets, RESPONSE_TARGETS))
    found = heard_primes(sample.fitted.predict, targets, tell=sample.tell)
    tones = found["tones"]
    primes = [tone for tone in tones if tone["power"] == 1]
    heard = [str(tone["number"]) for tone in tones if tone["heard"]]
    quiet = next((tone["number"] for tone in primes if not tone["heard"]), None)
    evidence = f"prime powers heard: {', '.join(heard) or 'none'}"
    evidence += f"; the first prime that is not: {quiet}" if quiet else ""
    left = primes[0]["left"] if primes else float("nan")
    evidence += f". Of the tone of 2 {left:.0%} is left in the errors"
    value = float(sum(tone["heard"] for tone in primes))
    return [Finding("primes", f"heard of {len(primes)} primes", value, None, "", None, evidence)], {
        "primes": found
    }
