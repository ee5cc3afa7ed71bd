"""Which parameters are decayed."""

from __future__ import annotations

from typing import Any

from torch import nn


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Split the trainable parameters in two: matrices, which decay, and everything else, which does not.

    Everything else: vectors and scalars (biases, gains, gates), embedding tables (a row decays at every step
    but is used at few, so that rare tokens would fade; a head tied to the table counts as a table), and any
    parameter that its module marked with a true attribute `_no_decay`. A parameter that appears under several
    names is listed once, under the first.

    Returns:
        Groups for a torch optimiser, in a fixed order, with named parameters; no empty group.
    """
    tables = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters(recurse=False)
    }
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter.ndim < 2 or id(parameter) in tables or getattr(parameter, "_no_decay", False)
        (kept if exempt else decayed).append((name, parameter))
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
