"""Initial weights, in one place for all models."""

from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def initialise(model: nn.Module, residual_branches: int) -> None:
    """Give every matrix entries of variance 1/fan_in, so that each product keeps its input's scale.

    The matrices that write into the residual stream (marked by `mark_residual`) are further divided by
    sqrt(residual_branches), so that the stream's variance does not grow with depth (Radford et al. 2019).
    Embedding tables get standard deviation 0.02; biases 0; gains stay 1. A module that needs something else
    has a method `init_parameters()`, which is called last.

    Args:
        residual_branches: how many branches are added into the stream from bottom to top.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            std = module.in_features**-0.5
            if getattr(module, "writes_residual", False):
                std /= residual_branches**0.5
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
    for module in model.modules():
        custom = getattr(module, "init_parameters", None)
        if custom is not None:
            with torch.no_grad():
                custom()


def mark_joint(linear: nn.Linear, *rows: int) -> nn.Linear:
    """Say that this layer is several side by side, of so many outputs each: who learns matrices takes each alone."""
    linear.joint_rows = rows  # pyright: ignore[reportArgumentType, reportAttributeAccessIssue]
    return linear


def mark_by_entry(module: Module) -> Module:
    """Say that what is in this module is learned entry by entry, and not as matrices, whatever its shape.

    For what gives numbers that are read one by one (heads, gates, routers), or reads raw ones: no direction among
    these is worth as much as another.
    """
    module.by_entry = True  # pyright: ignore[reportArgumentType]
    return module


def mark_residual(linear: nn.Linear) -> nn.Linear:
    """Say that this layer's output is added to the residual stream."""
    linear.writes_residual = True  # pyright: ignore[reportArgumentType]
    return linear
