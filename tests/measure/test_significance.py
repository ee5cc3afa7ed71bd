"""The comparison of two sides: right numbers, and no more false alarms than it admits to."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.measure.significance import compare, student_p, student_quantile


def draw(generator, seeds=5, documents=30, effect=0.0, of_seed=0.01, of_document=0.02, noise=0.01):
    """Two sides whose difference varies with the seed, with the document, and with both."""
    tokens = generator.integers(50, 800, documents)
    common = generator.normal(3.5, 0.5, documents)
    change = (
        effect
        + generator.normal(0, of_seed, seeds)[:, None]
        + generator.normal(0, of_document, documents)
        + generator.normal(0, noise, (seeds, documents))
    )
    theirs = common * tokens + generator.normal(0, 3, (seeds, documents))
    return theirs - change * tokens, theirs, tokens


@pytest.mark.parametrize(
    ("t", "freedom", "p"),
    # Tables of Student's distribution, two-sided.
    [
        (2.776, 4, 0.05),
        (4.604, 4, 0.01),
        (8.610, 4, 0.001),
        (12.706, 1, 0.05),
        (1.984, 100, 0.05),
        (2.0, 1e5, 0.0455),
    ],
)
def test_student_is_that_of_the_tables(t, freedom, p):
    assert student_p(t, freedom) == pytest.approx(p, rel=2e-3)
    assert student_quantile(p, freedom) == pytest.approx(t, rel=1e-3)


def test_no_quantile_without_a_probability():
    with pytest.raises(ValueError, match="probability"):
        student_quantile(0.0, 4)


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10_000), st.integers(2, 6), st.integers(2, 20))
def test_swapping_the_sides_turns_everything_around(seed, seeds, documents):
    ours, theirs, tokens = draw(np.random.default_rng(seed), seeds, documents, effect=0.01)
    one, other = compare(ours, theirs, tokens, 0.95), compare(theirs, ours, tokens, 0.95)
    assert one.difference == pytest.approx(-other.difference)
    assert one.p == pytest.approx(other.p, rel=1e-6)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.low <= one.difference <= one.high
    assert one.difference == pytest.approx(np.mean((theirs - ours).sum(1) / tokens.sum()))


def test_no_more_false_alarms_than_it_admits_to():
    """Where nothing is different, p < 0.05 may come up in 5% of the cases; documents alone would cry wolf."""
    generator = np.random.default_rng(7)
    found = naive = 0
    for _ in range(160):
        ours, theirs, tokens = draw(generator, of_seed=0.02)
        compared = compare(ours, theirs, tokens, 0.95)
        found += compared.p < 0.05
        assert (compared.p < 0.05) == (not compared.low <= 0 <= compared.high) or 0.03 < compared.p < 0.07
        change = (theirs - ours).mean(0)
        left = change - change.sum() / tokens.sum() * tokens
        naive += abs(change.sum()) > 1.96 * math.sqrt((left**2).sum())
    assert found <= 14, "5% of 160 is 8; more than 14 happens once in 60 at 5%, and this is to be below"
    assert naive > 32, "the same test without the seeds is wrong far more often, so this test can tell"


def test_a_difference_that_is_there_is_found():
    generator = np.random.default_rng(3)
    found = [compare(*draw(generator, effect=0.03, of_seed=0.005), 0.99) for _ in range(24)]
    assert sum(one.p < 0.01 for one in found) >= 18
    assert np.mean([one.difference for one in found]) == pytest.approx(0.03, abs=0.005)
    assert np.mean([one.low <= 0.03 <= one.high for one in found]) > 0.9


def test_one_seed_says_nothing_about_seeds():
    ours, theirs, tokens = draw(np.random.default_rng(0), seeds=1, effect=1.0)
    compared = compare(ours, theirs, tokens, 0.99)
    assert math.isnan(compared.p) and math.isnan(compared.low)
    assert compared.difference == pytest.approx(1.0, abs=0.05)


def test_equal_sides_do_not_differ():
    _, theirs, tokens = draw(np.random.default_rng(0))
    compared = compare(theirs, theirs, tokens, 0.99)
    assert (compared.difference, compared.p) == (0.0, 1.0)


def test_what_cannot_be_compared_is_refused():
    ours, theirs, tokens = draw(np.random.default_rng(0))
    with pytest.raises(ValueError, match="documents"):
        compare(ours, theirs[:2], tokens, 0.99)
    with pytest.raises(ValueError, match="finite"):
        compare(ours * np.nan, theirs, tokens, 0.99)
