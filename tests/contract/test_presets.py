"""What the presets promise about each other and about the documents they follow."""

import importlib.util
from pathlib import Path

import pytest
import torch

from ourospec.families import PRESETS
from ourospec.recipe import Recipe, TextRecipe


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_named_described_and_survives_its_json(name):
    recipe = PRESETS[name]()
    assert f"{recipe.family}/{recipe.name}" == name
    assert (PRESETS[name].__doc__ or "").strip()
    assert Recipe.families[recipe.family].model_validate_json(recipe.to_json()) == recipe


@pytest.mark.parametrize(
    "adaptive,dense", [("smoke", "smoke"), ("tiny", "tiny"), ("small", "small"), ("ouro_100m", "gpt_100m")]
)
def test_a_plain_twin_trains_on_the_same_terms(adaptive, dense):
    """Equal data, steps, batches and optimiser, and equal shape: what differs is the depth."""
    ours, theirs = PRESETS[f"adaptive_lm/{adaptive}"](), PRESETS[f"dense_lm/{dense}"]()
    for part in ("data", "train", "optim", "seed", "prompts"):
        assert getattr(ours, part) == getattr(theirs, part), part
    for size in ("width", "layers", "max_length", "vocab_size"):
        assert getattr(ours.model, size) == getattr(theirs.model, size), size
    assert ours.model.attention.heads == theirs.model.attention.heads


@pytest.mark.parametrize("name", [name for name in PRESETS if isinstance(PRESETS[name](), TextRecipe)])
def test_nothing_is_decoded_beyond_the_trained_window(name):
    recipe = PRESETS[name]()
    assert recipe.model.max_length == recipe.train.window


def test_ouro_100m_has_the_documented_sizes():
    recipe = PRESETS["adaptive_lm/ouro_100m"]()
    model, depth = recipe.model, recipe.model.depth
    assert (model.width, model.layers, model.attention.heads, model.vocab_size) == (768, 8, 12, 50_272)
    assert (depth.max_passes, depth.scales, depth.threshold) == (4, (1.0, 0.7, 0.5, 0.35), 0.10)
    assert (model.embedding.characters, model.embedding.positions, model.embedding.anchors) == (128, 16, 1536)


@pytest.mark.parametrize("passes", [1, 2, 3, 4])
def test_fixed_variants_differ_from_tiny_in_depth_only(passes):
    tiny, fixed = PRESETS["adaptive_lm/tiny"](), PRESETS[f"adaptive_lm/tiny_fixed_{passes}"]()
    assert fixed.model.depth.halting == "fixed" and fixed.model.depth.max_passes == passes
    assert fixed.objective.price.price == 0
    assert fixed.model.model_copy(update={"depth": tiny.model.depth}) == tiny.model
    assert (fixed.train, fixed.optim, fixed.data) == (tiny.train, tiny.optim, tiny.data)


def test_the_residual_stream_is_wide_in_both_families():
    """Under autocast the stream keeps float32: both families are compared in equal arithmetic."""
    spec = importlib.util.spec_from_file_location("miniature", Path(__file__).parent / "miniature.py")
    miniature = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(miniature)
    for name, recipe in miniature.miniatures().items():
        model = recipe.build_model(miniature.tokenizer())
        seen = []
        stack = model.blocks if hasattr(model, "blocks") else model.layers
        for block in stack:
            block.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0].dtype))
        with torch.autocast("cpu", torch.bfloat16):
            model(torch.zeros(1, 4, dtype=torch.long))
        assert set(seen) == {torch.float32}, name
