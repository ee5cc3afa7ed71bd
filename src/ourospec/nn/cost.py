"""FLOPs counted from the structure of a model: matrix products only, a multiply-add being two.

Letters: L layers, B rows, T positions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@runtime_checkable
class CountsItself(Protocol):
    """A module whose matrix products cannot be read off its linear layers."""

    def flops_per_row(self) -> int:
        """FLOPs of one row (one token) going through once, with everything inside."""
        ...


@dataclass(frozen=True)
class ModelCost:
    """Forward FLOPs per token at one length of context. L is the number of layers.

    A layer's first pass also makes the keys and values, which later passes only read; a plain decoder
    runs one pass per layer and nothing else.
    """

    fixed: float
    """What every token pays once: embedding, projections around the layers, head."""
    first_pass: tuple[float, ...]
    """[L], the first pass of each layer."""
    later_pass: tuple[float, ...]
    """[L], each further pass of that layer."""

    def __post_init__(self) -> None:
        if len(self.first_pass) != len(self.later_pass):
            raise ValueError(
                f"first_pass tells of {len(self.first_pass)} layers, later_pass of {len(self.later_pass)}"
            )

    def executed(self, passes: Sequence[float]) -> float:
        """FLOPs per token when layer l runs `passes[l]` passes, at least 1 (or their mean over tokens)."""
        layers = zip(self.first_pass, self.later_pass, passes, strict=True)
        return self.fixed + sum(first + (p - 1) * later for first, later, p in layers)

    def uniform(self, passes: float = 1.0) -> float:
        """FLOPs per token when every layer runs the same number of passes."""
        return self.executed([float(passes)] * len(self.first_pass))


def matmul_flops(module: nn.Module) -> float:
    """FLOPs of one row through a module and everything in it, each part run once.

    A module with `flops_per_row` counts itself and is not looked into; nn.Linear counts 2·in·out; the rest
    is the sum of its children. Biases, norms, activations and look-ups count nothing.

    Raises:
        TypeError: a module owns a matrix that no rule here explains, so the sum would silently be too small.
    """
    if isinstance(module, CountsItself):
        return float(module.flops_per_row())
    if isinstance(module, nn.Linear):
        return 2.0 * module.in_features * module.out_features
    if isinstance(module, nn.Embedding):
        return 0.0
    for name, parameter in module.named_parameters(recurse=False):
        if parameter.dim() > 1:
            raise TypeError(
                f"{type(module).__name__}.{name} is a matrix of shape {tuple(parameter.shape)}; "
                "give the module a method flops_per_row() that says what it costs."
            )
    return sum((matmul_flops(child) for child in module.children()), 0.0)


@dataclass
class FlopTable:
    """Forward FLOPs by position: at position t (from 0) attention sees t + 1 keys.

    Rows are worked out when a position is first reached.
    """

    cost: Callable[[float], ModelCost]
    """Of a model: FLOPs per token with so many visible keys, the token's own included."""
    _first: list[float] = field(default_factory=list)
    _later: list[tuple[float, ...]] = field(default_factory=list)

    def of(self, passes: Int[Tensor, "L B T"], past: int = 0) -> Float[Tensor, "B T"]:
        """FLOPs of each token of rows that start at position `past`, float64 on the CPU."""
        length = past + passes.shape[2]
        for position in range(len(self._first), length):
            cost = self.cost(float(position + 1))
            self._first.append(cost.uniform(1.0))
            self._later.append(cost.later_pass)
        first = torch.tensor(self._first[past:length], dtype=torch.float64)
        later = torch.tensor(self._later[past:length], dtype=torch.float64)
        beyond = passes.cpu().double() - 1
        return first + torch.einsum("lbt,tl->bt", beyond, later)
