"""The global generators."""

import random

import numpy as np
import pytest
import torch

from ourospec.train.rng import generator_states, restore_generators, seed_generators, undisturbed


def draw() -> tuple[float, float, float]:
    # The normal draw leaves NumPy with a second one in store, which is part of its state.
    return random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))


@pytest.fixture(autouse=True)
def leave_no_trace():
    with undisturbed():
        yield


def test_a_seed_decides_all_generators() -> None:
    seed_generators(3)
    first = draw()
    draw()
    seed_generators(3)
    assert draw() == first
    seed_generators(4)
    assert all(a != b for a, b in zip(draw(), first, strict=True))


def test_states_bring_every_generator_back() -> None:
    draw()
    states = generator_states()
    expected = [draw(), draw(), draw()]
    restore_generators(states)
    assert [draw(), draw(), draw()] == expected


def test_what_is_drawn_inside_leaves_no_trace_even_on_failure() -> None:
    seed_generators(1)
    expected = draw()
    seed_generators(1)
    with pytest.raises(ZeroDivisionError), undisturbed():
        draw()
        raise ZeroDivisionError
    assert draw() == expected
