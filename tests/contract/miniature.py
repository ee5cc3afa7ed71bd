"""Every preset at a size that a test can afford: its structure is kept, its numbers shrink."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ourospec.data.tokenizers import ByteTokenizerConfig, build_tokenizer
from ourospec.families import PRESETS
from ourospec.families.recursive_lm.networks import OneNetworkConfig
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.embed import FourierConfig, KroneckerConfig
from ourospec.nn.memory.base import AssociativeConfig
from ourospec.nn.moe import MoEConfig
from ourospec.recipe import TextRecipe

WIDTH, LAYERS, LENGTH = 32, 2, 48
TEXT = tuple(name for name, preset in PRESETS.items() if isinstance(preset(), TextRecipe))
"""Presets of language models: what is asked of tokens is asked of these."""


def tokenizer():
    """Bytes and an end: 257 tokens."""
    return build_tokenizer(ByteTokenizerConfig(), iter(()))


def shrink(recipe: TextRecipe, **depth) -> TextRecipe:
    """The same model in small: widths, heads, experts, anchors and vocabulary. `depth` overrides its depth."""
    model = recipe.model  # pyright: ignore[reportAttributeAccessIssue]
    attention = model.attention
    grouped = 0 < attention.kv_heads < attention.heads
    update: dict[str, object] = {
        "width": WIDTH,
        "layers": LAYERS,
        "mlp_hidden": 40,
        "vocab_size": 0,
        "max_length": LENGTH,
        "attention": attention.model_copy(
            update={"heads": 4, "kv_heads": 2 if grouped else 0, "window": min(attention.window, 7)}
        ),
    }
    if getattr(model, "moe", None) is not None:
        update["moe"] = MoEConfig(experts=4, top_k=2, hidden=16, shared_hidden=16)
    if isinstance(model.embedding, FourierConfig):
        update["embedding"] = FourierConfig(anchors=8, anchor_heads=2, anchor_hidden=16)
    if isinstance(model.embedding, KroneckerConfig):
        update["embedding"] = KroneckerConfig(positions=4)
    if hasattr(model, "recursion"):
        # A head that begins undecided, so that tokens halt after different steps.
        networks = model.recursion.networks
        if isinstance(networks, OneNetworkConfig):
            networks = networks.model_copy(update={"mlp_hidden": 40, "inner": min(networks.inner, 1)})
        update["recursion"] = model.recursion.model_copy(
            update={
                "steps": min(model.recursion.steps, 4),
                "halt_bias": 0.0,
                "halt_above": 0.5,
                "networks": networks,
            }
        )
    if isinstance(getattr(model, "memory", None), AssociativeConfig):
        size = {"heads": 2, "key_width": 8, "value_width": 8, "write_strength": 0.7}
        update["memory"] = model.memory.model_copy(update=size)
    if hasattr(model, "depth") and depth:
        update["depth"] = model.depth.model_copy(update=depth)
    return recipe.model_copy(update={"model": model.model_copy(update=update)})


def miniatures(names: Sequence[str] = TEXT, **depth) -> dict[str, TextRecipe]:
    """By preset name; of presets that are the same model in small, the first alone."""
    small = {name: shrink(PRESETS[name](), **depth) for name in names}
    seen: set[str] = set()
    found = {}
    for name, recipe in small.items():
        shape = f"{recipe.family} {recipe.model.model_dump_json()}"  # pyright: ignore[reportAttributeAccessIssue]
        if shape not in seen:
            found[name] = recipe
        seen.add(shape)
    return found


def disagreeing(recipe: TextRecipe, std: float):
    """A model in float64 whose gates disagree from token to token, as those of a trained model do."""
    torch.manual_seed(1)
    model = recipe.build_model(tokenizer()).double()
    for name, parameter in model.named_parameters():
        if name.endswith(("gate.output.weight", "gate.see_state.weight", "halt.weight")):
            torch.nn.init.normal_(parameter, std=std)
    return model


__all__ = [
    "LAYERS",
    "LENGTH",
    "TEXT",
    "WIDTH",
    "AttentionConfig",
    "disagreeing",
    "miniatures",
    "shrink",
    "tokenizer",
]
