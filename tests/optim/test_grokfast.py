"""Grokfast: the slow part is amplified as promised, and nothing is ever reduced."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch import nn

from ourospec.optim.config import GrokfastConfig
from ourospec.optim.grokfast import Grokfast


def filtered(signal: list[float], decay: float, strength: float) -> list[float]:
    """What becomes of a gradient of one number."""
    parameter, grokfast = nn.Parameter(torch.zeros((), dtype=torch.float64)), None
    grokfast = Grokfast(GrokfastConfig(decay=decay, strength=strength))
    found = []
    for value in signal:
        parameter.grad = torch.tensor(value, dtype=torch.float64)
        grokfast.amplify([parameter])
        found.append(float(parameter.grad))
    return found


def test_follows_the_recurrence_from_the_first_gradient() -> None:
    signal, mean = [0.5, -1.0, 2.0, 0.25], 0.5
    expected = []
    for g in signal:
        mean = 0.9 * mean + 0.1 * g
        expected.append(g + 3.0 * mean)
    assert filtered(signal, 0.9, 3.0) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("strength", [0.02, 0.3, 2.0])
def test_what_stays_is_amplified_by_one_plus_strength(strength: float) -> None:
    assert filtered([0.7] * 5, 0.98, strength) == pytest.approx([0.7 * (1 + strength)] * 5)


@pytest.mark.parametrize("decay", [0.5, 0.98])
@pytest.mark.parametrize("period", [2, 3, 10, 100, 1000])
def test_no_frequency_is_reduced_and_slower_ones_gain_more(period: int, decay: float) -> None:
    omega, strength = 2 * math.pi / period, 2.0
    long = 4000 // period * period
    settled = filtered([math.cos(omega * t) for t in range(2 * long)], decay, strength)[long:]
    gain = (
        abs(sum(x * cmath.exp(-1j * omega * t) for t, x in enumerate(settled)))
        * (1 if period == 2 else 2)
        / long
    )
    expected = abs(1 + strength * (1 - decay) / (1 - decay * cmath.exp(-1j * omega)))
    assert gain == pytest.approx(expected, rel=1e-6)
    slower = abs(1 + strength * (1 - decay) / (1 - decay * cmath.exp(-0.5j * omega)))
    assert 1.0 < gain < slower <= 1 + strength


def test_without_strength_gradients_stay_as_they_are() -> None:
    signal = [0.1, -0.7, 0.3]
    assert filtered(signal, 0.98, 0.0) == signal


def test_each_parameter_has_a_mean_of_its_own_from_when_it_is_first_met() -> None:
    one, two = (nn.Parameter(torch.zeros(2)) for _ in range(2))
    grokfast = Grokfast(GrokfastConfig(decay=0.5, strength=1.0))
    one.grad = torch.tensor([1.0, 0.0])
    grokfast.amplify([one, two])
    assert two not in grokfast.means
    one.grad, two.grad = torch.tensor([0.0, 0.0]), torch.tensor([0.0, 4.0])
    grokfast.amplify([one, two])
    assert one.grad.tolist() == [0.5, 0.0]
    assert two.grad.tolist() == [0.0, 8.0]
