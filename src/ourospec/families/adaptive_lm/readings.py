"""The books: where the passes of a step went, as sums on the device, and what can be read off them on the host.

Letters: B rows, T positions, L layers, K passes at most. The names that begin with layer_ are those of Ouro-Spec's
stats.json. What is said of a pass is said of the tokens that ran it, so that it stays the same when those that have
left are no longer computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ourospec.contracts import Mean
from ourospec.nn.layer_trace import LayerTrace

REACH, HALVINGS = 16.0, 12
"""Logits within which a zero point is looked for, to within a hundredth."""
NEAR_FLOOR = 0.05
"""Continue probability up to which a gate counts as shut."""


@torch.no_grad()
def depth_metrics(
    traces: tuple[LayerTrace, ...], max_passes: int, weight: Literal["survival", "full"]
) -> dict[str, Mean]:
    """What happened in the layers, as sums and weights that add up over micro-batches."""
    passes = torch.stack([trace.passes for trace in traces])
    tokens = passes[0].numel()
    ran = torch.stack([passes >= k for k in range(1, max_passes + 1)])  # [K, L, B, T]
    survival = _stack([trace.survival for trace in traces], max_passes)
    histogram = torch.stack([(passes == k).float().mean((1, 2)) for k in range(1, max_passes + 1)], dim=1)
    trace = survival.mean((2, 3)).T  # [L, K]
    means = {
        "mean_passes": passes.float().mean(),
        "wanted_passes": torch.stack([t.wanted.float().mean() for t in traces]).mean(),
        "expected_passes": trace.sum(1).mean(),
        "passes_by_layer": passes.float().mean((1, 2)),
        "depth_histogram": histogram.mean(0),
        "survival": trace.mean(0),
        "layer_histogram": histogram,
        "layer_wanted": torch.stack([t.wanted.float().mean() for t in traces]),
        "layer_s_trace": trace,
    }
    metrics = {name: Mean(value * tokens, tokens) for name, value in means.items()}
    if traces[0].relative:
        relative = _stack([trace.relative for trace in traces], max_passes)
        entered = ran.float() if weight == "full" else survival
        count = ran.sum((0, 2, 3))
        metrics["layer_d_rel"] = Mean((relative * ran).sum((0, 2, 3)), count)
        weights = torch.cat([torch.ones_like(entered[:1]), entered[1:]])
        metrics["layer_h_diff"] = Mean((relative * ran * weights).sum((0, 2, 3)), count)
    if traces[0].entropy is not None:
        entropies = torch.stack([t.entropy.mean() for t in traces if t.entropy is not None])
        metrics["layer_ent"] = Mean(entropies, 1)
    if traces[0].gates:
        metrics |= _gate_metrics(traces, ran[: max_passes - 1], tokens)
    return metrics


def _gate_metrics(traces: tuple[LayerTrace, ...], asked: Tensor, tokens: int) -> dict[str, Mean]:
    """Of the gates. asked [K − 1, L, B, T]: who ran the pass after which the gate was asked."""
    p = _stack([trace.gates for trace in traces], len(asked))
    asked = asked & _was_asked(traces, len(asked), p)
    number = asked.sum((0, 2, 3)).clamp(min=1)
    final = torch.where(asked, p, 1.0).prod(0).mean((1, 2))
    bids = torch.logit(p[0], eps=1e-6)
    metrics = {
        "gate": Mean(p[0].mean() * tokens, tokens),
        "near_floor": Mean(((p <= NEAR_FLOOR) & asked).sum().float(), asked.sum()),
        "bid": Mean(bids.mean() * tokens, tokens),
        "bid_square": Mean(bids.square().mean() * tokens, tokens),
        "layer_s_final": Mean(final * tokens, tokens),
        "layer_p_mean": Mean(p[0].mean((1, 2)) * tokens, tokens),
        "layer_p_square": Mean((p.square() * asked).sum((0, 2, 3)), number),
        "layer_p_all": Mean((p * asked).sum((0, 2, 3)), number),
        "layer_p_near_clamp": Mean(((p <= NEAR_FLOOR) & asked).sum((0, 2, 3)).float(), number),
    }
    if len(asked) > 1:
        # Apart, since a micro-batch may have none who came so far.
        metrics["layer_p_change"] = Mean(((p[1] - p[0]) * asked[1]).sum((1, 2)), tokens)
        metrics["layer_p_twice"] = Mean(asked[1].sum((1, 2)), tokens)
    return metrics


@torch.no_grad()
def quota_distances(traces: tuple[LayerTrace, ...], target: float, threshold: float) -> Float[Tensor, " L"]:
    """By how much each layer's logits would have to fall for its gates to ask for `target` passes on average.

    Found by halving an interval. Of those who left, who were asked no further gate, it is taken that they would leave.
    """
    # A layer that nobody ran for long asked fewer gates than others.
    p = _stack([trace.gates for trace in traces], max(len(trace.gates) for trace in traces))
    bids = _stack([trace.bids for trace in traces], len(p)).masked_fill(p == 0, -math.inf)
    low = torch.full(p.shape[1:2], -REACH, device=p.device, dtype=p.dtype)
    high = -low
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        survival = (bids - middle[:, None, None]).sigmoid().cumprod(0)
        asks_more = 1 + (survival >= threshold).sum(0).to(p.dtype).mean((1, 2)) > target
        low, high = torch.where(asks_more, middle, low), torch.where(asks_more, high, middle)
    return (low + high) / 2


def _was_asked(traces: tuple[LayerTrace, ...], gates: int, p: Tensor) -> Tensor:
    """[gates, L, 1, 1]: a layer that ended early, or was forced to few passes, did not ask its later gates."""
    rows = [[k < len(trace.gates) for trace in traces] for k in range(gates)]
    return torch.tensor(rows, device=p.device)[..., None, None]


def _stack(parts: Sequence[tuple[Tensor, ...]], length: int) -> Tensor:
    """[length, L, B, T]: one tuple a layer, zeros where a layer has fewer."""
    stacked = [torch.stack(part[:length]) for part in parts]
    return torch.stack([F.pad(s, (0, 0, 0, 0, 0, length - len(s))) for s in stacked], dim=1)


def derive(read: Mapping[str, Any], max_passes: int) -> dict[str, Any]:
    """What follows from a step's metrics, on the host: deepest tokens, percentiles, tails, standard deviations."""
    histograms: list[list[float]] = read["layer_histogram"]
    derived: dict[str, Any] = {
        "layer_k": [sum(trace) for trace in read["layer_s_trace"]],
        "layer_avg_exec_token": read["passes_by_layer"],
        "layer_k_exec": [max(k for k, share in enumerate(h, 1) if share > 0) for h in histograms],
        "layer_p95_exec_token": [_percentile(h, 0.95) for h in histograms],
    }
    for k in (2, 3, 4):
        derived[f"layer_frac_ge{k}"] = [min(1.0, sum(h[k - 1 :])) for h in histograms]
    spread = max(max_passes - 1, 1)
    derived["layer_ponder_signal"] = [max(k - 1, 0.0) / spread for k in derived["layer_k"]]
    derived["layer_wasted_compute"] = [
        deepest / mean - 1
        for deepest, mean in zip(derived["layer_k_exec"], read["passes_by_layer"], strict=True)
    ]
    derived["exec_passes"] = sum(derived["layer_k_exec"]) / len(histograms)
    derived["gap"] = derived["exec_passes"] - read["expected_passes"]
    if "layer_p_square" in read:
        pairs = zip(read["layer_p_square"], read["layer_p_all"], strict=True)
        derived["layer_p_std"] = [max(square - mean**2, 0.0) ** 0.5 for square, mean in pairs]
        none = [0.0] * len(histograms)
        changes = zip(read.get("layer_p_change", none), read.get("layer_p_twice", none), strict=True)
        derived["layer_p_diff"] = [change / twice if twice else 0.0 for change, twice in changes]
    return derived


def _percentile(histogram: Sequence[float], share: float) -> int:
    """The least number of passes that covers this share of the tokens."""
    covered = 0.0
    for passes, part in enumerate(histogram, 1):
        covered += part
        if covered >= share - 1e-6:
            return passes
    return len(histogram)
