"""Which parameters are decayed, and which are learned as matrices."""

import pytest
import torch
from torch import nn

from ourospec.data.tokenizers import ByteTokenizerConfig, build_tokenizer
from ourospec.families import PRESETS
from ourospec.families.spacing_mdn.proxies import ProxyReadout
from ourospec.nn.attention import Attention
from ourospec.nn.gate import ContinueGate
from ourospec.nn.head import Head
from ourospec.nn.mixture import MixtureHead
from ourospec.nn.moe import MoE, MoEConfig
from ourospec.optim.groups import hidden_matrices, parameter_groups
from ourospec.recipe import TextRecipe

from .everything import DECAYED, MATRICES
from .everything import Everything as Mixed


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


def test_matrices_are_maps_whatever_else_has_two_dimensions() -> None:
    found = hidden_matrices(Mixed())
    assert {m.name.removesuffix(".weight"): m.rows for m in found} == MATRICES
    assert [m.name for m in found] == [
        n for n, _ in Mixed().named_parameters() if n in {m.name for m in found}
    ]


def test_what_is_left_to_another_is_in_no_group() -> None:
    model = Mixed()
    taken = hidden_matrices(model)
    groups = parameter_groups(model, 0.1, [m.parameter for m in taken])
    left = {name for group in groups for name, _ in group["params"]}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert left == trained - {m.name for m in taken}
    assert {name for name, _ in groups[0]["params"]} == DECAYED


def test_a_head_tied_to_a_table_is_no_map_whichever_comes_first() -> None:
    class HeadFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(4, 5, bias=False)
            self.table = nn.Embedding(5, 4)
            self.table.weight = self.head.weight

    assert hidden_matrices(HeadFirst()) == []


def build(name: str) -> nn.Module:
    """A preset's model, as small as it allows; with experts where it may have some."""
    recipe = PRESETS[name]()
    if not isinstance(recipe, TextRecipe):
        return recipe.build_model()  # pyright: ignore
    tokenizer = build_tokenizer(ByteTokenizerConfig(), iter(()))
    heads = recipe.model.attention.model_copy(update={"heads": 4})  # pyright: ignore
    shape = {"layers": 1, "width": 64, "vocab_size": 0, "attention": heads}
    model = recipe.model.model_copy(update=shape)  # pyright: ignore
    if "small" in name and hasattr(model, "moe"):
        model = model.model_copy(update={"moe": MoEConfig(experts=3, hidden=8)})
    return recipe.model_copy(update={"model": model}).build_model(tokenizer)


SMALL = [
    name
    for name in PRESETS
    if not name.endswith(("100m", "tones", "tones_256", "lags", "e0", "e1", "e2", "e3", "e4"))
]


@pytest.mark.parametrize("name", SMALL)
def test_in_every_family_heads_tables_gates_and_vectors_stay_with_adamw(name: str) -> None:
    model = build(name)
    found = hidden_matrices(model)
    chosen = {id(m.parameter) for m in found}
    barred = [
        module.router if isinstance(module, MoE) else module
        for module in model.modules()
        if isinstance(module, Head | MixtureHead | ProxyReadout | ContinueGate | MoE | nn.Embedding)
    ]
    assert barred
    for module in barred:
        assert chosen.isdisjoint(id(p) for p in module.parameters()), type(module).__name__
    linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
    assert chosen <= linear, "positions, registers, memories and gains are no maps"
    assert all(min(m.parameter.shape) > 2 for m in found), "nor is what reads or gives single numbers"
    for module in model.modules():
        if isinstance(module, Attention):
            (qkv,) = [m for m in found if m.parameter is module.qkv.weight]
            d = module.head_dim
            assert qkv.rows == (module.heads * d, module.kv_heads * d, module.kv_heads * d)
    for matrix in found:
        assert sum(matrix.rows) == matrix.parameter.shape[-2]
    share = sum(m.parameter.numel() for m in found) / sum(p.numel() for p in model.parameters())
    assert share > 0.2, "most of a model's maps are found"
