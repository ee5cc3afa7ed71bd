"""What the same passes would have bought, had they been given to the tokens that they help most.

Everything here is read off one table: the loss of each token with every layer running k passes, k = 1..K, for all
tokens alike. Letters: K depths, n tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ourospec.measure.likelihood import Ratio, ratio

EPSILON = 0.01
"""Nats within which a cheaper depth counts as good as the best."""


def regret(
    table: np.ndarray, passes: np.ndarray, documents: np.ndarray, epsilon: float = EPSILON
) -> dict[str, Any]:
    """The policy's choice of tokens against the best one and against chance, at the same mean passes.

    A token's depth is the mean of its passes over layers; between whole depths the table is read linearly. The oracle
    knows every loss beforehand, chance and all: no gate can reach it. It bounds what a choice of tokens could be
    worth, and takes no pass that makes a loss worse.

    Args:
        table: [K, n] nats, every layer running 1..K passes.
        passes: [n] mean over layers, as the policy had it.
        documents: [n], whose token is whose.

    Returns:
        Losses in nats per token: `uniform` depths [K], `policy`, `oracle` and `random` at the policy's mean passes
        (the oracle's own may be fewer), all read off the table; `regret` = policy − oracle and `earned` = random −
        policy, each with its standard error over documents; `share_earned` = earned / (random − oracle); and
        `cheapest`, every token at its cheapest depth within `epsilon` of its best.
    """
    count = table.shape[1]
    shares = interpolation(passes, len(table))
    policy = (shares * table).sum(0)
    best, spent = equal_cost(table, float(passes.sum()))
    random = (shares.mean(1)[:, None] * table).sum(0)
    close = np.argmax(table <= table.min(0) + epsilon, axis=0)
    possible = float((random - best).sum())
    return {
        "uniform": table.mean(1).tolist(),
        "mean_passes": float(passes.mean()),
        "policy": float(policy.mean()),
        "oracle": float(best.mean()),
        "oracle_passes": spent / count,
        "random": float(random.mean()),
        **with_error("regret", by_document(policy - best, documents)),
        **with_error("earned", by_document(random - policy, documents)),
        "share_earned": float((random - policy).sum()) / possible if possible else float("nan"),
        "cheapest": {
            "epsilon": epsilon,
            "mean_passes": float(close.mean()) + 1,
            "loss": float(table[close, np.arange(count)].mean()),
            "histogram": (np.bincount(close, minlength=len(table)) / count).tolist(),
        },
    }


def interpolation(passes: np.ndarray, depths: int) -> np.ndarray:
    """[K, n] weights that read a table of depths 1..K at `passes` [n], linearly; each column adds up to 1."""
    below = np.clip(np.floor(passes).astype(int), 1, max(depths - 1, 1))
    over = np.clip(passes - below, 0, 1) if depths > 1 else np.zeros_like(passes, dtype=float)
    weights = np.zeros((depths, len(passes)))
    tokens = np.arange(len(passes))
    weights[below - 1, tokens] = 1 - over
    if depths > 1:
        weights[below, tokens] += over
    return weights


def equal_cost(table: np.ndarray, passes: float) -> tuple[np.ndarray, float]:
    """The least total loss with at most `passes` passes over all tokens: losses by token [n], and passes used.

    Each token's losses are replaced by their lower convex hull over depth; its segments, steepest first over all
    tokens, are bought until the passes are spent, the last one in part. That is the optimum of the linear relaxation,
    which differs from the best whole choice by less than one token.
    """
    losses = table[0].copy()
    gains, lengths, owners = _hull_segments(table)
    order = np.argsort(-gains / lengths, kind="stable")
    left = passes - table.shape[1]
    spent = np.cumsum(lengths[order])
    parts = np.clip((left - (spent - lengths[order])) / lengths[order], 0, 1)
    np.subtract.at(losses, owners[order], parts * gains[order])
    return losses, table.shape[1] + float((parts * lengths[order]).sum())


def _hull_segments(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Falling segments of each column's lower hull: fall in nats, length in passes, and the column.

    A column's segments come out steepest first, so that buying them in the order of steepness never skips one.
    """
    depths, count = table.shape
    at = np.zeros(count, dtype=int)
    tokens = np.arange(count)
    gains, lengths, owners = [], [], []
    steps = np.arange(depths)[:, None]
    for _ in range(depths - 1):
        ahead = steps - at
        with np.errstate(divide="ignore", invalid="ignore"):
            steepness = np.where(ahead > 0, (table[at, tokens] - table) / ahead, -np.inf)
        # The last of equally steep ones: a straight stretch is one segment.
        following = depths - 1 - np.argmax(steepness[::-1], axis=0)
        falls = steepness[following, tokens] > 0
        gains.append((table[at, tokens] - table[following, tokens])[falls])
        lengths.append((following - at)[falls].astype(float))
        owners.append(tokens[falls])
        at = np.where(falls, following, depths - 1)
    empty = [np.zeros(0)]
    return (
        np.concatenate(gains or empty),
        np.concatenate(lengths or empty),
        np.concatenate(owners or [tokens[:0]]),
    )


def by_document(values: np.ndarray, documents: np.ndarray) -> Ratio:
    """The mean of values [n] of tokens, and its standard error over documents."""
    _, number = np.unique(documents, return_inverse=True)
    return ratio(np.bincount(number, weights=values), np.bincount(number))


def with_error(name: str, value: Ratio) -> dict[str, float]:
    """A figure and its standard error under `<name>_se`."""
    return {name: value.value, f"{name}_se": value.error}
