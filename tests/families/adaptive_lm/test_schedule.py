"""The phases of a run: when passes are forced, when they have a price, which steps are audits."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ourospec.contracts import Clock, Effort
from ourospec.families.adaptive_lm.schedule import Schedule

LAYERS, PASSES = 3, 4
IN_STEPS = Schedule(unit="steps", forced_until=30, price_from=50, ceiling_until=70, audit_share=0.1)


def clocks(total: int) -> list[Clock]:
    return [Clock(step, total) for step in range(total)]


def phase(schedule: Schedule, clock: Clock) -> tuple[bool, bool, bool]:
    """Forced, priced, under the ceiling."""
    ceiling = schedule.rehearsal(clock, LAYERS, 0).ceiling
    return schedule.forced(clock), schedule.priced(clock), ceiling < 1


def test_phases_counted_in_steps_begin_at_their_step_whatever_the_length_of_the_run():
    for total in (100, 1_000):
        for clock in clocks(total):
            wanted = clock.step < 30, clock.step >= 50, clock.step < 70
            assert phase(IN_STEPS, clock) == wanted, clock


@pytest.mark.parametrize("total", [10, 200])
def test_phases_counted_in_fractions_scale_with_the_run(total):
    schedule = Schedule(forced_until=0.3, price_from=0.5, ceiling_until=0.7)
    for clock in clocks(total):
        share = clock.step / total
        assert phase(schedule, clock) == (share < 0.3, share >= 0.5, share < 0.7), clock


def test_what_a_step_is_follows_from_its_phase():
    kinds = [IN_STEPS.kind(clock, LAYERS) for clock in clocks(150)]
    assert kinds[:30] == ["forced"] * 30
    assert kinds[30:50] == ["policy"] * 20, "no audit before the price"
    assert set(kinds[50:]) == {"policy", "audit"}
    for clock, kind in zip(clocks(150), kinds, strict=True):
        forcing = IN_STEPS.forcing(clock, PASSES)
        assert forcing == (Effort(forced_passes=2) if kind == "forced" else None)
        assert (IN_STEPS.audited_layer(clock, LAYERS) is not None) == (kind == "audit")


def test_a_warm_up_of_the_whole_run_never_ends():
    schedule = Schedule(forced_until=1)
    for clock in [*clocks(20), Clock(20, 20)]:
        assert schedule.kind(clock, LAYERS) == "forced"
        assert not schedule.priced(clock)


def test_no_warm_up():
    schedule = Schedule(forced_passes=0, forced_until=0, price_from=0)
    assert schedule.forcing(Clock(0, 10), PASSES) is None
    assert schedule.priced(Clock(0, 10))
    # The end of a warm-up that there is not holds nothing up.
    early = Schedule(forced_passes=0, forced_until=0.3, price_from=0.1)
    assert [early.priced(Clock(step, 10)) for step in (0, 1)] == [False, True]


def test_no_more_passes_are_forced_than_there_are():
    schedule = Schedule(forced_passes=3)
    assert [schedule.forcing(Clock(0, 10), most).forced_passes for most in (1, 2, 3, 4)] == [1, 2, 3, 3]


def test_hard_kill_is_one_pass_from_the_first_step_to_the_last():
    schedule = IN_STEPS.model_copy(update={"hard_kill": True})
    for clock in clocks(150):
        assert schedule.forcing(clock, PASSES) == Effort(forced_passes=1)
        assert schedule.kind(clock, LAYERS) == "forced"
        assert not schedule.priced(clock)
        assert schedule.audited_layer(clock, LAYERS) is None


@settings(deadline=None, max_examples=30)
@given(st.sampled_from([0.5, 0.25, 0.2, 0.1, 0.05, 0.02]), st.integers(1, 7))
def test_one_step_in_each_block_is_an_audit_and_the_layers_take_turns(share, layers):
    schedule = Schedule(unit="steps", forced_until=0, forced_passes=0, price_from=0, audit_share=share)
    length, blocks = round(1 / share), 30
    audits = [
        (clock.step, layer)
        for clock in clocks(length * blocks)
        if (layer := schedule.audited_layer(clock, layers)) is not None
    ]
    assert [step // length for step, _ in audits] == list(range(blocks)), "one in each block"
    assert [layer for _, layer in audits] == [block % layers for block in range(blocks)]
    if length > 2:
        assert len({step % length for step, _ in audits}) > 1, "not always at the same place"


def test_audits_begin_with_the_price_and_keep_their_share():
    audits = [c.step for c in clocks(1_000) if IN_STEPS.kind(c, LAYERS) == "audit"]
    assert min(audits) >= 50
    # price_from is the end of a block here, so that every block is a whole one.
    assert len(audits) == (1_000 - 50) * 0.1
    assert not any(
        Schedule(audit_share=0, forced_until=0, price_from=0).audited_layer(c, LAYERS) for c in clocks(99)
    )


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 999), st.integers(0, 5))
def test_a_step_is_what_it_is_whoever_asks_and_whenever(step, watched):
    """A pure function of the step: a resumed run, with objects of its own, sees the same."""
    fresh = Schedule.model_validate_json(IN_STEPS.model_dump_json())
    clock = Clock(step, 1_000)
    for other in (Clock(step, 1_000), Clock(step, 77_000)):  # nor does the length of the run matter, in steps
        assert fresh.audited_layer(other, LAYERS) == IN_STEPS.audited_layer(clock, LAYERS)
        assert fresh.rehearsal(other, LAYERS, watched) == IN_STEPS.rehearsal(clock, LAYERS, watched)


def test_a_rehearsal_says_what_training_does_besides():
    schedule = IN_STEPS.model_copy(update={"floor": 0.02, "ceiling": 0.9, "exploration": 0.3})
    early = schedule.rehearsal(Clock(40, 1_000), LAYERS, 5)
    assert (early.floor, early.ceiling, early.exploration, early.watched_rows) == (0.02, 0.9, 0.3, 5)
    assert not early.audited and early.audited_layer is None
    audit = next(c for c in clocks(1_000) if schedule.kind(c, LAYERS) == "audit")
    rehearsal = schedule.rehearsal(audit, LAYERS, 0)
    assert rehearsal.exploration == 0, "an audit is to be told from what exploration adds"
    assert rehearsal.audited_layer == schedule.audited_layer(audit, LAYERS)
    # It is the model that tells the layers which of them is meant.
    told = [Effort(training=rehearsal).in_layer(i).training.audited for i in range(LAYERS)]
    assert told == [i == rehearsal.audited_layer for i in range(LAYERS)]


def test_the_threshold_moves_in_a_line_to_that_of_the_model():
    schedule = Schedule(unit="steps", forced_until=10, price_from=10, first_threshold=0.1, threshold_until=50)
    values = [schedule.threshold(clock, 0.5) for clock in clocks(60)]
    assert values[50:] == [None] * 10, "arrived: the model's own"
    assert values[:11] == [0.1] * 11, "nobody decides in the warm-up"
    for step in range(10, 50):
        assert values[step] == pytest.approx(0.1 + 0.4 * (step - 10) / 40)
    assert all(a < b for a, b in itertools.pairwise(values[10:50]))
    assert Schedule().threshold(Clock(0, 10), 0.5) is None, "nothing moves unless it is asked to"


def test_the_threshold_moves_from_the_start_where_there_is_no_warm_up():
    schedule = Schedule(forced_passes=0, forced_until=0.5, price_from=0.5, threshold_until=1)
    assert schedule.threshold(Clock(5, 10), 0.4) == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forced_until": 0.4, "price_from": 0.3}, r"price_from \(0.3\) lies before forced_until \(0.4\)"),
        ({"unit": "steps", "forced_until": 40, "price_from": 30}, r"price_from \(30\) lies before"),
        ({"forced_until": 0.2, "price_from": 30}, "price_from is beyond the end of the run; set unit steps"),
        ({"forced_until": 30, "price_from": 50}, "forced_until is beyond the end of the run"),
        ({"unit": "steps", "forced_until": 1, "price_from": 0}, r"price_from \(0\) lies before"),
        ({"audit_share": 0.6}, "audit_share"),
        ({"floor": 1.0}, "floor"),
        ({"ceiling": 0.0}, "ceiling"),
        ({"exploration": 1.0}, "exploration"),
        ({"forced_passes": -1}, "forced_passes"),
        ({"unit": "epochs"}, "unit"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        Schedule(**settings)
