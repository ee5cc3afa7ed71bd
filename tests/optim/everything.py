"""A model with a parameter of every type, the twin of its optimiser, and gradients for both."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from ourospec.device import DevicePolicy
from ourospec.nn.init import mark_by_entry, mark_joint
from ourospec.optim.config import GrokfastConfig, MuonConfig, OptimConfig

spec = importlib.util.spec_from_file_location(
    "optimisers", Path(__file__).parents[1] / "reference" / "optimisers.py"
)
assert spec is not None and spec.loader is not None
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

CPU = torch.device("cpu")
PLAIN = DevicePolicy(CPU, None, fused_optimizer=True)
NARROW = DevicePolicy(CPU, torch.bfloat16, fused_optimizer=True)
MATRICES = {"square": (6,), "wide": (4,), "tall": (9,), "joint": (6, 3, 3), "experts": (4,)}
"""Parameters that Muon learns in `Everything`, with the rows of each matrix in them."""
DECAYED = {"readout.weight", "gate.0.weight", "table_of_places"}


class Everything(nn.Module):
    """Maps, stacks, joint maps; tables, tied and not; heads, gates, gains, biases, memories."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 6)
        self.square = nn.Linear(6, 6)
        self.wide = nn.Linear(6, 4, bias=False)
        self.tall = nn.Linear(4, 9, bias=False)
        self.joint = mark_joint(nn.Linear(6, 12, bias=False), 6, 3, 3)
        self.experts = nn.Parameter(torch.randn(3, 4, 6))
        self.experts._matrices = True  # pyright: ignore[reportAttributeAccessIssue]
        self.norm = nn.LayerNorm(6)
        self.readout = mark_by_entry(nn.Linear(6, 3))
        self.gate = mark_by_entry(nn.Sequential(nn.Linear(6, 1)))
        self.table_of_places = nn.Parameter(torch.randn(7, 6))
        self.memory = nn.Parameter(torch.randn(2, 6))
        self.memory._no_decay = True  # pyright: ignore[reportAttributeAccessIssue]
        self.tied = nn.Linear(6, 5, bias=False)
        self.tied.weight = self.table.weight
        self.frozen = nn.Linear(6, 6, bias=False).requires_grad_(False)


def everything() -> Everything:
    """The same weights every time, in float64."""
    torch.manual_seed(0)
    return Everything().double()


def gradients(step: int, model: nn.Module) -> dict[str, Tensor]:
    """Some gradient of every trainable parameter, the same for the same step."""
    torch.manual_seed(100 + step)
    return {
        name: torch.randn_like(p, dtype=torch.float64)
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def give(model: nn.Module, found: dict[str, Tensor]) -> None:
    """Put gradients where backward would."""
    for name, parameter in model.named_parameters():
        if name in found:
            parameter.grad = found[name].to(parameter.dtype).clone()


def settings(*, muon: bool, strength: float | None) -> OptimConfig:
    """As the twin has them, without a schedule."""
    return OptimConfig(
        lr=1e-2,
        final_lr_fraction=1.0,
        warmup_fraction=0.0,
        beta1=0.8,
        beta2=0.9,
        eps=1e-6,
        weight_decay=0.2,
        clip_norm=0.5,
        muon=MuonConfig(lr=3e-2, momentum=0.9) if muon else None,
        grokfast=None if strength is None else GrokfastConfig(decay=0.7, strength=strength),
    )


def twin_of(model: nn.Module, config: OptimConfig):
    """The slow optimiser over a copy of the model's weights."""
    weights = {name: p.detach().double().clone() for name, p in model.named_parameters()}
    rows = {(name if name == "experts" else f"{name}.weight"): m for name, m in MATRICES.items()}
    matrices = rows if config.muon else {}
    decayed = DECAYED if config.muon else DECAYED | rows.keys()
    strength = config.grokfast.strength if config.grokfast else None
    return reference.MuGrokfast(weights, matrices, decayed, strength)
