"""Warm-up and cosine."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourospec.optim.config import OptimConfig
from ourospec.optim.schedule import learning_rate, phase


def test_the_shape_by_hand() -> None:
    config = OptimConfig(lr=0.1, final_lr_fraction=0.2, warmup_fraction=0.4)
    rates = [learning_rate(step, config, 10) for step in range(10)]
    assert rates[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert rates[4] == pytest.approx(0.1)
    middle = 0.1 * (0.2 + 0.8 * (1 + math.cos(math.pi * 2 / 5)) / 2)
    assert rates[6] == pytest.approx(middle)
    assert rates[9] == pytest.approx(0.02)


def test_steps_past_the_end_keep_the_last_rate() -> None:
    config = OptimConfig(lr=0.1, final_lr_fraction=0.3)
    assert learning_rate(500, config, 100) == pytest.approx(0.03)


@given(
    total=st.integers(1, 400),
    warmup=st.floats(0, 1),
    floor=st.floats(0, 1),
)
def test_rises_then_falls_between_its_bounds(total: int, warmup: float, floor: float) -> None:
    config = OptimConfig(lr=0.1, final_lr_fraction=floor, warmup_fraction=warmup)
    rates = [learning_rate(step, config, total) for step in range(total)]
    peak = rates.index(max(rates))
    assert rates[0] > 0
    assert all(a <= b for a, b in pairwise(rates[: peak + 1]))
    assert all(a >= b for a, b in pairwise(rates[peak:]))
    assert max(rates) <= 0.1 * (1 + 1e-12)
    assert max(rates) == pytest.approx(0.1)


def test_phases_by_hand() -> None:
    config = OptimConfig(warmup_fraction=0.4)
    assert [phase(step, config, 5) for step in range(6)] == ["warmup"] * 2 + ["cosine"] * 3 + ["done"]


@given(total=st.integers(1, 400), warmup=st.floats(0, 1))
def test_the_phase_says_whether_the_rate_rises(total: int, warmup: float) -> None:
    config = OptimConfig(lr=0.1, final_lr_fraction=0.1, warmup_fraction=warmup)
    rates = [learning_rate(step, config, total) for step in range(total + 2)]
    for step in range(1, total + 2):
        # More than rounding: at the top the two rules agree up to the last digit.
        rises = rates[step] > rates[step - 1] * (1 + 1e-9)
        assert rises == (phase(step, config, total) == "warmup")
