"""Deep supervision: rows that think on from one optimiser step to the next."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from pydantic import ValidationError

from ourospec.contracts import Clock, Effort
from ourospec.device import DevicePolicy
from ourospec.families import PRESETS
from ourospec.families.recursive_lm.carry import hand_on, take_up
from ourospec.families.recursive_lm.halting import HaltingConfig
from ourospec.families.recursive_lm.networks import Thought
from ourospec.families.recursive_lm.objective import RecursiveObjective, RecursiveObjectiveConfig
from ourospec.families.recursive_lm.recipe import RecursiveRecipe
from ourospec.families.recursive_lm.recursion import Start
from ourospec.train.step import accumulate

from .small import NETWORKS, STEPS, batch, make, text

PLAIN = DevicePolicy(torch.device("cpu"), None, False)


def thought(rows: int, length: int, value: float) -> Thought:
    return Thought(torch.full((rows, length, 4), value), torch.full((rows, length, 4), -value))


def test_only_rows_that_are_done_make_room():
    first, second = batch(3, 6, 0), batch(3, 6, 9)
    segment = take_up(first, None)
    assert segment.thought is None and segment.fresh.all()
    asked = first.targets >= 0
    halted = asked.clone()
    halted[1] = False  # row 1 is not done; what nobody asks of rows 0 and 2 does not matter
    carry = hand_on(segment, thought(3, 6, 1.0), halted, segments=3)
    assert carry["done"].tolist() == [True, False, True]
    again = take_up(second, carry)
    assert torch.equal(again.tokens[1], first.tokens[1]) and torch.equal(again.targets[1], first.targets[1])
    assert torch.equal(again.tokens[[0, 2]], second.tokens[[0, 2]])
    assert again.number.tolist() == [0, 1, 0] and again.fresh.tolist() == [True, False, True]
    assert again.num_targets == int((again.targets >= 0).sum())


def test_a_row_is_let_go_after_so_many_segments():
    rows = batch(2, 6, 0)
    carry, none = None, torch.zeros_like(rows.targets, dtype=torch.bool)
    for done in (False, False, True):
        carry = hand_on(take_up(rows, carry), thought(2, 6, 1.0), none, segments=3)
        assert carry["done"].tolist() == [done, done]
    assert take_up(rows, carry).number.tolist() == [0, 0]


def test_documents_come_along_where_only_one_side_has_them():
    plain, packed = batch(2, 6, 0), replace(batch(2, 6, 1), documents=torch.tensor([[0, 0, 1, 1, 2, 2]] * 2))
    carry = hand_on(take_up(plain, None), thought(2, 6, 1.0), torch.zeros(2, 6, dtype=torch.bool), 9)
    carry["done"] = torch.tensor([True, False])
    taken = take_up(packed, carry).documents
    assert taken.tolist() == [[0, 0, 1, 1, 2, 2], [0] * 6]
    with pytest.raises(ValueError, match="were carried"):
        take_up(batch(2, 7, 0), carry)


@pytest.mark.parametrize("networks", NETWORKS)
def test_going_on_is_thinking_longer(networks):
    """Two calls of two steps are one of four where keys do not look back on steps; rows begin anew where fresh."""
    model, tokens = make(networks, "delta", steps=4), text(2, 9, 0)
    with torch.no_grad():
        half = model(tokens, effort=Effort(forced_passes=2))
        whole = model(tokens, effort=Effort(forced_passes=4))
        start = Start(half.trace.thought, torch.tensor([False, True]))
        rest = model(tokens, effort=Effort(forced_passes=2), start=start)
    torch.testing.assert_close(rest.states[0], whole.states[0])
    torch.testing.assert_close(rest.states[1], half.states[1])


def test_gradients_are_divided_by_the_targets_that_were_learned_from():
    model = make().train()
    settings = RecursiveObjectiveConfig(segments=4, gate_entropy=0.0, halting=HaltingConfig(weight=0.0))
    objective = RecursiveObjective(settings, model.config.recursion)
    large, small = batch(2, 12, 0, asked=1.0), batch(2, 12, 1, asked=0.2)
    carry = accumulate(model, objective, [large], None, Clock(0, 9), PLAIN).carry
    carry["done"] = torch.tensor([False, False])
    model.zero_grad()
    totals = accumulate(model, objective, [small], carry, Clock(1, 9), PLAIN)
    assert totals.num_targets == 24 != small.num_targets
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    step = objective(model, small, carry, Clock(1, 9))
    (step.loss_sum / 24).backward()
    for gradient, parameter in zip(found, model.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)


def test_a_call_in_practice_lets_tokens_halt_and_teaches_no_head():
    model = make().train()
    objective = RecursiveObjective(
        RecursiveObjectiveConfig(halting=HaltingConfig(starts=0.5, practice=0.5)), model.config.recursion
    )
    efforts = [objective.training_effort(Clock(step, 10)) for step in range(10)]
    every = Effort(forced_passes=STEPS)
    assert efforts[:5] == [every] * 5 and efforts[5:].count(None) in (2, 3)
    assert objective.effort(Clock(4, 10)) == every and objective.effort(Clock(5, 10)) is None
    practice = efforts.index(None)
    step = objective(model, batch(3, 12, 0), None, Clock(practice, 10))
    assert "halting_loss" not in step.metrics
    assert float(step.metrics["mean_passes"].total / step.metrics["mean_passes"].weight) < STEPS
    assert len(step.metrics["step_loss"].total) == STEPS


def test_weights_of_steps_have_to_be_as_many_as_answers():
    recipe = PRESETS["recursive_lm/smoke"]()
    with pytest.raises(ValidationError, match="needs 4 numbers"):
        RecursiveRecipe.model_validate(
            {**dict(recipe), "objective": RecursiveObjectiveConfig(step_weights=(1.0, 1.0))}
        )


def test_a_readout_is_refused_in_words():
    with pytest.raises(Exception, match="halts by its own head"):
        make()(text(1, 4, 0), effort=Effort(readout="update"))
