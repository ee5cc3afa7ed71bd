"""Slow twins of nn/memory, in float64 and plain loops over rows, heads and positions. Written from the equations."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus


def begins(b: int, t: int, documents: Tensor | None, counted: Tensor, before: Tensor) -> bool:
    """Whether position t is the first counted one of a document; `before` [B] is what the rows were reading."""
    if documents is None or not counted[b, t]:
        return False
    earlier = [int(documents[b, s]) for s in range(t) if counted[b, s]]
    return int(documents[b, t]) != (earlier[-1] if earlier else int(before[b]))


def ema(
    y: Tensor,
    module,  # EmaMemory, read for its weights and settings only
    state,  # MemoryState
    documents: Tensor | None,
    counted: Tensor,
) -> tuple[Tensor, Tensor]:
    """Outputs [B, T, D], and the averages [B, W] after the last position."""
    decay, outputs, states = module.config.decay, [], []
    for b in range(y.shape[0]):
        m = state.memory[b]
        for t in range(y.shape[1]):
            if begins(b, t, documents, counted, state.document):
                m = torch.zeros_like(m)
            if counted[b, t]:
                m = decay * m + (1 - decay) * (module.down.weight @ y[b, t])
            outputs.append(module.up.weight @ m)
        states.append(m)
    return torch.stack(outputs).view(y.shape), torch.stack(states)


def convolved(y: Tensor, module, state, documents: Tensor | None, counted: Tensor, b: int, t: int) -> Tensor:
    """Queries, keys and values of one position, of all heads."""
    here = module.qkv.weight @ y[b, t]
    if module.convolution is None:
        return here
    earlier = list(state.recent[b].unbind())
    for s in range(t):
        if begins(b, s, documents, counted, state.document):
            earlier = []
        if counted[b, s]:
            earlier.append(module.qkv.weight @ y[b, s])
    if begins(b, t, documents, counted, state.document):
        earlier = []
    weights = module.convolution.filter
    total = weights[0] * here
    for lag, there in zip(range(1, len(weights)), reversed(earlier), strict=False):
        total = total + weights[lag] * there
    return total


def unit(x: Tensor) -> Tensor:
    """Of length 1."""
    return x / torch.sqrt((x * x).sum() + 1e-6)


def associative(
    y: Tensor,
    module,  # DeltaMemory or TitansMemory, read for its weights and settings only
    state,  # MemoryState
    documents: Tensor | None,
    counted: Tensor,
) -> tuple[Tensor, Tensor]:
    """Outputs [B, T, D], and the matrices [B, H, J, K, V] after the last position."""
    config = module.config
    heads, gates = config.heads, module.gate.out_features // config.heads
    outputs, states = [], []
    for b in range(y.shape[0]):
        held = [list(state.memory[b, h].unbind()) for h in range(heads)]
        for t in range(y.shape[1]):
            read = []
            joint = convolved(y, module, state, documents, counted, b, t).view(heads, -1)
            for h in range(heads):
                q, k, v = joint[h].split(module.widths)
                here = slice(h * gates, (h + 1) * gates)
                logits = module.gate.weight[here] @ y[b, t] + module.gate.bias[here]
                if begins(b, t, documents, counted, state.document):
                    held[h] = [torch.zeros_like(x) for x in held[h]]
                if counted[b, t]:
                    learn = learn_by_momentum if len(held[h]) == 2 else learn_by_delta
                    held[h] = learn(held[h], unit(k), v, logits, config)
                read.append(held[h][0].T @ unit(q))
            outputs.append(module.out.weight @ torch.cat(read))
        states.append(torch.stack([torch.stack(x) for x in held]))
    return torch.stack(outputs).view(y.shape), torch.stack(states)


def learn_by_delta(held: list[Tensor], k: Tensor, v: Tensor, logits: Tensor, config) -> list[Tensor]:
    """First it fades, then k is corrected."""
    m = torch.exp(-softplus(logits[1])) * held[0]
    strength = config.write_strength * torch.sigmoid(logits[0])
    return [m + strength * torch.outer(k, v - m.T @ k)]


def learn_by_momentum(held: list[Tensor], k: Tensor, v: Tensor, logits: Tensor, config) -> list[Tensor]:
    """The gradient by definition."""
    m, s = held
    kept, moved = torch.exp(-softplus(logits[1])), config.momentum * torch.sigmoid(logits[2])
    theta = config.write_strength * (1 - moved) * torch.sigmoid(logits[0]) / 2
    gradient = 2 * torch.outer(k, m.T @ k - v)
    s = moved * s - theta * gradient
    return [kept * m + s, s]


def memory_gate(y: Tensor, m: Tensor, module) -> tuple[Tensor, Tensor]:
    """Vectors one at a time: the mixtures, and the mean entropies of the gate in nats."""
    mixed, entropies = [], []
    for one, other in zip(y.reshape(-1, y.shape[-1]), m.reshape(-1, m.shape[-1]), strict=True):
        if module.y_norm is not None:
            one = one / torch.sqrt((one * one).mean() + 1e-6) * module.y_norm.gain
            other = other / torch.sqrt((other * other).mean() + 1e-6) * module.memory_norm.gain
        inner = module.hidden.weight @ torch.cat([one, other]) + module.hidden.bias
        g = torch.sigmoid(module.output.weight @ inner.clamp(min=0) + module.output.bias)
        mixed.append(g * one + (1 - g) * other)
        entropies.append(-(g * g.log() + (1 - g) * (1 - g).log()).mean())
    return torch.stack(mixed).view(y.shape), torch.stack(entropies).view(y.shape[:-1])
