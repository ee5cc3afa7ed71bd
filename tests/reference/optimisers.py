"""The slow twin of ourospec.optim: one parameter and one matrix after another, float64, equations as written."""

from __future__ import annotations

import torch
from torch import Tensor

A, B, C = 3.4445, -4.7750, 2.0315


def orthogonalised(x: Tensor, iterations: int = 5) -> Tensor:
    """Newton-Schulz acts on singular values alone: s ← as + bs³ + cs⁵, from s/‖s‖."""
    u, s, vh = torch.linalg.svd(x.double(), full_matrices=False)
    s = s / s.square().sum().sqrt()
    for _ in range(iterations):
        s = A * s + B * s**3 + C * s**5
    return u @ torch.diag(s) @ vh


class MuGrokfast:
    """clip → Grokfast → Muon or AdamW, over named tensors that it changes in place.

    Args:
        matrices: rows of each matrix in the parameters that Muon learns, by name.
        decayed: names of parameters that AdamW decays.
        strength: of Grokfast; None without.
    """

    def __init__(
        self,
        weights: dict[str, Tensor],
        matrices: dict[str, tuple[int, ...]],
        decayed: set[str],
        strength: float | None,
    ) -> None:
        self.weights, self.matrices, self.decayed, self.strength = weights, matrices, decayed, strength
        self.lr, self.muon_lr, self.weight_decay = 1e-2, 3e-2, 0.2
        self.betas, self.eps, self.clip = (0.8, 0.9), 1e-6, 0.5
        self.momentum, self.alpha = 0.9, 0.7
        self.steps = 0
        self.kept: dict[str, dict[str, Tensor]] = {}

    def step(self, gradients: dict[str, Tensor]) -> None:
        self.steps += 1
        length = sum(float(g.square().sum()) for g in gradients.values()) ** 0.5
        if length > self.clip:
            gradients = {name: g * (self.clip / length) for name, g in gradients.items()}
        for name, g in gradients.items():
            kept = self.kept.setdefault(name, {})
            if self.strength is not None:
                slow = kept.get("slow", g)
                kept["slow"] = self.alpha * slow + (1 - self.alpha) * g
                g = g + self.strength * kept["slow"]
            if name in self.matrices:
                self._muon(name, g, kept)
            else:
                self._adamw(name, g, kept)

    def _muon(self, name: str, g: Tensor, kept: dict[str, Tensor]) -> None:
        kept["mean"] = self.momentum * kept.get("mean", torch.zeros_like(g)) + (1 - self.momentum) * g
        ahead = self.momentum * kept["mean"] + (1 - self.momentum) * g
        w = self.weights[name]
        w *= 1 - self.muon_lr * self.weight_decay
        for stack_w, stack_g in zip(
            w if w.dim() == 3 else [w], ahead if w.dim() == 3 else [ahead], strict=True
        ):
            start = 0
            for rows in self.matrices[name]:
                block = slice(start, start + rows)
                scale = max(1.0, rows / w.shape[-1]) ** 0.5
                stack_w[block] -= self.muon_lr * scale * orthogonalised(stack_g[block])
                start += rows

    def _adamw(self, name: str, g: Tensor, kept: dict[str, Tensor]) -> None:
        one, two = self.betas
        kept["first"] = one * kept.get("first", torch.zeros_like(g)) + (1 - one) * g
        kept["second"] = two * kept.get("second", torch.zeros_like(g)) + (1 - two) * g * g
        w = self.weights[name]
        if name in self.decayed:
            w *= 1 - self.lr * self.weight_decay
        first, second = kept["first"] / (1 - one**self.steps), kept["second"] / (1 - two**self.steps)
        w -= self.lr * first / (second.sqrt() + self.eps)
