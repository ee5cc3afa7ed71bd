"""Drafts that may stay leave the distribution as it was; a rule that is slightly wrong does not."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ourospec.serve.acceptance import PATIENCE, Costs, DraftLength, judge, left_over
from ourospec.serve.sampling import draw

VOCABULARY, DRAWS = 5, 6_000
# Of chi-square with 4 degrees of freedom, one in ten thousand lies above.
SURPRISING = 23.5
Rule = Callable[[list[int], list[Tensor], list[Tensor], torch.Generator], list[int]]


def distributions(seed: int, count: int, sharpness: float = 1.0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = sharpness * torch.randn(count, VOCABULARY, generator=generator, dtype=torch.float64)
    return list(logits.softmax(-1))


def chi_square(counts: Counter[int], p: Tensor) -> float:
    total = sum(counts.values())
    return sum(
        (counts[token] - total * float(share)) ** 2 / (total * float(share)) for token, share in enumerate(p)
    )


def surprise(rule: Rule, seed: int, place: int) -> float:
    """How far the tokens at a place (0: the first draft, 1: behind a first that stayed) are from their p."""
    q, p = distributions(seed, 2), distributions(seed + 100, 3)
    generator, counts = torch.Generator().manual_seed(seed), Counter()
    for _ in range(DRAWS):
        drafts = [draw(one, generator) for one in q]
        chosen = rule(drafts, q, p, generator)
        if len(chosen) > place:
            counts[chosen[place]] += 1
    assert sum(counts.values()) > DRAWS / 10
    return chi_square(counts, p[place])


def keep_all(drafts: list[int], q: list[Tensor], p: list[Tensor], generator: torch.Generator) -> list[int]:
    return [*drafts, draw(p[-1], generator)]


def redraw_from_all(
    drafts: list[int], q: list[Tensor], p: list[Tensor], generator: torch.Generator
) -> list[int]:
    """Refused drafts are replaced by a token of p, not of what is left over."""
    chosen: list[int] = []
    for token, guess, target in zip(drafts, q, p, strict=False):
        if float(torch.rand((), generator=generator)) * guess[token] >= target[token]:
            return [*chosen, draw(target, generator)]
        chosen.append(token)
    return [*chosen, draw(p[-1], generator)]


def keep_by_p(drafts: list[int], q: list[Tensor], p: list[Tensor], generator: torch.Generator) -> list[int]:
    """A draft stays with p(x), not with p(x)/q(x)."""
    if float(torch.rand((), generator=generator)) >= p[0][drafts[0]]:
        return [draw(left_over(p[0], q[0]), generator)]
    return judge(drafts, q, p, generator)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_token_is_distributed_as_if_nobody_had_drafted(seed: int, place: int) -> None:
    assert surprise(judge, seed, place) < SURPRISING


@pytest.mark.parametrize("rule", [keep_all, redraw_from_all, keep_by_p])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_same_test_sees_a_wrong_rule(rule: Rule, seed: int) -> None:
    assert surprise(rule, seed, 0) > SURPRISING


def test_at_temperature_zero_a_draft_stays_exactly_if_it_is_the_likeliest() -> None:
    one_hot = list(torch.eye(VOCABULARY, dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert judge([2, 3], [one_hot[2], one_hot[3]], [one_hot[2], one_hot[1], one_hot[0]], generator) == [2, 1]
    assert judge([2], [one_hot[2]], [one_hot[2], one_hot[4]], generator) == [2, 4]
    assert torch.equal(generator.get_state(), before), "what is certain takes no number"


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), number=st.integers(0, 5), sharpness=st.floats(0.1, 30))
def test_what_is_chosen_is_possible(seed: int, number: int, sharpness: float) -> None:
    """The drafts up to the first refused one, and nothing that p forbids."""
    q, p = distributions(seed, number, sharpness), distributions(seed + 1, number + 1, sharpness)
    p = [torch.where(one < 0.05, 0.0, one) for one in p]
    generator = torch.Generator().manual_seed(seed)
    drafts = [draw(one, generator) for one in q]
    chosen = judge(drafts, q, p, generator)
    assert 1 <= len(chosen) <= number + 1
    assert chosen[:-1] == drafts[: len(chosen) - 1]
    assert all(float(p[place][token]) > 0 for place, token in enumerate(chosen))


def test_what_is_left_over_of_equals_is_p() -> None:
    (p,) = distributions(3, 1)
    assert torch.equal(left_over(p, p), p)


def test_drafts_grow_where_they_stay_and_end_where_they_do_not() -> None:
    length = DraftLength()
    for _ in range(40):
        length.hear(4, 4)
    assert length.choose(Costs(0.2, 1.0, 0.1), room=100) == length.longest
    assert length.choose(Costs(0.2, 1.0, 0.1), room=3) == 3
    assert length.choose(Costs(0.2, 1.0, 0.1), room=0) == 0
    for _ in range(40):
        length.hear(4, 0)
    assert length.choose(Costs(0.2, 1.0, 0.1), room=100) == 0


@settings(max_examples=40, deadline=None)
@given(a=st.floats(0.05, 0.99), cost=st.floats(0.01, 2), base=st.floats(0.8, 3), further=st.floats(0, 1))
def test_the_length_chosen_is_the_best_by_the_closed_form(
    a: float, cost: float, base: float, further: float
) -> None:
    length = DraftLength()
    length._kept, length._refused = a, 1 - a
    a = length.acceptance
    drafted = range(1, length.longest + 1)
    rates = [1.0, *((1 - a ** (n + 1)) / (1 - a) / (base + n * (cost + further)) for n in drafted)]
    chosen = length.choose(Costs(cost, base, further), room=100)
    assert math.isclose(rates[chosen], max(rates), rel_tol=1e-9)


def test_who_does_not_draft_tries_again_now_and_then() -> None:
    length = DraftLength()
    for _ in range(30):
        length.hear(1, 0)
    for _ in range(PATIENCE):
        assert length.choose(Costs(0.5, 1.0, 0.2), room=10) == 0
        length.hear(0, 0)
    assert length.choose(Costs(0.5, 1.0, 0.2), room=10) == 1


def test_who_cannot_gain_by_drafting_never_tries() -> None:
    length = DraftLength()
    for _ in range(3 * PATIENCE):
        assert length.choose(Costs(1.0), room=10) == 0
        length.hear(0, 0)
