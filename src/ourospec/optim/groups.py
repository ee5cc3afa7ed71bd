"""Which parameters are decayed, and which are learned as matrices."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

from torch import nn


def parameter_groups(
    model: nn.Module, weight_decay: float, without: Collection[nn.Parameter] = ()
) -> list[dict[str, Any]]:
    """Split the trainable parameters in two: matrices, which decay, and everything else, which does not.

    Everything else: vectors and scalars (biases, gains, gates), embedding tables (a row decays at every step
    but is used at few, so that rare tokens would fade; a head tied to the table counts as a table), and any
    parameter that its module marked with a true attribute `_no_decay`. A parameter that appears under several
    names is listed once, under the first.

    Args:
        without: parameters that are left to another optimiser.

    Returns:
        Groups for a torch optimiser, in a fixed order, with named parameters; no empty group.
    """
    tables, elsewhere = _tables(model), {id(parameter) for parameter in without}
    decayed, kept = [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or id(parameter) in elsewhere:
            continue
        exempt = parameter.ndim < 2 or id(parameter) in tables or getattr(parameter, "_no_decay", False)
        (kept if exempt else decayed).append((name, parameter))
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": kept, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


class Matrix(NamedTuple):
    """A parameter that is a matrix, several side by side, or a stack of them."""

    name: str
    parameter: nn.Parameter
    """[..., m, n]; every index before the last two counts matrices."""
    rows: tuple[int, ...]
    """Rows of each of the matrices that lie one below the other in it; (m,) where it is one."""


def hidden_matrices(model: nn.Module) -> list[Matrix]:
    """The parameters that map states to states, which is what Muon is for. Their module says so, not their shape.

    They are the weights of `nn.Linear`, each of them one matrix, or as many as the layer is marked to consist of
    (`joint_rows`: queries, keys and values); and parameters that their module marked as stacks of matrices with a true
    attribute `_matrices` (experts). Never: embedding tables and heads tied to them; modules, with all in them, that are
    marked `by_entry` (heads, gates, routers, first layers over raw numbers); and whatever else has two dimensions
    without being a map (positions, memories, registers). See ourospec.nn.init for the marks.
    """
    barred, rows = _tables(model), {}
    for module in model.modules():
        if getattr(module, "by_entry", False):
            barred |= {id(parameter) for parameter in module.parameters()}
        if isinstance(module, nn.Linear):
            rows[id(module.weight)] = getattr(module, "joint_rows", (module.out_features,))
    found = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or id(parameter) in barred:
            continue
        if id(parameter) in rows:
            found.append(Matrix(name, parameter, rows[id(parameter)]))
        elif getattr(parameter, "_matrices", False):
            found.append(Matrix(name, parameter, (parameter.shape[-2],)))
    return found


def _tables(model: nn.Module) -> set[int]:
    """Identities of embedding tables."""
    return {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for parameter in module.parameters(recurse=False)
    }
