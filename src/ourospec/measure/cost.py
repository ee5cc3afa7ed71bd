"""What a model costs: FLOPs that were really spent, parameters by part, memory and disk.

Letters: L layers, T positions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ourospec.contracts import LanguageModel
from ourospec.nn.cost import ModelCost
from ourospec.optim.config import OptimConfig
from ourospec.optim.optimiser import state_bytes


class CostedModel(LanguageModel, Protocol):
    """A language model that knows what it costs."""

    def cost(self, context: float) -> ModelCost:
        """FLOPs per token with `context` visible keys, the token's own included."""
        ...


def executed_flops(cost: ModelCost, passes: Int[Tensor, "L ..."]) -> float:
    """Mean forward FLOPs per token, given the passes that each token ran in each layer."""
    return cost.executed(passes.cpu().double().flatten(1).mean(1).tolist())


def parameters_by_part(model: nn.Module) -> dict[str, int]:
    """Numbers of parameters by the model's top-level parts; one that is shared counts where it comes first.

    Parts of equal kind in a list (layers) are one entry. The entries add up to the model's parameters.
    """
    seen: set[int] = set()

    def fresh(parameters: Iterator[nn.Parameter]) -> int:
        new = [p for p in parameters if id(p) not in seen]
        seen.update(map(id, new))
        return sum(p.numel() for p in new)

    parts = {name: fresh(child.parameters()) for name, child in model.named_children()}
    own = fresh(model.parameters())
    return {name: count for name, count in {**parts, "other": own}.items() if count}


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes held at the peak of a training step, when the backward pass starts."""

    weights: int
    gradients: int
    optimizer: int
    """What the optimiser remembers: AdamW two means of each gradient, Muon one, Grokfast another."""
    average: int
    """The moving average of the weights, 0 without one."""
    activations: int
    """What a micro-batch's forward pass keeps for its backward pass."""
    working: int
    """What kernels need while they run, and what the allocator keeps: as measured, beyond all of the above."""

    @property
    def total(self) -> int:
        """The sum. The interpreter, its libraries and the tokenizer come on top: about 0.3 GB."""
        kept = self.weights + self.gradients + self.optimizer + self.average
        return kept + self.activations + self.working


def memory_plan(model: nn.Module, optim: OptimConfig, *, activations: int = 0, growth: int = 0) -> MemoryPlan:
    """Memory of training.

    Args:
        activations: bytes, as `SavedBytes` counts them for a micro-batch; 0 where nothing was measured.
        growth: bytes that measured training steps without an average took beyond the weights; 0 likewise.
    """
    weights, optimizer = _weight_bytes(model), state_bytes(model, optim)
    average = weights if optim.ema_decay else 0
    working = max(0, growth - weights - optimizer - activations)
    return MemoryPlan(weights, weights, optimizer, average, activations, working)


def checkpoint_bytes(model: nn.Module, optim: OptimConfig) -> int:
    """Bytes of one checkpoint: weights, the optimiser's state, and the average where there is one."""
    weights = _weight_bytes(model)
    return weights + state_bytes(model, optim) + (weights if optim.ema_decay else 0)


def disk_bytes(model: nn.Module, optim: OptimConfig, keep: int, *, keep_best: bool = False) -> int:
    """Bytes of a run's checkpoints at their most: while a new one is written, the `keep` older ones are still there.

    Best weights add their own: each of these checkpoints may tell of other ones, and new ones are being written.
    """
    bests = (keep + 2) * _weight_bytes(model) * (2 if optim.ema_decay else 1)
    return checkpoint_bytes(model, optim) * (keep + 1) + (bests if keep_best else 0)


def _weight_bytes(model: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in model.parameters())


class SavedBytes:
    """Counts what autograd keeps for the backward pass while the context is open.

    Storages are counted once however many tensors share them; the model's own parameters and buffers are left
    out. `.total` is in bytes.
    """

    def __init__(self, model: nn.Module) -> None:
        self._storages: dict[int, int] = {}
        self._excluded = {
            tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]
        }
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, _unpack)

    def __enter__(self) -> SavedBytes:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)

    @property
    def total(self) -> int:
        return sum(self._storages.values())

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._excluded:
            self._storages[storage.data_ptr()] = storage.nbytes()
        return tensor


def _unpack(tensor: Tensor) -> Tensor:
    return tensor
