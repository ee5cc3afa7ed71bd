"""What a run updates its weights with: AdamW, and whatever else is switched on, behind one face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.optim.adamw import build_adamw
from ourospec.optim.config import OptimConfig
from ourospec.optim.grokfast import Grokfast
from ourospec.optim.groups import hidden_matrices
from ourospec.optim.muon import Muon
from ourospec.optim.qk_clip import QKClip
from ourospec.optim.schedule import learning_rate

SLOW = "slow_gradient"
"""Grokfast's mean, among what a part keeps of a parameter."""


class Part(NamedTuple):
    """An optimiser of some of the parameters."""

    reading: Literal["lr", "muon_lr"]
    """What its learning rate is called in events."""
    optimizer: torch.optim.Optimizer
    peak: float
    """Highest learning rate."""


class Optimiser:
    """Grokfast, then each part for its own parameters, then QK-clip. The trainer has clipped the gradients before.

    It reads like one torch optimiser: its groups and its state are those of its parts, one after another, parameters
    being counted through. That of AdamW alone is AdamW's own.
    """

    def __init__(
        self, config: OptimConfig, parts: Sequence[Part], grokfast: Grokfast | None, qk_clip: QKClip | None
    ) -> None:
        self.config, self.parts = config, tuple(parts)
        self.grokfast, self.qk_clip = grokfast, qk_clip

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of all parts."""
        return [group for part in self.parts for group in part.optimizer.param_groups]

    @property
    def _parameters(self) -> list[nn.Parameter]:
        """In the order by which the state counts them."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def set_rates(self, step: int, total: int) -> dict[str, float]:
        """Set the learning rates of optimiser step `step` (from 0) of `total`; returns them as events tell them."""
        rates: dict[str, float] = {}
        for part in self.parts:
            rates[part.reading] = learning_rate(step, self.config, total, part.peak)
            for group in part.optimizer.param_groups:
                group["lr"] = rates[part.reading]
        return rates

    def step(self) -> dict[str, float]:
        """Update the weights; returns what there is to tell of it, for the step's event.

        The gradients are changed on the way.
        """
        if self.grokfast is not None:
            self.grokfast.amplify(self._parameters)
        for part in self.parts:
            part.optimizer.step()
        return {} if self.qk_clip is None else self.qk_clip.apply()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.optimizer.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """As a torch optimiser gives it: `state` by the parameter's number, and `param_groups`."""
        state: dict[int, dict[str, Any]] = {}
        groups: list[dict[str, Any]] = []
        for start, part in zip(self._starts(), self.parts, strict=True):
            own = part.optimizer.state_dict()
            state |= {start + number: dict(kept) for number, kept in own["state"].items()}
            groups += [_counted_from(group, start) for group in own["param_groups"]]
        if self.grokfast is not None:
            for number, parameter in enumerate(self._parameters):
                if parameter in self.grokfast.means:
                    state.setdefault(number, {})[SLOW] = self.grokfast.means[parameter]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Take over a saved state, of an optimiser of the same settings.

        Raises:
            ValueError: its groups are others.
        """
        counts = [len(part.optimizer.param_groups) for part in self.parts]
        if len(saved["param_groups"]) != sum(counts):
            raise ValueError(f"{len(saved['param_groups'])} groups were saved; here are {sum(counts)}")
        ends = list(accumulate(counts))
        for start, end, count, part in zip(self._starts(), ends, counts, self.parts, strict=True):
            groups = [_counted_from(group, -start) for group in saved["param_groups"][end - count : end]]
            numbers = [number for group in groups for number in group["params"]]
            state = {
                number: {
                    name: value for name, value in saved["state"][start + number].items() if name != SLOW
                }
                for number in numbers
                if start + number in saved["state"]
            }
            # A parameter of which only Grokfast remembers something is one that this part has not met.
            own = {number: kept for number, kept in state.items() if kept}
            part.optimizer.load_state_dict({"state": own, "param_groups": groups})
        if self.grokfast is not None:
            self.grokfast.means = {
                parameter: saved["state"][number][SLOW].to(parameter.device, parameter.dtype)
                for number, parameter in enumerate(self._parameters)
                if SLOW in saved["state"].get(number, {})
            }

    def _starts(self) -> list[int]:
        """The number of each part's first parameter."""
        sizes = [sum(len(group["params"]) for group in part.optimizer.param_groups) for part in self.parts]
        return [0, *accumulate(sizes)][: len(sizes)]


def build_optimiser(model: nn.Module, config: OptimConfig, policy: DevicePolicy) -> Optimiser:
    """What updates all trainable parameters; the learning rates are set anew before every step.

    Raises:
        ValueError: the model has no trainable parameter.
        ConfigError: Muon or QK-clip is on and finds nothing to do.
    """
    parts: list[Part] = []
    matrices = hidden_matrices(model) if config.muon is not None else []
    if config.muon is not None:
        if not matrices:
            raise ConfigError(
                "optim.muon is on, but this model has no matrix that maps states to states.",
                "Leave it out: --optim.muon off",
            )
        muon = Muon(matrices, config.muon, config.weight_decay, policy.autocast_dtype)
        parts.append(Part("muon_lr", muon, config.muon.lr))
    taken = [matrix.parameter for matrix in matrices]
    if not matrices or len(taken) < sum(parameter.requires_grad for parameter in model.parameters()):
        parts.insert(0, Part("lr", build_adamw(model, config, policy, taken), config.lr))
    return Optimiser(
        config,
        parts,
        None if config.grokfast is None else Grokfast(config.grokfast),
        None if config.qk_clip is None else QKClip(model, config.qk_clip),
    )


def state_bytes(model: nn.Module, config: OptimConfig) -> int:
    """Bytes kept beside the weights: two means of a gradient for AdamW, one for Muon, one for Grokfast."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = (
        {id(matrix.parameter) for matrix in hidden_matrices(model)} if config.muon is not None else set()
    )
    slow = 0 if config.grokfast is None else 1
    return sum(
        ((1 if id(parameter) in matrices else 2) + slow) * parameter.numel() * parameter.element_size()
        for parameter in trained
    )


def _counted_from(group: Mapping[str, Any], start: int) -> dict[str, Any]:
    return {**group, "params": [start + number for number in group["params"]]}
