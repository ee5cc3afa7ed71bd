"""What the step events of a run look like once something goes wrong: each function changes the fields of one step.

A function takes the healthy fields, the policy steps since the gates are free (the illness sets in at once), all the
steps of the run, and a generator of noise; it changes the fields in place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Fields = dict[str, Any]
LAYERS, PASSES = 4, 4


def set_depth(fields: Fields, depth: float, *, spread: float = 0.25) -> None:
    """Make all that depends on the depth agree with it. A layer's share of the passes grows with its number."""
    target = fields["target_passes"]
    by_layer = [1 + (depth - 1) * (0.55 + 0.3 * layer) for layer in range(LAYERS)]
    by_layer = [min(float(PASSES), passes) for passes in by_layer]
    traces = [trace_of(passes) for passes in by_layer]
    survival = np.mean(traces, axis=0).tolist()
    entering = [*survival, 0.0]
    histogram = [entering[k] - entering[k + 1] for k in range(PASSES)]
    fields |= {
        "wanted_passes": depth,
        "mean_passes": depth + 0.02,
        "expected_passes": depth - 0.08 * (depth - 1),
        "exec_passes": min(float(PASSES), 1 + 2 * (depth - 1) + 0.5),
        "control_error": depth - target,
        "survival": survival,
        "depth_histogram": histogram,
        "passes_by_layer": by_layer,
        "layer_wanted": by_layer,
        "layer_s_trace": traces,
        "layer_histogram": [[t[k] - [*t, 0.0][k + 1] for k in range(PASSES)] for t in traces],
        "layer_p_std": [spread] * LAYERS,
        "layer_k": by_layer,
    }
    if fields.get("deadband") and abs(depth / target - 1) > 0.04:
        moved = fields["price"] + 1e-9 * fields["tokens"]  # outside the deadband a price never rests
        fields |= {"deadband": False, "deadband_steps": 0, "price_next": moved}


def trace_of(depth: float) -> list[float]:
    """Survival entering each pass, falling by a constant factor, that adds up to the depth."""
    low, high = 0.0, 1.0
    for _ in range(40):
        factor = (low + high) / 2
        low, high = (factor, high) if sum(factor**k for k in range(PASSES)) < depth else (low, factor)
    return [low**k for k in range(PASSES)]


def collapsed(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    set_depth(fields, 1 + 0.6 * math.exp(-policy / (0.03 * steps)))
    fields["near_floor"] = 1 - 0.4 * math.exp(-policy / (0.03 * steps))
    if "price" in fields:
        fields |= {"price": 0.04 * 0.999**policy, "price_next": 0.04 * 0.999 ** (policy + 1), "delta_ce": 0.0}


def closing(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    set_depth(fields, 1.12 + 0.01 * random.normal())
    fields["near_floor"] = 0.6


def exploded(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    set_depth(fields, 3.5 + 0.03 * random.normal())
    fields["near_floor"] = 0.0


def one_layer_flat(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    fields["layer_s_trace"] = [
        *fields["layer_s_trace"][:2],
        [1.0, 0.98, 0.97, 0.96],
        fields["layer_s_trace"][3],
    ]


def oscillating(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    swing = 0.3 * math.sin(2 * math.pi * policy / (0.12 * steps))
    set_depth(fields, fields["target_passes"] + swing + 0.01 * random.normal())


def missed(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    set_depth(fields, 1.15 * fields["target_passes"] + 0.01 * random.normal())


def pinned(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    set_depth(fields, 1.2 * fields["target_passes"] + 0.01 * random.normal())
    fields |= {"price": 0.1, "price_next": 0.1, "deadband": False, "deadband_steps": 0}


def useless(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    fields["delta_ce"] = -0.001 + 0.004 * random.normal()


def undiscriminating(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    fields["layer_p_std"] = [0.02, 0.01, 0.015, 0.02]
    fields["layer_histogram"] = [[0.01, 0.98, 0.01, 0.0]] * LAYERS


def apart(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    fields["expected_passes"] = fields["wanted_passes"] - 0.8


def unbalanced(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    fields["aux_per_call"] = 0.01 * (1 + 3 * min(1.0, policy / (0.1 * steps)))


def steep(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    fields["grad_norm"] = 1.5 * math.exp(6 * policy / steps) * (1 + 0.1 * random.normal())
    fields["grad_norm_clipped"] = min(1.0, fields["grad_norm"])


def rising(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    fields["lm_loss"] += 3.0 * policy / steps


def jumping(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    if 0.4 * steps < policy < 0.4 * steps + 12:
        fields["lm_loss"] += 2.0


def slow(fields: Fields, policy: int, steps: int, random: np.random.Generator) -> None:
    fields["tokens_per_second"] *= 0.35


ILLNESSES: dict[str, tuple[str, Callable[[Fields, int, int, np.random.Generator], None]]] = {
    "collapsed": ("collapse", collapsed),
    "closing": ("closing_gates", closing),
    "exploded": ("explosion", exploded),
    "one_layer_flat": ("always_continue", one_layer_flat),
    "oscillating": ("oscillation", oscillating),
    "missed": ("budget_missed", missed),
    "pinned": ("price_pinned", pinned),
    "useless": ("no_benefit", useless),
    "undiscriminating": ("no_discrimination", undiscriminating),
    "apart": ("hard_soft_gap", apart),
    "unbalanced": ("router_imbalance", unbalanced),
    "steep": ("exploding_gradient", steep),
    "rising": ("loss_not_falling", rising),
    "jumping": ("loss_spike", jumping),
    "slow": ("slow", slow),
}
"""By name: the rule that has to find it, and what it does to a step."""
