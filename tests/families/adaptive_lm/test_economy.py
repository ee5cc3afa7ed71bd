"""The market for passes, against plants that we know: it holds its target, rests when it should, forgets nothing."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ourospec.families.adaptive_lm.economy import (
    ConstantPriceConfig,
    DualAscentConfig,
    LegacyConfig,
    open_market,
)

WIDE = {"floor": -10.0, "ceiling": 10.0}


def dual(**settings) -> DualAscentConfig:
    return DualAscentConfig(**{"target": 1.5, **settings})


def plant(price: float, slope: float, base: float = 2.4, most: float = 3.0) -> float:
    """The depth that a price buys: the dearer, the less, between one pass and all."""
    return min(max(base - slope * price, 1.0), most)


def simulate(
    market, steps: int, slope: float, noise: float = 0.0, lag: int = 0, scale: float = 1.0, base=2.4
):
    """Prices and depths of a run in which the depth answers the price of `lag` steps ago."""
    chance = random.Random(7)
    prices, depths = [market.price], []
    for step in range(steps):
        heard = prices[max(step - lag, 0)]
        depths.append(plant(heard, slope, base) + chance.gauss(0, noise))
        market.update(depths[-1], scale)
        prices.append(market.price)
    return prices, depths


@settings(deadline=None, max_examples=40)
@given(
    target=st.floats(1.1, 2.2),
    slope=st.floats(0.5, 5.0),
    noise=st.floats(0.0, 0.05),
    lag=st.integers(0, 2),
    start=st.floats(-0.3, 0.3),
)
def test_the_target_is_held_whatever_the_plant(target, slope, noise, lag, start):
    """As long as rate x scale x slope x lag is small, which the scale of the credit is there for."""
    config = dual(target=target, start=start, rate=0.15, patience=20, **WIDE)
    _, depths = simulate(open_market(config), 600, slope, noise, lag, scale=1 / slope)
    late = sum(depths[-100:]) / 100
    assert late == pytest.approx(target, rel=0.05)


def test_the_price_rises_while_passes_are_too_many_and_falls_while_they_are_too_few():
    for depth, sign in ((2.0, 1), (1.0, -1)):
        market = open_market(dual(**WIDE, rate=0.1))
        market.update(depth, 0.5)
        assert market.price == pytest.approx(sign * 0.1 * 0.5 * 0.5)


@given(st.floats(1.0, 3.0), st.floats(-0.2, 0.2), st.floats(0.1, 50.0))
def test_the_price_stays_between_floor_and_ceiling(depth, start, scale):
    market = open_market(dual(floor=-0.2, ceiling=0.2, start=start, rate=3.0))
    for _ in range(5):
        market.update(depth, scale)
        assert -0.2 <= market.price <= 0.2


def test_it_comes_back_from_a_bound_at_once():
    """Nothing winds up behind the bound: the first step on the other side moves the price."""
    market = open_market(dual(floor=0.0, ceiling=0.1, rate=0.1))
    for _ in range(50):
        market.update(3.0, 1.0)
    assert market.price == 0.1
    market.update(1.4, 1.0)
    assert market.price < 0.1


def engaged(**settings):
    """A market in its deadband, at the target."""
    market = open_market(dual(**{**WIDE, "patience": 3, "smoothing": 0.0, "tolerance": 0.1, **settings}))
    for _ in range(3):
        market.update(1.5, 1.0)
    assert market.deadband
    return market


@pytest.mark.parametrize("patience", [1, 2, 7])
def test_the_deadband_engages_after_so_many_steps_in_a_row(patience):
    market = open_market(dual(patience=patience, smoothing=0.0, tolerance=0.1))
    for _ in range(patience - 1):
        market.update(1.5, 1.0)
    assert not market.deadband
    market.update(2.0, 1.0)  # out of the tolerance: the count begins anew
    for n in range(1, patience + 1):
        assert not market.deadband
        assert market.deadband_steps == 0
        market.update(1.5 * 1.09, 1.0)
        assert market.deadband == (n == patience)
    for n in range(1, 4):
        market.update(1.5, 1.0)
        assert market.deadband_steps == n


def test_it_is_the_smoothed_error_that_is_judged():
    """Noise that averages out does not keep the deadband from engaging; a lasting error does."""
    market = open_market(dual(patience=10, smoothing=0.95, tolerance=0.05, rate=1e-9))
    for step in range(200):
        market.update(1.5 * (1.2 if step % 2 else 0.8), 1.0)
    assert market.deadband
    market = open_market(dual(patience=10, smoothing=0.95, tolerance=0.05, rate=1e-9))
    for _ in range(200):
        market.update(1.5 * 1.06, 1.0)
    assert not market.deadband


@pytest.mark.parametrize(
    ("relative", "by"),
    [
        (0.981, 0.0),
        (1.0, 0.0),
        (1.049, 0.0),
        (1.06, 1.5 * (1.06 - 1.05)),
        (1.09, 1.5 * (1.09 - 1.05)),
        (0.97, 1.5 * (0.97 - 0.98)),
        (0.91, 1.5 * (0.91 - 0.98)),
    ],
)
def test_within_the_band_the_price_rests_and_outside_it_moves_at_half_the_rate(relative, by):
    market = engaged(rate=0.2)
    before = market.price
    market.update(1.5 * relative, 3.0)
    assert market.price - before == pytest.approx(0.2 / 2 * 3.0 * by, abs=1e-12)
    assert (market.price == before) == (by == 0.0)


def test_the_deadband_is_released_beyond_one_and_a_half_tolerances():
    market = engaged(tolerance=0.1)
    market.update(1.5 * 1.14, 1.0)
    assert market.deadband
    market.update(1.5 * 1.16, 1.0)
    assert (market.deadband, market.deadband_steps, market.within) == (False, 0, 0)
    before = market.price
    market.update(1.5 * 1.16, 1.0)
    assert market.price - before == pytest.approx(0.15 * 1.5 * 0.16), "the full rate again"


def test_a_disturbance_releases_it_and_the_target_is_found_again():
    market = open_market(dual(**WIDE))
    simulate(market, 400, slope=2.0, noise=0.005, scale=0.5)
    assert market.deadband
    resting = market.price
    _, depths = simulate(market, 400, slope=2.0, noise=0.005, scale=0.5, base=3.4)
    assert sum(depths[-50:]) / 50 == pytest.approx(1.5, rel=0.05)
    assert market.price > resting and market.deadband


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 80), st.sampled_from(["dual", "legacy", "constant"]))
def test_a_market_brought_back_from_a_checkpoint_goes_on_bit_for_bit(cut, kind):
    config = {
        "dual": dual(patience=5, tolerance=0.1),
        "legacy": LegacyConfig(rate=0.01, ceiling=0.02),
        "constant": ConstantPriceConfig(price=0.02),
    }[kind]
    depths = [1.5 + random.Random(n).gauss(0, 0.1) for n in range(120)]
    whole, before = open_market(config), open_market(config)
    for depth in depths:
        whole.update(depth, 0.3)
    for depth in depths[:cut]:
        before.update(depth, 0.3)
    after = open_market(config)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert after == before
    for depth in depths[cut:]:
        after.update(depth, 0.3)
    assert after == whole
    assert after.state_dict() == whole.state_dict()


def test_the_case_above_visits_the_deadband():
    market = open_market(dual(patience=5, tolerance=0.1))
    seen = []
    for n in range(80):
        market.update(1.5 + random.Random(n).gauss(0, 0.1), 0.3)
        seen.append(market.deadband)
    assert any(seen) and not all(seen)


def test_a_price_set_by_hand_is_held_to_the_bounds_and_finds_the_deadband_anew():
    market = engaged(floor=-0.1, ceiling=0.1)
    assert market.set(5.0) == market.price == 0.1
    assert (market.deadband, market.deadband_steps, market.within, market.error) == (False, 0, 0, None)
    assert market.set(-5.0) == -0.1
    assert open_market(ConstantPriceConfig()).set(0.3) == 0.3


def test_a_constant_price_stands_still():
    market = open_market(ConstantPriceConfig(price=0.03))
    for depth in (1.0, 3.0):
        market.update(depth, 1.0)
    assert market.price == 0.03 and market.target is None and not market.deadband


def legacy_by_the_letter(depths, config):
    """Ouro-Spec 1.0 as it was written down: price and latch, step by step."""
    price, high, latched = config.floor, 0, False
    for depth in depths:
        if not latched:
            price += config.rate * (depth - config.target)
        elif depth > 1.05 * config.target:
            price += config.rate / 2 * (depth - 1.05 * config.target)
        elif depth < 0.98 * config.target:
            price += config.rate / 2 * (depth - 0.98 * config.target)
        price = min(max(price, config.floor), config.ceiling)
        half = config.floor + 0.5 * (config.ceiling - config.floor)
        high = high + 1 if price >= half else max(high - 1, 0)
        latched = latched or high >= 100
        yield price, latched


def test_the_legacy_rules_are_literal():
    config = LegacyConfig(rate=5e-4, target=1.3)
    chance = random.Random(0)
    depths = [1.3 + chance.gauss(0.3 if n < 400 else -0.2, 0.2) for n in range(1_500)]
    market = open_market(config)
    assert market.uses_soft_depth and market.price == config.floor
    for depth, (price, latched) in zip(depths, legacy_by_the_letter(depths, config), strict=True):
        market.update(depth, scale=123.0)  # the legacy rate knows no scale
        assert market.price == pytest.approx(price, rel=1e-12)
        assert market.deadband == latched
    assert market.deadband


def test_the_legacy_latch_looks_at_the_price_and_never_lets_go():
    market = open_market(LegacyConfig(rate=1.0, target=1.3))
    for _ in range(200):
        market.update(1.3, 1.0)
    assert not market.deadband, "on target for 200 steps, and yet not engaged"
    for _ in range(100):
        assert not market.deadband
        market.update(2.6, 1.0)  # twice the target, price at its ceiling
    assert market.deadband
    for _ in range(500):
        market.update(1.0, 1.0)
    assert market.price == LegacyConfig().floor and market.deadband
    assert market.deadband_steps == 500


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": 1.0}, "floor <= start <= ceiling"),
        ({"floor": 0.1}, "floor <= start <= ceiling"),
        ({"target": 0.5}, "target"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"patience": 0}, "patience"),
        ({"rate": 0.0}, "rate"),
        ({"smoothing": 1.0}, "smoothing"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        DualAscentConfig(**settings)
