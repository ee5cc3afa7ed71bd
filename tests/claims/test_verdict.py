"""The one sentence that may say "better", and everything that forbids it."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.claims.config import Statement
from ourospec.claims.verdict import Rival, Verdict, question
from ourospec.measure.significance import Comparison

STATEMENT = Statement(
    better="new", than=("old",), by=0.01, axes=("executed_flops", "parameters"), tolerance=0.02
)


def compared(difference=0.02, p=0.001, seeds=5):
    return Comparison(
        difference, difference - 0.005, difference + 0.005, 0.99, p, (difference,) * seeds, seeds, 40
    )


def verdict(comparison=None, flops=(100.0, 100.0), parameters=(10, 10), **others):
    costs = {"executed_flops": flops, "parameters": parameters}
    rivals = (Rival("old", comparison or compared(), costs),)
    return Verdict(STATEMENT, **({"rivals": rivals, "leaks": ()} | others))


def test_a_claim_that_everything_speaks_for_is_shown():
    shown = verdict()
    assert shown.shown
    assert shown.sentence == (
        "new is better than old by 0.0200 nats per token (p = 0.001; 99% interval 0.0150 to 0.0250; 5 seeds, 40 "
        "documents) at 1.000 of its executed FLOPs, 1.000 of its parameters."
    )


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (verdict(compared(p=0.02)), "not significant"),
        (verdict(compared(p=math.nan, seeds=1)), "allow no test"),
        (verdict(compared(difference=0.009)), "0.01 are claimed"),
        (verdict(compared(difference=-0.05)), "-0.0500 nats per token"),
        (verdict(flops=(103.0, 100.0)), "1.030 times the executed FLOPs"),
        (verdict(flops=(None, 100.0)), "were not measured"),
        (verdict(flops=(100.0, None)), "were not measured"),
        (verdict(parameters=(11, 10)), "1.100 times the parameters"),
        (verdict(leaks=("new, seed 0: a changed suffix leaves the prefix alone",)), "a leak test failed"),
        (verdict(rivals=()), "nothing to compare"),
        (verdict(obstacles=("a quick run",)), "a quick run"),
    ],
)
def test_each_of_these_alone_forbids_it(found, reason):
    assert not found.shown
    assert found.sentence.startswith("Not shown: ") and reason in found.sentence
    assert "better" not in found.sentence


def test_less_of_a_cost_than_the_rival_is_no_obstacle():
    assert verdict(flops=(60.0, 100.0)).shown
    assert verdict(flops=(101.9, 100.0)).shown


def test_one_rival_that_it_is_not_shown_against_is_enough():
    costs = {"executed_flops": (1.0, 1.0), "parameters": (1.0, 1.0)}
    both = (Rival("old", compared(), costs), Rival("older", compared(p=0.5), costs))
    assert not verdict(rivals=both).shown
    assert "older" in verdict(rivals=both).sentence


numbers = st.floats(-1, 1) | st.just(math.nan)


@settings(max_examples=200, deadline=None)
@given(numbers, st.floats(0, 1) | st.just(math.nan), st.floats(1, 200), st.floats(1, 200), st.booleans())
def test_no_better_without_significance_size_and_equal_cost(difference, p, ours, theirs, leak):
    found = verdict(compared(difference, p), flops=(ours, theirs), leaks=("leak",) if leak else ())
    may = p < 0.01 and difference >= 0.01 and ours / theirs <= 1.02 and not leak
    assert found.shown == may
    assert ("better" in found.sentence) == may


def test_the_question_gives_no_answer():
    assert "better" not in question(STATEMENT)
    assert "at least 0.01 nats" in question(STATEMENT)
