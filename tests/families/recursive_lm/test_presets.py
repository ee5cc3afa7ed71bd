"""What the presets promise about each other."""

from __future__ import annotations

import pytest

from ourospec.data.puzzles.config import MixtureSource
from ourospec.data.text import open_text
from ourospec.families import PRESETS
from ourospec.families.recursive_lm.networks import TwoNetworks, TwoNetworksConfig
from ourospec.families.recursive_lm.recipe import RecursiveRecipe
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.memory import DeltaMemoryConfig

ORDER = ("speed", "memory", "reasoning")
OWN = [name for name in PRESETS if name.startswith("recursive_lm/")]


def special(name: str, size: str) -> RecursiveRecipe:
    recipe = PRESETS[f"recursive_lm/{size}{name}"]()
    assert isinstance(recipe, RecursiveRecipe)
    return recipe


@pytest.mark.parametrize("size", ["", "tiny_"])
def test_specialisations_differ_in_what_their_names_say_and_in_nothing_of_the_shape(size):
    recipes = [special(name, size) for name in ORDER]
    thresholds = [recipe.model.recursion.halt_above for recipe in recipes]
    assert thresholds == sorted(set(thresholds)), "speed halts first, reasoning last"
    capacity = {}
    for name, recipe in zip(ORDER, recipes, strict=True):
        assert isinstance(recipe.model.memory, DeltaMemoryConfig)
        capacity[name] = recipe.model.memory.state_size
    assert capacity == {"speed": 2_048, "reasoning": 4_096, "memory": 8_192}
    plain = {"memory": None, "recursion": recipes[0].model.recursion}
    shapes = {recipe.model.model_copy(update=plain).model_dump_json() for recipe in recipes}
    assert len(shapes) == 1
    tasks = []
    for recipe in recipes:
        source = recipe.data.source
        assert isinstance(source, MixtureSource)
        tasks.append([part.task for part in source.parts])
    assert tasks[0] == tasks[1] == tasks[2], "they can be asked the same puzzles"


@pytest.mark.parametrize("name", [name for name in OWN if PRESETS[name]().data.asks])
def test_the_puzzles_of_a_preset_fit_into_its_rows(name):
    recipe = PRESETS[name]()
    stream = recipe.open_stream(open_text(recipe.data))
    rows = stream.batches(0)[0]
    assert rows.tokens.shape == (recipe.train.micro_batch_size, recipe.train.window)
    assert rows.num_targets > 0


def test_memory_binds_where_it_is_to_be_shown():
    """The window of the presets with a memory is shorter than their texts."""
    for name in OWN:
        model = PRESETS[name]().model
        if model.memory is not None and "compat" not in name:
            assert 0 < model.attention.window < model.max_length, name


def test_keys_that_heads_share_cost_less():
    """Counted by hand: two maps of 16 by 16, and keys and values of one head of 8 beside them."""
    config = AttentionConfig(heads=2, kv_heads=1)
    networks = TwoNetworks(16, config, TwoNetworksConfig(inner=2))
    assert networks.begin_flops(10) == 2 * (2 * 16 * 16) + 2 * 16 * (8 + 8)
    # Twice two reads (queries, outputs, 10 keys) and the reasoning's network; then keys, values, the answer's network.
    read = 2 * (2 * 16 * 16) + 4 * 16 * 10
    reasoning, answer = 2 * (48 * 32 + 32 * 16), 2 * (32 * 32 + 32 * 16)
    assert networks.step_flops(10) == 2 * (2 * read + reasoning) + 2 * 16 * (8 + 8) + answer
