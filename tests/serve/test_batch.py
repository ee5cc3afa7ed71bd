"""Texts that are decoded together are those that each would be alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ourospec.contracts import Effort, Output
from ourospec.errors import ConfigError
from ourospec.nn.cost import FlopTable
from ourospec.serve.batch import generate_batch
from ourospec.serve.budget import Allowance
from ourospec.serve.generation import Generation, generate
from ourospec.serve.receipt import Machinery
from ourospec.serve.sampling import GREEDY, Sampling

from .conftest import MAX_LENGTH, build

WARM = Sampling(temperature=1.0, top_p=1.0)
PROMPTS = ["", "spam and eggs", "x", "a longer prompt than all the others", "y" * (2 * MAX_LENGTH)]


def exact(model: Any) -> Any:
    """In float64, a row of a batch and a row alone agree far beyond what decides a token."""
    return model.double()


def alone(model: Any, vocabulary: Any, prompts: list[str], seed: int, **options: Any) -> list[Generation]:
    return [generate(model, vocabulary, prompt, seed=seed + i, **options) for i, prompt in enumerate(prompts)]


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    prompts=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=4),
    seed=st.integers(0, 50),
    most=st.sampled_from([1, 7, MAX_LENGTH + 9]),
    sampling=st.sampled_from([WARM, GREEDY]),
)
def test_each_text_is_the_one_that_it_would_be_alone(
    model: Any, policy: Any, vocabulary: Any, prompts: list[str], seed: int, most: int, sampling: Sampling
) -> None:
    model = exact(model)
    options = {"policy": policy, "max_new_tokens": most, "sampling": sampling}
    together = generate_batch(model, vocabulary, prompts, seed=seed, **options)
    assert together == alone(model, vocabulary, prompts, seed, **options)


def test_texts_end_by_themselves_and_leave_the_batch_at_once(policy: Any, vocabulary: Any) -> None:
    model = exact(build("adaptive_lm"))
    options = {"policy": policy, "max_new_tokens": 30, "sampling": WARM, "stop": ["a", "Z"]}
    rows: list[int] = []
    forward = model.forward

    def watched(tokens: torch.Tensor, *arguments: Any, **named: Any) -> Output:
        rows.append(tokens.shape[0])
        return forward(tokens, *arguments, **named)

    wanted = alone(model, vocabulary, PROMPTS[:3], 3, **options)
    model.forward = watched
    together = generate_batch(model, vocabulary, PROMPTS[:3], seed=3, **options)
    assert together == wanted
    assert {made.finish for made in together} >= {"stop", "length"}, "or the test shows nothing"
    # Three prompts, each alone; then each text is read on for as long as it lasts: of its last token none asks.
    assert rows[:3] == [1] * 3
    lengths = [len(made.tokens) - (made.finish != "end") for made in together]
    assert rows[3:] == [sum(step < length for length in lengths) for step in range(max(lengths))]


def test_effort_holds_for_every_row_and_the_receipt_counts_its_own(policy: Any, vocabulary: Any) -> None:
    model = exact(build("adaptive_lm"))
    options = {
        "policy": policy,
        "max_new_tokens": 12,
        "sampling": WARM,
        "effort": Effort(max_passes=2),
        "machinery": Machinery(table=FlopTable(model.cost)),
    }
    together = generate_batch(model, vocabulary, PROMPTS[:3], seed=3, **options)
    for made, single in zip(together, alone(model, vocabulary, PROMPTS[:3], 3, **options), strict=True):
        assert made == single
        assert made.receipt.flops == pytest.approx(single.receipt.flops)
        assert made.receipt.prompt_tokens == single.receipt.prompt_tokens
        assert max(max(layers) for layers in made.passes) <= 2


def test_texts_share_a_budget(policy: Any, vocabulary: Any) -> None:
    model: Any = build("adaptive_lm")
    allowance = Allowance(1.6, start=0.05)
    options = {"policy": policy, "max_new_tokens": 60, "sampling": WARM, "allowance": allowance}
    together = generate_batch(model, vocabulary, PROMPTS[:4], **options)
    flat = [count for made in together for layers in made.passes for count in layers]
    for made in together:
        assert made.receipt.kept == pytest.approx(sum(flat) / len(flat))
    assert together[0].receipt.kept == pytest.approx(1.6, abs=0.1)
    hurried = generate_batch(
        model, vocabulary, PROMPTS[:2], **(options | {"allowance": Allowance(1e-3, "ms")})
    )
    assert all(made.passes[-1] == [1, 1] for made in hurried)
    assert hurried[0].receipt.kept is not None


def test_no_prompts_give_no_texts_and_nonsense_is_refused(model: Any, policy: Any, vocabulary: Any) -> None:
    assert generate_batch(model, vocabulary, [], policy=policy) == []
    with pytest.raises(ConfigError):
        generate_batch(model, vocabulary, ["x"], policy=policy, max_new_tokens=0)
