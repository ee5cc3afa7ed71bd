"""Sketches estimate what a slow comparison of sets computes, and clusters follow from it."""

import random

import numpy as np
import pytest

from ourospec.data import near_duplicates
from ourospec.data.near_duplicates import BINS, WINDOW, cluster, hash_windows, similarity, sketch


def windows(text):
    content = " ".join(text.split()).lower().encode()
    return {content[i : i + WINDOW] for i in range(len(content) - WINDOW + 1)}


def jaccard(one, other):
    one, other = windows(one), windows(other)
    return len(one & other) / len(one | other)


def edit(text, share, seed):
    """Some lines of a text replaced."""
    chance = random.Random(seed)
    lines = text.splitlines()
    for place in chance.sample(range(len(lines)), round(share * len(lines))):
        lines[place] = " ".join(str(chance.random()) for _ in range(4))
    return "\n".join(lines)


def test_hashes_of_windows_equal_the_polynomial_written_out():
    data = np.frombuffer(random.Random(0).randbytes(100), np.uint8)
    mask, base = (1 << 64) - 1, near_duplicates._BASE
    for place, hashed in enumerate(hash_windows(data).tolist()):
        value = 0
        for byte in data[place : place + WINDOW].tolist():
            value = (value * base + byte) & mask
        for _ in range(2):
            value ^= value >> 31
            value = value * int(near_duplicates._MIX) & mask
        assert hashed == value ^ value >> 32


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 1.0])
def test_similarity_is_near_the_jaccard_index(make_text, share):
    one = make_text(0, 4000)
    other = edit(one, share, 1)
    exact = jaccard(one, other)
    # A mean of 64 yes-or-no draws: four standard errors.
    margin = 4 * (exact * (1 - exact) / BINS) ** 0.5
    assert abs(float(similarity(sketch(one), sketch(other))) - exact) <= margin


def test_white_space_and_case_do_not_count(make_text):
    text = make_text(3)
    assert (sketch(text) == sketch(text.upper().replace(" ", "\n\t "))).all()


def test_a_long_text_is_hashed_in_blocks_without_a_seam(make_text, monkeypatch):
    whole = sketch(make_text(5))
    monkeypatch.setattr(near_duplicates, "_BLOCK", 100)
    assert (sketch(make_text(5)) == whole).all()


def test_clusters_join_copies_near_copies_and_chains(make_text):
    base = make_text(1, 4000)
    near = edit(base, 0.1, 2)
    nearer = edit(near, 0.1, 3)
    texts = [
        make_text(2),
        base,
        make_text(3),
        near,
        "short",
        make_text(4),
        nearer,
        "short ",
        "short too",
        base,
    ]
    found = cluster(np.stack([sketch(text) for text in texts]))
    assert found.tolist() == [0, 1, 2, 1, 4, 5, 1, 4, 8, 1]


def test_alike_documents_meet_past_an_unlike_one_in_every_band():
    """As when a licence's text gives the same two minima to files that have nothing else in common."""
    chance = np.random.Generator(np.random.Philox(3))
    first, *between, last = chance.integers(0, 2**32 - 1, (34, BINS), np.uint32)
    last[:40] = first[:40]
    for band, document in enumerate(between):
        pair = slice(2 * band, 2 * band + 2)
        document[pair] = first[pair]
    found = cluster(np.stack([first, *between, last]))
    assert found.tolist() == [*range(33), 0]


def test_different_texts_stay_apart(make_text):
    sketches = np.stack([sketch(make_text(seed)) for seed in range(200)])
    assert cluster(sketches).tolist() == list(range(200))


def test_a_text_without_any_window_has_a_sketch():
    assert (sketch("") == sketch(" \n")).all()
    assert (sketch("a") != sketch("b")).any()
