"""Slow twin of adaptive_lm's books: every number about depth in a step event, token by token in plain Python.

Written from the descriptions in telemetry/events.py. A part is one micro-batch as it was recorded: for each layer the
nested lists passes [B][T], wanted [B][T], survival [pass][B][T], gates [gate][B][T], relative [pass][B][T] and
entropy [rows][T] or None.
"""

from __future__ import annotations

import math
from typing import Any

NEAR_FLOOR = 0.05


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def spread(values) -> float:
    values = list(values)
    middle = mean(values)
    return mean((value - middle) ** 2 for value in values) ** 0.5


class Token:
    """One token in one layer: what it ran, what its gates said and what its updates were."""

    def __init__(self, layer: dict[str, Any], row: int, place: int) -> None:
        self.passes: int = layer["passes"][row][place]
        self.wanted: int = layer["wanted"][row][place]
        self.survival = [entered[row][place] for entered in layer["survival"]]
        # After the passes that it ran, as far as a gate was asked there.
        self.gates = [asked[row][place] for asked in layer["gates"]][: self.passes]
        self.relative = [size[row][place] for size in layer["relative"]][: self.passes]


def tokens_of(layer: dict[str, Any]) -> list[Token]:
    rows = layer["passes"]
    return [Token(layer, b, t) for b in range(len(rows)) for t in range(len(rows[b]))]


def books(parts: list[list[dict[str, Any]]], most: int, weight: str) -> dict[str, Any]:
    """The fields that follow from what ran.

    Args:
        parts: [micro-batch][layer].
        most: K, passes at most.
    """
    layers = range(len(parts[0]))
    by_layer = [[token for part in parts for token in tokens_of(part[index])] for index in layers]
    every = [token for tokens in by_layer for token in tokens]
    found = {
        "mean_passes": mean(token.passes for token in every),
        "wanted_passes": mean(token.wanted for token in every),
        "expected_passes": mean(sum(token.survival) for token in every),
        "passes_by_layer": [mean(token.passes for token in tokens) for tokens in by_layer],
        "depth_histogram": [mean(token.passes == k for token in every) for k in range(1, most + 1)],
        "survival": [mean(_entered(token, k) for token in every) for k in range(most)],
    }
    of_layers = [_of_layer(tokens, most, weight) for tokens in by_layer]
    for name in of_layers[0]:
        found[f"layer_{name}"] = [each[name] for each in of_layers]
    found["exec_passes"] = mean(found["layer_k_exec"])
    found["gap"] = found["exec_passes"] - found["expected_passes"]
    if parts[0][0]["entropy"] is not None:
        found["layer_ent"] = [
            mean(value for part in parts for row in part[index]["entropy"] for value in row)
            for index in layers
        ]
    if by_layer[0][0].gates:
        found["gate"] = mean(token.gates[0] for token in every)
        said = [p for token in every for p in token.gates]
        found["near_floor"] = mean(p <= NEAR_FLOOR for p in said)
    return found


def _entered(token: Token, index: int) -> float:
    return token.survival[index] if index < len(token.survival) else 0.0


def _of_layer(tokens: list[Token], most: int, weight: str) -> dict[str, Any]:
    passes = sorted(token.passes for token in tokens)
    average = mean(passes)
    soft = mean(sum(token.survival) for token in tokens)
    found: dict[str, Any] = {
        "k": soft,
        "k_exec": passes[-1],
        "avg_exec_token": average,
        "wanted": mean(token.wanted for token in tokens),
        # The least number of passes with which at least 95% of the tokens were done.
        "p95_exec_token": passes[math.ceil(0.95 * len(passes)) - 1],
        "wasted_compute": passes[-1] / average - 1,
        "ponder_signal": max(soft - 1, 0.0) / max(most - 1, 1),
        "histogram": [mean(token.passes == k for token in tokens) for k in range(1, most + 1)],
        "s_trace": [mean(_entered(token, k) for token in tokens) for k in range(most)],
    }
    for k in (2, 3, 4):
        found[f"frac_ge{k}"] = mean(token.passes >= k for token in tokens)
    updates = [(size, _weight(token, k, weight)) for token in tokens for k, size in enumerate(token.relative)]
    found["d_rel"] = mean(size for size, _ in updates)
    found["h_diff"] = mean(size * by for size, by in updates)
    said = [p for token in tokens for p in token.gates]
    if said:
        found["s_final"] = mean(math.prod(token.gates) for token in tokens)
        found["p_mean"] = mean(token.gates[0] for token in tokens)
        found["p_std"] = spread(said)
        found["p_near_clamp"] = mean(p <= NEAR_FLOOR for p in said)
        steps = [token.gates[1] - token.gates[0] for token in tokens if len(token.gates) > 1]
        found["p_diff"] = mean(steps) if steps else 0.0
    return found


def _weight(token: Token, index: int, weight: str) -> float:
    return 1.0 if index == 0 or weight == "full" else _entered(token, index)


def layer_bills(found: dict[str, Any], price: float, kind: str, most: int) -> list[float]:
    """What each layer adds to the bill: gains are billed by the sum over layers, the rest by their mean."""
    more = [average - 1 for average in found["layer_avg_exec_token"]]
    if kind == "legacy":
        pairs = zip(found["layer_ponder_signal"], found["layer_k_exec"], strict=True)
        more = [0.85 * soft + 0.15 * (deepest - 1) / (most - 1) for soft, deepest in pairs]
    elif kind != "gain":
        more = [passes / len(more) for passes in more]
    return [price * passes for passes in more]


def bid_spread(parts: list[list[dict[str, Any]]]) -> float:
    """Standard deviation of the first gates' logits over tokens and layers."""
    firsts = [token.gates[0] for part in parts for layer in part for token in tokens_of(layer)]
    return spread(math.log(p / (1 - p)) for p in firsts)
