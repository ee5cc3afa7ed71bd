"""Slow twins of nn/, in float64 and plain loops over rows, positions and heads. Written from the equations."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def rms_norm(x: Tensor, gain: Tensor, eps: float = 1e-6) -> Tensor:
    """One row at a time."""
    rows = [row / torch.sqrt((row * row).mean() + eps) * gain for row in x.reshape(-1, x.shape[-1])]
    return torch.stack(rows).view(x.shape)


def rotate(vector: Tensor, position: int, rotated: int, base: float = 10_000.0) -> Tensor:
    """Pairs (i, i + rotated/2) as complex numbers, multiplied by exp(i·angle)."""
    half = rotated // 2
    parts = list(vector.unbind())
    for i in range(half):
        angle = position * base ** (-2 * i / rotated)
        a, b = vector[i], vector[i + half]
        parts[i] = a * math.cos(angle) - b * math.sin(angle)
        parts[i + half] = a * math.sin(angle) + b * math.cos(angle)
    return torch.stack(parts)


def attention(
    state: Tensor,
    source: Tensor,
    qkv: Tensor,
    out: Tensor,
    heads: int,
    kv_heads: int,
    rotated: int,
    window: int,
    documents: Tensor | None,
) -> Tensor:
    """Queries from `state`, keys and values from `source`, both [B, T, D], one query and head at a time."""
    rows, length, width = state.shape
    d = width // heads
    result = []
    for b in range(rows):
        for t in range(length):
            mixed = []
            for h in range(heads):
                g = h // (heads // kv_heads)
                q = rotate(qkv[h * d : (h + 1) * d] @ state[b, t], t, rotated)
                seen = [
                    s
                    for s in range(t + 1)
                    if (not window or s > t - window)
                    and (documents is None or documents[b, s] == documents[b, t])
                ]
                k_rows = qkv[(heads + g) * d : (heads + g + 1) * d]
                v_rows = qkv[(heads + kv_heads + g) * d : (heads + kv_heads + g + 1) * d]
                scores = torch.stack([q @ rotate(k_rows @ source[b, s], s, rotated) for s in seen]) / d**0.5
                weights = torch.exp(scores - scores.max())
                weights = weights / weights.sum()
                mixed.append(sum(w * (v_rows @ source[b, s]) for w, s in zip(weights, seen, strict=True)))
            result.append(out @ torch.cat(mixed))
    return torch.stack(result).view(rows, length, width)


def ragged_attention(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor, rows: list[int]) -> Tensor:
    """Queries [H, N, d], each of a row of keys and values [B, G, S, d] of which `seen` [N, S] says those it may see."""
    heads, count, width = queries.shape
    outputs = []
    for n in range(count):
        for head in range(heads):
            group = head * keys.shape[1] // heads
            mine, told = keys[rows[n], group][seen[n]], values[rows[n], group][seen[n]]
            weights = torch.softmax(mine @ queries[head, n] / math.sqrt(width), 0)
            outputs.append(weights @ told)
    return torch.stack(outputs).view(count, heads * width)


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """One vector."""
    joint = gate_up @ x
    gate, up = joint[: len(joint) // 2], joint[len(joint) // 2 :]
    return down @ (gate * torch.sigmoid(gate) * up)


def gelu(x: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """One vector."""
    inner = up @ x
    return down @ (inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2))))


def moe(
    x: Tensor, router: Tensor, experts: list[tuple[Tensor, Tensor]], shared, top_k: int
) -> tuple[Tensor, Tensor]:
    """Rows [N, D] one at a time; also the unweighted balancing term."""
    outputs, counts, mass = [], torch.zeros(len(experts)), 0
    for row in x:
        p = torch.softmax(router @ row, 0)
        chosen = sorted(range(len(experts)), key=lambda i, p=p: -float(p[i].detach()))[:top_k]
        total = sum(p[i] for i in chosen)
        y = sum(p[i] / total * swiglu(row, *experts[i]) for i in chosen)
        outputs.append(y if shared is None else y + swiglu(row, *shared))
        mass = mass + p
        for i in chosen:
            counts[i] += 1
    share = counts.to(x.dtype) / counts.sum()
    return torch.stack(outputs), len(experts) * (share * mass / len(x)).sum()


def cross_entropy(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Σ −ln p over targets that are at least 0, a row at a time."""
    total = states.new_zeros(())
    for row, target in zip(states, targets.tolist(), strict=True):
        if target >= 0:
            logits = weight @ row
            total = total + torch.logsumexp(logits, 0) - logits[target]
    return total


def gains_of_pass(layer, index: int):
    """By which a pass reads and writes the stream: its own after the first, where it has them, else 1 and its scale."""
    if index and layer.depth.learned_passes:
        return layer.reads[index - 1], layer.writes[index - 1]
    return 1.0, layer.depth.scales[index]


def pass_loop(
    h: Tensor,
    layer,  # AdaptiveLayer, read for its weights and settings only
    documents: Tensor | None,
    gate,  # (index, state, before, update, previous) -> p [B, T]; the gate itself is tested elsewhere
    *,
    threshold: float,
    weight: str = "survival",
) -> tuple[Tensor, Tensor]:
    """The token rule, every token by itself: a token that has left is not computed at all.

    Args:
        weight: survival, or full for passes that weigh all of their scale.

    Returns the states and the executed passes [B, T].
    """
    depth, attn = layer.depth, layer.attention
    rows, length, _ = h.shape
    source = rms_norm(h, layer.attention_norm.gain)
    state_now = [[h[b, t] for t in range(length)] for b in range(rows)]
    s = [[h.new_ones(()) for _ in range(length)] for _ in range(rows)]
    alive = [[True] * length for _ in range(rows)]
    passes = torch.zeros(rows, length, dtype=torch.long)
    previous: Tensor | None = None
    for k in range(depth.max_passes):
        grid = torch.stack([torch.stack(row) for row in state_now])
        read, write = gains_of_pass(layer, k)
        state = read * rms_norm(grid, layer.attention_norm.gain)
        attended = attention(
            state,
            source,
            attn.qkv.weight,
            attn.out.weight,
            attn.heads,
            attn.kv_heads,
            attn.rotary.rotated,
            attn.window,
            documents,
        )
        inner = read * rms_norm(grid + attended, layer.mlp_norm.gain)
        update = torch.zeros_like(grid)
        for b in range(rows):
            for t in range(length):
                mixed = swiglu(inner[b, t], layer.mlp.gate_up.weight, layer.mlp.down.weight)
                update[b, t] = write * (attended[b, t] + mixed)
        p = gate(k, state, grid, update, previous) if k < depth.max_passes - 1 else None
        for b in range(rows):
            for t in range(length):
                if not alive[b][t]:
                    continue
                passes[b, t] += 1
                by = s[b][t] if weight == "survival" else 1.0
                state_now[b][t] = state_now[b][t] + by * update[b, t]
                if p is not None:
                    s[b][t] = s[b][t] * p[b, t]
                    alive[b][t] = bool(s[b][t] >= threshold)
        previous = update.detach()
        if not any(any(row) for row in alive):
            break
    return torch.stack([torch.stack(row) for row in state_now]), passes
