"""Passes that are rationed: every layer runs the target, wherever its gates stand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ourospec.contracts import Clock
from ourospec.errors import ConfigError
from ourospec.families.adaptive_lm.credit import CouponConfig, GainConfig, NoCreditConfig
from ourospec.families.adaptive_lm.economy import DualAscentConfig, QuotaConfig
from ourospec.families.adaptive_lm.objective import DepthObjective
from ourospec.families.adaptive_lm.presets import tiny
from ourospec.families.adaptive_lm.readings import quota_distances
from ourospec.families.adaptive_lm.recipe import AdaptiveRecipe
from ourospec.families.adaptive_lm.schedule import Schedule
from ourospec.nn.layer_trace import LayerTrace

from .small import LAYERS, make, text

RATIONED = {"credit": NoCreditConfig(), "price": QuotaConfig(target=1.4)}
SCHEDULE = Schedule(unit="steps", forced_until=2, price_from=2, ceiling_until=2, audit_share=0.0)


def trace_of(bids: torch.Tensor) -> LayerTrace:
    """A layer whose gates [K − 1, B, T] said this; a token that left was asked no further."""
    p, asked = bids.sigmoid(), torch.ones_like(bids[0], dtype=torch.bool)
    gates = []
    for each in p:
        gates.append(each * asked)
        asked = asked & (each >= 0.5)
    return LayerTrace(bids[0], bids[0], (bids[0],), tuple(gates), tuple(bids))


def claims(bids: torch.Tensor, shift: float, threshold: float) -> float:
    """Mean passes that tokens ask for when their logits fall by so much, token by token."""
    total = 0.0
    for token in bids.flatten(1).T.tolist():
        survival, passes = 1.0, 1
        for index, bid in enumerate(token):
            # Behind a gate that said no nobody was asked.
            known = all(earlier >= 0 for earlier in token[:index])
            survival *= 1 / (1 + math.exp(shift - bid)) if known else 0.0
            passes += survival >= threshold
        total += passes
    return total / bids[0].numel()


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    gates=st.integers(1, 3),
    mean=st.floats(-6, 6),
    share=st.floats(0.1, 0.9),
    threshold=st.floats(0.1, 0.6),
)
def test_the_distance_leads_to_the_target(seed, gates, mean, share, threshold):
    torch.manual_seed(seed)
    bids = mean + 2 * torch.randn(gates, 4, 50, dtype=torch.float64)
    # What can be reached: of those who left nobody knows more.
    most = claims(bids, -16.0, threshold)
    target = 1 + share * (most - 1)
    distance = quota_distances((trace_of(bids), trace_of(bids + 3)), target, threshold)
    near = 16 / 2**12 * 2
    assert (
        claims(bids, float(distance[0]) + near, threshold)
        <= target
        <= claims(bids, float(distance[0]) - near, threshold)
    )


def test_a_layer_that_ended_early_hides_no_gate_of_another():
    short, deep = torch.full((1, 4, 50), -3.0), torch.full((2, 4, 50), 3.0)
    distances = quota_distances((trace_of(short), trace_of(deep)), 2.5, 0.5)
    alone = quota_distances((trace_of(deep),), 2.5, 0.5)
    # Two gates of 3 let half a pass more than 2 through where their product is a half; one alone never could.
    assert float(distances[1]) == pytest.approx(float(alone[0]))
    assert 0 < float(distances[1]) < 3


@pytest.mark.parametrize("bias", [-6.0, 0.3, 6.0], ids=["shut", "undecided", "open"])
def test_every_layer_is_brought_to_the_target(bias):
    """The weights stand still; only the zero points move. One layer's gates begin elsewhere than the other's."""
    model, objective = make(**RATIONED, schedule=SCHEDULE, max_passes=2, gate_bias=bias)
    with torch.no_grad():
        model.layers[1].gate.output.bias += 1.0
    wanted = []
    for step in range(80):
        clock = Clock(step, 80)
        found = objective(model, text(step, rows=8), None, clock)
        said = {name: (mean.total / mean.weight).tolist() for name, mean in found.metrics.items()}
        read = objective.update(said, Clock(step + 1, 80))
        wanted.append(said["layer_wanted"])
    late = torch.tensor(wanted[-30:]).mean(0)
    assert late.tolist() == pytest.approx([1.4] * LAYERS, abs=0.03)
    first, second = read["layer_zero_point"]
    assert read["price"] is None and second - first == pytest.approx(4.0, abs=1.5), "a bias counts four times"


def test_the_zero_points_are_in_the_model():
    """What they were set to in training is what the gates say afterwards."""
    model, objective = make(**RATIONED, max_passes=2)
    objective.load_state_dict({"zero_points": [0.5, -1.0]})
    objective(model, text(0), None, Clock(0, 10))
    assert [float(layer.gate.zero_point) for layer in model.layers] == [0.5, -1.0]
    assert objective.state_dict() == {"zero_points": [0.5, -1.0]}
    shifted = model(text(1).tokens).trace
    model.set_zero_points([0.0, 0.0])
    plain = model(text(1).tokens).trace
    torch.testing.assert_close(plain[0].bids[0] - 0.5, shifted[0].bids[0], rtol=0, atol=1e-12)


def test_a_student_begins_with_its_teachers_zero_points():
    market = make(**RATIONED)[1].market
    market.inherit({"zero_points": [0.5, -1.0]})
    assert market.zero_points == [0.5, -1.0]
    market.inherit({"price": 0.3})
    assert market.zero_points == [0.5, -1.0], "whose teacher paid a price has no others to begin with"


def test_there_is_no_price_to_set():
    objective = make(**RATIONED)[1]
    with pytest.raises(ConfigError, match="rationed, not priced"):
        objective.set_price(0.1)


@pytest.mark.parametrize("credit", [GainConfig(), CouponConfig()], ids=["gain", "coupon"])
def test_only_gates_that_learn_from_the_loss_are_rationed(credit):
    depth = {"weight": "survival" if credit.kind == "coupon" else "full"}
    recipe = tiny()
    model = recipe.model.model_copy(update={"depth": recipe.model.depth.model_copy(update=depth)})
    objective = DepthObjective(price=QuotaConfig(), credit=credit)
    with pytest.raises(ValidationError, match=r"set objective\.credit none"):
        AdaptiveRecipe(name="x", model=model, objective=objective)
    AdaptiveRecipe(name="x", model=model, objective=DepthObjective(price=DualAscentConfig(), credit=credit))
