"""The next token is drawn from exactly the tokens and the odds that the settings say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ourospec.errors import DivergedError
from ourospec.serve.sampling import GREEDY, Sampling, choose, distribution

PLAIN = Sampling(temperature=1.0, top_p=1.0)


def logits_of(probabilities: list[float]) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def kept(probabilities: list[float], **settings: float) -> list[int]:
    sampling = PLAIN.model_copy(update=settings)
    return distribution(logits_of(probabilities), sampling).nonzero().flatten().tolist()


def reference(logits: list[float], s: Sampling) -> list[float]:
    """The same distribution with plain loops."""
    if s.temperature == 0:
        best = logits.index(max(logits))
        return [float(i == best) for i in range(len(logits))]
    weights = [math.exp((x - max(logits)) / s.temperature) for x in logits]
    odds = [w / sum(weights) for w in weights]
    ranked = sorted(range(len(odds)), key=lambda i: (-odds[i], i))
    if s.top_k:
        ranked = ranked[: s.top_k]
    whole, taken, nucleus = sum(odds[i] for i in ranked), 0.0, []
    for i in ranked:
        if taken >= s.top_p * whole and s.top_p < 1:
            break
        nucleus.append(i)
        taken += odds[i]
    chosen = [i for i in nucleus if odds[i] >= s.min_p * odds[ranked[0]]]
    total = sum(odds[i] for i in chosen)
    return [odds[i] / total if i in chosen else 0.0 for i in range(len(odds))]


def test_a_vocabulary_larger_than_what_is_ranked_first() -> None:
    """With many ties, and nuclei from a single token to nearly all of them."""
    generator = torch.Generator().manual_seed(0)
    for spread in (0.01, 1.0, 6.0):
        logits = (torch.randn(700, generator=generator, dtype=torch.float64) * spread * 4).round() / 4
        for settings in (
            {"top_p": 0.9011},
            {"top_p": 0.9907, "top_k": 300},
            {"top_p": 0.2003},
            {"top_k": 65, "top_p": 1.0},
        ):
            sampling = PLAIN.model_copy(update=settings)
            wanted = torch.tensor(reference(logits.tolist(), sampling), dtype=torch.float64)
            torch.testing.assert_close(distribution(logits, sampling), wanted, rtol=1e-10, atol=1e-13)


def test_the_token_that_crosses_the_nucleus_is_kept() -> None:
    odds = [0.15, 0.5, 0.05, 0.3]
    assert kept(odds, top_p=0.6) == [1, 3]
    assert kept(odds, top_p=0.4) == [1]
    assert kept(odds, top_p=0.9) == [0, 1, 3]
    assert kept(odds, top_p=1.0) == [0, 1, 2, 3]


def test_reaching_the_mass_exactly_is_enough() -> None:
    assert kept([0.5, 0.25, 0.25], top_p=0.5) == [0]
    assert kept([0.5, 0.25, 0.25], top_p=0.75) == [0, 1]


def test_top_k_and_min_p() -> None:
    odds = [0.15, 0.5, 0.05, 0.3]
    assert kept(odds, top_k=2) == [1, 3]
    assert kept(odds, top_k=99) == [0, 1, 2, 3]
    assert kept(odds, min_p=0.5) == [1, 3]
    assert kept(odds, min_p=1.0) == [1]


def test_equal_tokens_rank_by_number() -> None:
    assert kept([0.25] * 4, top_k=2) == [0, 1]


settings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 1.0, 2.5]),
    top_k=st.integers(0, 12),
    top_p=st.floats(0.01, 1.0),
    min_p=st.floats(0.0, 1.0),
)


@given(st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=10, unique=True), settings)
def test_distribution_equals_plain_loops(logits: list[float], sampling: Sampling) -> None:
    got = distribution(torch.tensor(logits, dtype=torch.float64), sampling).tolist()
    expected = reference(logits, sampling)
    if [p > 0 for p in got] != [p > 0 for p in expected]:
        # A sum of probabilities may land on the wanted mass to the last bit, and the order of adding decides.
        nudged = [sampling.model_copy(update={"top_p": sampling.top_p * f}) for f in (1 - 1e-9, 1 + 1e-9)]
        expected = next(e for e in (reference(logits, s) for s in nudged) if np.allclose(e, got, atol=1e-9))
    assert got == pytest.approx(expected, abs=1e-9)
    assert sum(got) == pytest.approx(1)


def test_many_equal_tokens_rank_by_number() -> None:
    """A sort that is not stable shuffles long runs of equals."""
    assert kept([1 / 300] * 300, top_k=5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(("point", "token"), [(0.0, 1), (1 - 2**-53, 3)])
def test_the_ends_of_the_range_fall_on_tokens_that_can_be_drawn(
    point: float, token: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_, **__: torch.tensor(point, dtype=torch.float64))
    assert choose(logits_of([0.0, 0.1, 0.2, 0.7, 0.0]), PLAIN, torch.Generator()) == token


def test_draws_follow_the_distribution() -> None:
    odds = [0.1, 0.0, 0.6, 0.3]
    generator = torch.Generator().manual_seed(0)
    draws = 4000
    drawn = [choose(logits_of(odds), PLAIN, generator) for _ in range(draws)]
    counts = np.bincount(drawn, minlength=4)
    assert counts[1] == 0
    expected = draws * np.array(odds)[[0, 2, 3]]
    chi_square = float(np.sum((counts[[0, 2, 3]] - expected) ** 2 / expected))
    assert chi_square < 13.8  # 0.1% of honest samples exceed this at two degrees of freedom


def test_one_number_a_draw_and_none_when_greedy() -> None:
    logits = logits_of([0.2, 0.8])
    a, b = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    choose(logits, PLAIN, a)
    torch.rand((), generator=b, dtype=torch.float64)
    assert torch.equal(a.get_state(), b.get_state())
    assert choose(logits, GREEDY, a) == 1
    assert torch.equal(a.get_state(), b.get_state())


def test_greedy_takes_the_first_of_equals() -> None:
    assert choose(torch.tensor([1.0, 3.0, 3.0]), GREEDY, torch.Generator()) == 1


@pytest.mark.parametrize("temperature", [1e-12, 1e12])
def test_extreme_temperatures_do_not_overflow(temperature: float) -> None:
    odds = distribution(torch.tensor([-3e4, 0.0, 3e4]), Sampling(temperature=temperature, top_p=1.0))
    expected = [0, 0, 1] if temperature < 1 else [1 / 3] * 3
    assert odds.tolist() == pytest.approx(expected)


@pytest.mark.parametrize("bad", [[0.0, math.nan], [0.0, math.inf], [-math.inf, -math.inf]])
@pytest.mark.parametrize("sampling", [PLAIN, GREEDY])
def test_predictions_that_are_no_numbers_are_refused(bad: list[float], sampling: Sampling) -> None:
    with pytest.raises(DivergedError):
        choose(torch.tensor(bad), sampling, torch.Generator())


def test_a_ruled_out_token_is_no_fault() -> None:
    assert choose(torch.tensor([-math.inf, 0.0]), PLAIN, torch.Generator()) == 1


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": 2.0}, {"top_k": -1}]
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Sampling(**wrong)  # pyright: ignore[reportArgumentType]
