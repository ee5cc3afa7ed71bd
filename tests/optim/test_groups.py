"""Which parameters are decayed."""

import torch
from torch import nn

from ourospec.optim.groups import parameter_groups


class Everything(nn.Module):
    """A parameter of every type that a model here may have."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.experts = nn.Parameter(torch.ones(3, 4, 4))
        self.scale = nn.Parameter(torch.ones(()))
        self.anchors = nn.Parameter(torch.ones(2, 4))
        self.anchors._no_decay = True
        self.frozen = nn.Parameter(torch.ones(4, 4), requires_grad=False)
        self.tied = nn.Linear(4, 5, bias=False)
        self.tied.weight = self.table.weight


def names(model: nn.Module, decay: float) -> dict[float, list[str]]:
    groups = parameter_groups(model, decay)
    return {group["weight_decay"]: [name for name, _ in group["params"]] for group in groups}


def test_matrices_decay_and_nothing_else_does() -> None:
    found = names(Everything(), 0.1)
    assert set(found[0.1]) == {"linear.weight", "experts"}
    assert set(found[0.0]) == {"scale", "anchors", "table.weight", "linear.bias", "norm.weight", "norm.bias"}


def test_every_trainable_parameter_is_in_exactly_one_group() -> None:
    model = Everything()
    grouped = [id(p) for group in parameter_groups(model, 0.1) for _, p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters() if p.requires_grad)


def test_a_head_tied_to_the_table_counts_as_a_table_whichever_comes_first() -> None:
    class HeadFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 5, bias=False)
            self.table = nn.Embedding(5, 4)
            self.table.weight = self.head.weight

    assert names(HeadFirst(), 0.1) == {0.0: ["head.weight"]}


def test_the_order_is_the_same_for_every_instance() -> None:
    assert names(Everything(), 0.1) == names(Everything(), 0.1)
