"""Which primes a predictor has heard: its linear response to past spacings, as a filter, at the primes' frequencies.

S(t), by which the zeros' number is off its smooth part, is −(1/π) Σ sin(k t ln p)/(k p^{k/2}) over prime powers p^k: a
sum of tones of constant frequency ln p^k in t. In spacings near height T that is ln p^k/ln(T/2π) cycles each. Let the
predicted mean change by r_k for each unit of the spacing k before the target, and

    H(ω) = Σ_k r_k exp(−2πi k ω/ln(T/2π)).

A tone of frequency ω is foretold as H(ω) times itself: H = 1 where it is heard to the full, and |1 − H| is the share
of its amplitude that is left in the errors.

Letters: N targets, k lags, F frequencies.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ourospec.data.spacings.targets import Targets
from ourospec.data.spacings.unfolding import heights_of, unfolded
from ourospec.measure.density import Density

LAGS = 128
"""How far back the response is looked at, at most."""
NUDGE = 0.02
"""By so many mean spacings a past spacing is changed, up and down."""
HEARD = 0.5
"""A tone counts as heard when less of its amplitude than this is left."""
FREQUENCIES = np.linspace(0.2, 6.2, 601)
"""ω of the picture: up to half a cycle per spacing at a million."""

Predict = Callable[[Targets], Density]
Tell = Callable[[str], None]


def response(predict: Predict, targets: Targets, lags: int, tell: Tell | None = None) -> np.ndarray:
    """∂(predicted mean)/∂(spacing k before the target), [N, lags], by central differences.

    The changed spacing moves all older zeros; the last one stays, so that a model that looks at heights sees a past of
    one piece.
    """
    size = targets.past.shape[1]
    found = np.empty((len(targets.target), lags))
    for lag in range(1, lags + 1):
        if tell is not None and lag % 16 == 1:
            tell(f"nudging the past: lag {lag} of {lags}")
        means = []
        for sign in (1.0, -1.0):
            past = targets.past.copy()
            past[:, size - lag] += sign * NUDGE
            end = unfolded(targets.past_heights[:, -1:])
            places = end - np.concatenate(
                [np.cumsum(past[:, ::-1], axis=1)[:, ::-1], np.zeros_like(end)], axis=1
            )
            means.append(predict(Targets(past, heights_of(places), targets.target, targets.block)).mean())
        found[:, lag - 1] = (means[0] - means[1]) / (2 * NUDGE)
    return found


def transfer(responses: np.ndarray, heights: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """H(ω) [F], complex, the mean over targets, each at its own height, where ω is so many cycles per spacing.

    Args:
        responses: [N, k].
        heights: [N] of the targets.
    """
    cycles = frequencies[None, :] / np.log(heights / (2 * np.pi))[:, None]
    lags = np.arange(1, responses.shape[1] + 1)
    total = np.zeros(len(frequencies), dtype=np.complex128)
    for row, cycle in zip(responses, cycles, strict=True):
        total += row @ np.exp(-2j * np.pi * lags[:, None] * cycle)
    return total / len(responses)


def prime_powers(highest: float) -> list[tuple[int, int, int]]:
    """(p^k, p, k) with ln p^k up to `highest`, rising."""
    limit = int(np.exp(highest))
    sieve = np.ones(limit + 1, dtype=bool)
    sieve[:2] = False
    for number in range(2, int(limit**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = False
    powers = [(p**k, p, k) for p in np.flatnonzero(sieve).tolist() for k in range(1, 20) if p**k <= limit]
    return sorted(powers)


def heard_primes(
    predict: Predict, targets: Targets, lags: int = LAGS, tell: Tell | None = None
) -> dict[str, Any]:
    """The filter that a predictor is, and what it leaves of each prime power's tone.

    Returns:
        `frequencies` [F] and `left` [F] = |1 − H|; `tones`: for each prime power under half a cycle per spacing its
        `number`, `prime`, `power`, `frequency` ln p^k, `amplitude` 1/(k p^{k/2}) as it stands in −πS(t), `left` and
        `heard`; `response` [lags], the mean one.
    """
    lags = min(lags, targets.past.shape[1])
    responses = response(predict, targets, lags, tell)
    heights = targets.past_heights[:, -1]
    nyquist = float(np.log(heights / (2 * np.pi)).min()) / 2
    powers = prime_powers(nyquist)
    logs = np.log([number for number, _, _ in powers])
    left = np.abs(1 - transfer(responses, heights, logs))
    shown = FREQUENCIES[nyquist >= FREQUENCIES]
    return {
        "frequencies": shown.tolist(),
        "left": np.abs(1 - transfer(responses, heights, shown)).tolist(),
        "response": responses.mean(0).tolist(),
        "tones": [
            {
                "number": number,
                "prime": prime,
                "power": power,
                "frequency": float(log),
                "amplitude": 1 / (power * number**0.5),
                "left": float(rest),
                "heard": bool(rest < HEARD),
            }
            for (number, prime, power), log, rest in zip(powers, logs, left, strict=True)
        ],
    }
