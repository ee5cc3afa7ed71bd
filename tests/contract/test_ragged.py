"""Texts of different lengths side by side in one cache: each is what it would be alone. Over every preset, float64."""

import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.nn.cache import Cache

spec = importlib.util.spec_from_file_location("causality", Path(__file__).parent / "test_causality.py")
causality = importlib.util.module_from_spec(spec)
spec.loader.exec_module(causality)

MODELS = {name: model for name, model in causality.MODELS.items() if name != "keys per pass"}
LENGTH = 30
few = settings(deadline=None, max_examples=4)


@pytest.mark.parametrize("name", MODELS)
@few
@given(st.lists(st.integers(1, LENGTH - 5), min_size=1, max_size=4), st.integers(0, 999), st.data())
def test_joined_rows_are_what_each_is_alone(name, lengths, seed, data):
    model = MODELS[name]
    texts = [causality.text(1, LENGTH, seed + row) for row in range(len(lengths))]
    whole = [causality.read(model, text) for text in texts]
    caches = [model.new_cache(1, LENGTH) for _ in texts]
    for text, length, cache in zip(texts, lengths, caches, strict=True):
        causality.read(model, text[:, :length], cache=cache)
    joined, rows = type(caches[0]).join(caches), list(range(len(texts)))
    at = list(lengths)
    while any(at[row] < LENGTH for row in rows):
        # A text that has ended leaves, and now and then one that has not.
        stay = [i for i, row in enumerate(rows) if at[row] < LENGTH]
        if len(stay) > 1 and data.draw(st.integers(0, 9)) == 0:
            stay.pop(data.draw(st.integers(0, len(stay) - 1)))
        if len(stay) < len(rows):
            joined.keep(stay)
            rows = [rows[i] for i in stay]
        step = 1 if max(at[row] for row in rows) == LENGTH - 1 else data.draw(st.integers(1, 2))
        fresh = torch.cat([texts[row][:, at[row] : at[row] + step] for row in rows])
        found = causality.read(model, fresh, cache=joined)
        for i, row in enumerate(rows):
            here = slice(at[row], at[row] + step)
            causality.assert_equal(
                (found[0][i], found[1][:, i]), (whole[row][0][0, here], whole[row][1][:, 0, here])
            )
            at[row] += step


@pytest.mark.parametrize("name", MODELS)
@few
@given(st.integers(2, LENGTH - 1), st.integers(0, 999), st.data())
def test_what_was_read_in_vain_is_forgotten(name, length, seed, data):
    model, tokens, other = MODELS[name], causality.text(2, LENGTH, seed), causality.text(2, LENGTH, seed + 1)
    whole = causality.read(model, tokens)
    cache, kept = model.new_cache(2, LENGTH), data.draw(st.integers(1, length - 1))
    causality.read(model, torch.cat([tokens[:, :kept], other[:, kept:length]], dim=1), cache=cache)
    cache.truncate(kept)
    found = causality.read(model, tokens[:, kept:], cache=cache)
    causality.assert_equal(found, (whole[0][:, kept:], whole[1][:, :, kept:]))


def test_what_cannot_be_joined_or_kept_is_refused():
    model = MODELS["dense_lm/smoke"]
    with pytest.raises(ValueError, match="one capacity"):
        Cache.join([model.new_cache(1, 4), model.new_cache(1, 5)])
    with pytest.raises(ValueError, match="cannot be kept"):
        model.new_cache(1, 4).truncate(1)
