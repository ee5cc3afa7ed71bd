"""All that changes while a run trains, and how it goes into a checkpoint and comes back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ourospec.contracts import Objective
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.nn.ragged import can_build
from ourospec.optim.ema import WeightAverage
from ourospec.optim.optimiser import Optimiser
from ourospec.train.checkpoint import Snapshot
from ourospec.train.heldout import HeldOut
from ourospec.train.rng import generator_states, restore_generators
from ourospec.train.tree import put_together, take_apart

CPU = torch.device("cpu")


@dataclass
class TrainState:
    """A run between two steps."""

    model: nn.Module
    optimizer: Optimiser
    average: WeightAverage | None
    """None where no average of the weights is kept."""
    objective: Objective
    policy: DevicePolicy
    carry: Any = None
    """What the objective handed on; unread here."""
    step: int = 0
    """Finished optimiser steps."""
    tokens: int = 0
    """Targets learnt from so far."""
    seconds: float = 0.0
    """Time spent in optimiser steps, data included; not in evaluation, saving or starting."""
    heldout: HeldOut = field(default_factory=HeldOut)
    """What the evaluations have come to."""
    events_offset: int = 0
    """Size in bytes of the event file when `step` was finished, before anything was measured or saved."""

    def snapshot(self) -> Snapshot:
        """Everything, by reference: to be written before training goes on.

        Raises:
            TypeError: the carry holds something that a checkpoint cannot bring back.
        """
        weights, aliases = _named_once(self.model)
        state: dict[str, Tensor] = {}
        record = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "events_offset": self.events_offset,
            **self.heldout.to_record(),
            "aliases": aliases,
            "objective": self.objective.state_dict(),
            "optimizer": take_apart(self.optimizer.state_dict(), "optimizer", state),
            "generators": take_apart(generator_states(), "generators", state),
            "carry": take_apart(self.carry, "carry", state),
            "circumstances": circumstances(self.policy),
        }
        average = {} if self.average is None else dict(self.average.tensors)
        return Snapshot(self.step, weights, average, state, record)

    @torch.no_grad()
    def restore(self, snapshot: Snapshot) -> None:
        """Become the run that the snapshot was taken of, to the last bit.

        Raises:
            ConfigError: the model has other parameters than the one that was saved.
        """
        weights, _ = _named_once(self.model)
        _refuse_mismatch(weights, snapshot.weights)
        for name, tensor in weights.items():
            tensor.copy_(snapshot.weights[name])
        if self.average is not None:
            self.average.load(snapshot.average)
        record = snapshot.record
        saved = put_together(record["optimizer"], snapshot.state, CPU)
        now = self.optimizer.state_dict()
        if _group_names(saved) != _group_names(now):
            raise ConfigError(
                "The checkpoint's optimiser has the parameters in other groups than this version makes.",
                "Go on with the version of ourospec that wrote it (see environment.json).",
            )
        for group in saved["param_groups"]:
            # Of this device, not of the one where it was saved; before loading, which places the counters by it.
            if "fused" in group:
                group["fused"] = self.policy.fused_optimizer
        self.optimizer.load_state_dict(saved)
        self.objective.load_state_dict(record["objective"])
        self.carry = put_together(record["carry"], snapshot.state, self.policy.device)
        self.step, self.tokens, self.seconds = snapshot.step, record["tokens"], record["seconds"]
        self.events_offset = record["events_offset"]
        self.heldout = HeldOut.from_record(record)
        restore_generators(put_together(record["generators"], snapshot.state, CPU))


def circumstances(policy: DevicePolicy) -> dict[str, str]:
    """What decides on the last bit of a sum, besides the numbers that are summed."""
    special = {
        "AVX512_BF16": torch.cpu._is_avx512_bf16_supported(),
        "AMX": torch.cpu._is_amx_tile_supported(),
    }
    instructions = [torch.backends.cpu.get_cpu_capability(), *(name for name in special if special[name])]
    compiled = policy.device.type == "cpu" and can_build(policy.autocast_dtype or torch.float32)
    return {
        "device": str(policy.device),
        "arithmetic": str(policy.autocast_dtype or torch.float32).removeprefix("torch."),
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "instructions": "+".join(instructions),
        "attention": "compiled" if compiled else "torch's",
    }


def _named_once(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict with every tensor under its first name, and the further names of shared ones."""
    first: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in first:
            aliases[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            tensors[name] = tensor.detach()
    return tensors, aliases


def _group_names(optimizer_state: dict[str, Any]) -> list[list[str]]:
    return [list(group["param_names"]) for group in optimizer_state["param_groups"]]


def _refuse_mismatch(model: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    def shapes(tensors: dict[str, Tensor]) -> dict[str, tuple]:
        return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}

    ours, theirs = shapes(model), shapes(saved)
    differing = sorted(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
    if differing:
        raise ConfigError(
            "The checkpoint is of a model with other parameters than the recipe builds now: "
            + ", ".join(differing[:5])
            + (f" and {len(differing) - 5} more" if len(differing) > 5 else ""),
            "Go on with the version of ourospec that wrote it (see environment.json).",
        )
