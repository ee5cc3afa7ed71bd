"""What was once wrong in the market and the pass loop."""

from __future__ import annotations

import pytest
import torch

from ourospec.contracts import Clock, Effort, Rehearsal
from ourospec.families.adaptive_lm.credit import CouponConfig, ExplorationConfig, GainConfig, NoCreditConfig
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
