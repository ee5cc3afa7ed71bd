"""Muon: momentum, made orthogonal matrix by matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ourospec.optim.config import MuonConfig
from ourospec.optim.groups import Matrix
from ourospec.optim.newton_schulz import orthogonalise


class Muon(torch.optim.Optimizer):
    """M ← μM + (1 − μ)G;  O = orthogonalise(μM + (1 − μ)G);  W ← (1 − lr·decay)W − lr·s·O, s by MuonConfig.scale.

    As torch.optim.Muon, which takes single matrices only. This one takes stacks and several matrices in one parameter
    too, orthogonalises all of one shape in one product, and in the arithmetic that the run computes in.

    Args:
        matrices: what is learned, [..., m, n] each.
        weight_decay: share of the weight lost per step, per unit of learning rate.
        arithmetic: type of the products; None: the parameters'.
    """

    def __init__(
        self,
        matrices: Sequence[Matrix],
        config: MuonConfig,
        weight_decay: float,
        arithmetic: torch.dtype | None = None,
    ) -> None:
        defaults = {"lr": config.lr, "momentum": config.momentum, "weight_decay": weight_decay}
        super().__init__([(matrix.name, matrix.parameter) for matrix in matrices], defaults)
        self._config, self._arithmetic = config, arithmetic
        self._rows: dict[Tensor, tuple[int, ...]] = {matrix.parameter: matrix.rows for matrix in matrices}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient.

        Raises:
            ValueError: a closure; gradients are there already.
        """
        if closure is not None:
            raise ValueError("Muon takes no closure")
        for group in self.param_groups:
            moving = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not moving:
                continue
            gradients = [parameter.grad for parameter in moving]
            means = [self._mean(parameter) for parameter in moving]
            torch._foreach_lerp_(means, gradients, 1.0 - group["momentum"])
            updates = torch._foreach_lerp(gradients, means, group["momentum"])
            updates = [update.contiguous() for update in updates]
            self._orthogonalise(moving, updates)
            torch._foreach_mul_(moving, 1.0 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(moving, updates, alpha=-group["lr"])

    def _mean(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"]

    def _orthogonalise(self, parameters: Sequence[Tensor], updates: Sequence[Tensor]) -> None:
        """In place, all matrices of one shape at once; a tall one counts as its transpose."""
        alike: dict[tuple[int, int], list[tuple[Tensor, float]]] = {}
        for parameter, update in zip(parameters, updates, strict=True):
            for block in self._blocks(parameter, update):
                rows, columns = block.shape[-2:]
                wide = block.mT if rows > columns else block
                alike.setdefault((wide.shape[-2], wide.shape[-1]), []).append(
                    (wide, self._scale(rows, columns))
                )
        for blocks in alike.values():
            together = torch.cat([block for block, _ in blocks])
            directions = orthogonalise(together, self._config.iterations, self._arithmetic)
            for (block, scale), direction in zip(
                blocks, directions.split([len(block) for block, _ in blocks]), strict=True
            ):
                torch.mul(direction, scale, out=block)

    def _blocks(self, parameter: Tensor, update: Tensor) -> Iterator[Tensor]:
        """Views [k, m, n] of the matrices in a parameter's update."""
        for block in update.split(self._rows[parameter], dim=-2):
            yield block.flatten(0, -3) if block.dim() > 2 else block[None]

    def _scale(self, rows: int, columns: int) -> float:
        if self._config.scale == "adam_rms":
            return 0.2 * max(rows, columns) ** 0.5
        return max(1.0, rows / columns) ** 0.5
