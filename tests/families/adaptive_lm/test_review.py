"""What was once wrong in the market and the pass loop."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ourospec.api import LoadedModel
from ourospec.contracts import Clock, Effort, Rehearsal
from ourospec.errors import ConfigError
from ourospec.families.adaptive_lm.credit import CouponConfig, ExplorationConfig, GainConfig, NoCreditConfig
from ourospec.families.adaptive_lm.economy import LegacyConfig
from ourospec.families.adaptive_lm.presets import smoke
from ourospec.families.adaptive_lm.recipe import AdaptiveRecipe
from ourospec.families.adaptive_lm.schedule import Schedule
from ourospec.nn.attention import Attention, AttentionConfig
from ourospec.nn.visibility import Visibility
from ourospec.train.step import accumulate, look

from .small import LAYERS, POLICY, SCHEDULE, gate_parameters, make, text

FORCED, AUDIT = Clock(0, 1_000), Clock(6, 1_000)


def one_step(model, objective, clock, rows: int = 4):
    """The event of a step; the gradients lie in the parameters."""
    model.zero_grad(set_to_none=True)
    batches = [text(0, rows), text(1, rows), text(2, rows)]
    totals = accumulate(model, objective, batches, None, clock, POLICY)
    reading = look(totals, [p.grad for p in model.parameters() if p.grad is not None])
    own = objective.update({"loss": reading.loss, **reading.metrics}, clock._replace(step=clock.step + 1))
    return {**reading.metrics, **own}


@pytest.mark.parametrize("credit", [CouponConfig(), ExplorationConfig(), NoCreditConfig(), GainConfig()])
def test_gates_are_taught_while_passes_are_forced(credit):
    """By the survival that leaving would have made of them; what is computed is a forced pass and no less."""
    model, objective = make(credit)
    assert one_step(model, objective, FORCED)["step_kind"] == "forced"
    for name, parameter in gate_parameters(model).items():
        if not name.endswith("pass_embedding"):  # that of the last pass is never asked
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    batch, forced = text(0), Effort(forced_passes=2)
    rehearsed = model(batch.tokens, batch.documents, effort=forced._replace(training=Rehearsal()))
    assert torch.equal(rehearsed.states, model(batch.tokens, batch.documents, effort=forced).states)
    assert all((s == 1).all() for trace in rehearsed.trace for s in trace.survival)


@pytest.mark.parametrize("halting", ["token", "batch"])
def test_an_audit_runs_one_pass_more_under_either_rule(halting):
    model, objective = make(CouponConfig(), halting=halting)
    event = one_step(model, objective, AUDIT)
    audited = SCHEDULE.audited_layer(AUDIT, LAYERS)
    assert event["step_kind"] == "audit" and event["delta_ce"] != 0
    for layer in range(LAYERS):
        more = event["passes_by_layer"][layer] - event["layer_wanted"][layer]
        assert more > 0.1 if layer == audited else more == pytest.approx(0, abs=1e-6)


def test_an_audit_is_compared_with_the_same_run_but_for_its_pass():
    """The ceiling holds gates down in the comparison, too: where there is no pass to spare nothing differs."""
    schedule = SCHEDULE.model_copy(update={"ceiling": 0.5, "ceiling_until": 1_000.0})
    model, objective = make(CouponConfig(), schedule=schedule, threshold=0.01, gate_bias=4.0)
    event = one_step(model, objective, AUDIT)
    assert event["step_kind"] == "audit" and event["wanted_passes"] == event["mean_passes"] == 4
    assert event["delta_ce"] == pytest.approx(0, abs=1e-9)
    assert event["delta_h"] == pytest.approx(0, abs=1e-9)


def test_a_warm_up_of_all_steps_never_ends():
    """Counted in steps as in fractions: gates that were never asked are not asked in use."""
    schedule = Schedule(unit="steps", forced_until=20, price_from=20)
    for total, kind in ((20, "forced"), (15, "forced"), (21, "policy")):
        assert schedule.kind(Clock(total, total), LAYERS) == kind


def recipe_of(objective: dict[str, Any], depth: dict[str, Any]) -> AdaptiveRecipe:
    """smoke with other settings, as the command line would read them."""
    settings = smoke().model_dump(mode="json")
    settings["objective"] = {**settings["objective"], **objective}
    settings["model"]["depth"] = {**settings["model"]["depth"], **depth}
    return AdaptiveRecipe.model_validate_json(json.dumps(settings))


COUPON = {"credit": {"kind": "coupon"}}


@pytest.mark.parametrize(
    ("objective", "depth", "message"),
    [
        ({"watched_share": 0.0}, {}, "needs rows to measure on"),
        ({**COUPON, "watched_share": 0.0}, {"weight": "survival"}, "needs rows to measure on"),
        ({"schedule": {"threshold_until": 0.5}}, {}, "has the price set the threshold"),
        ({}, {"halting": "batch"}, "updating the dead by their survival"),
        (COUPON, {}, "set model.depth.weight survival"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(objective, depth, message):
    with pytest.raises(ValidationError, match=message):
        recipe_of(objective, depth)
    assert recipe_of({}, {}) == smoke()


@pytest.mark.parametrize("bounds", [{"floor": 0.05, "ceiling": 0.05}, {"floor": 0.2, "ceiling": 0.1}])
def test_legacy_bounds_that_leave_no_room_are_refused(bounds):
    with pytest.raises(ValidationError, match="floor < ceiling"):
        LegacyConfig(**bounds)


@pytest.mark.parametrize("settings", [{"halting": "fixed"}, {"max_passes": 1}, {"schedule": "hard kill"}])
def test_a_price_that_nobody_pays_cannot_be_set(settings):
    if "schedule" in settings:
        settings = {"schedule": SCHEDULE.model_copy(update={"hard_kill": True})}
    _, objective = make(CouponConfig(), **settings)
    with pytest.raises(ConfigError, match="pays no price"):
        objective.set_price(0.02)


@pytest.mark.parametrize(("most", "forced"), [(1, 1), (2, 2), (3, 2)])
def test_a_limit_of_passes_does_not_set_gates_free_that_are_still_forced(most, forced):
    """A run stopped in its warm-up: the limit holds, and nobody asks the gates."""
    model, objective = make(CouponConfig())
    train = SimpleNamespace(steps=1_000)
    loaded = LoadedModel(
        model, None, SimpleNamespace(train=train), POLICY, None, SimpleNamespace(step=1), objective
    )  # pyright: ignore[reportArgumentType]
    chosen = loaded._effort(Effort(max_passes=most))
    assert chosen == Effort(forced_passes=forced, max_passes=most)
    batch = text(0)
    assert (model(batch.tokens, effort=chosen).passes == forced).all()
    for nonsense in (0, 9):
        with pytest.raises(ConfigError, match="runs 1 to 4"):
            model(batch.tokens, effort=loaded._effort(Effort(max_passes=nonsense)))


def test_attention_statistics_are_exact_under_autocast():
    """Their products are taken in float32 there, too: a difference of nearly equal numbers."""
    torch.manual_seed(0)
    attention = Attention(32, AttentionConfig(heads=4))
    x, visibility = torch.randn(2, 40, 32), Visibility(40, torch.device("cpu"))
    queries, kv = attention.project(x, visibility)
    plain = attention.statistics(queries, kv, visibility)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = attention.statistics(queries, kv, visibility)
    for one, other in zip(plain, under, strict=True):
        assert torch.equal(one, other)
