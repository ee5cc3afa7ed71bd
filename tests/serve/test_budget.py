"""A budget is kept by a closed loop, whatever the gates are like, and the receipt says by how much."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.contracts import Effort
from ourospec.errors import ConfigError
from ourospec.nn.cost import FlopTable
from ourospec.serve.budget import DRIFT, FARTHEST, GAIN, LATEST, Allowance, Governor
from ourospec.serve.generation import generate
from ourospec.serve.receipt import Machinery
from ourospec.serve.sampling import Sampling

from .conftest import build

WARM = Sampling(temperature=1.0, top_p=1.0)


def log_odds(share: float) -> float:
    return math.log(share / (1 - share))


def simulate(governor: Governor, tokens: int, middle: float, width: float, seed: int) -> list[float]:
    """Gates whose logits are normal: a token runs pass k + 1 where its k-th logit reaches the threshold's."""
    draws = random.Random(seed)
    taken = []
    for _ in range(tokens):
        passes = 1.0
        while passes < 3 and draws.gauss(middle, width) >= log_odds(governor.threshold):
            passes += 1
        governor.hear(passes)
        taken.append(passes)
    return taken


@settings(max_examples=40, deadline=None)
@given(
    budget=st.floats(1.05, 2.9),
    start=st.floats(0.02, 0.98),
    middle=st.floats(-3, 3),
    width=st.floats(0.01, 5),
    seed=st.integers(0, 99),
)
def test_the_mean_comes_to_the_budget_whatever_the_gates_say(
    budget: float, start: float, middle: float, width: float, seed: int
) -> None:
    governor = Governor(Allowance(budget, start=start))
    taken = simulate(governor, 400, middle, width, seed)
    # A few passes are owed at any time, since tokens differ; one gate that all tokens share is either shut or open.
    assert abs(sum(taken) / 400 - budget) <= 12 / 400


def test_what_is_owed_moves_the_threshold_at_once_and_for_as_long_as_it_is_owed() -> None:
    governor = Governor(Allowance(1.5, start=0.3))
    governor.hear(2.5)
    assert log_odds(governor.threshold) - log_odds(0.3) == pytest.approx(GAIN + DRIFT)
    governor.hear(1.5)
    assert log_odds(governor.threshold) - log_odds(0.3) == pytest.approx(GAIN + 2 * DRIFT)
    governor.hear(0.5)
    assert log_odds(governor.threshold) - log_odds(0.3) == pytest.approx(2 * DRIFT), "nothing is owed"


def test_several_texts_owe_by_their_share() -> None:
    governor = Governor(Allowance(1.5))
    governor.hear(2.5, share=0.5)
    assert log_odds(governor.threshold) == pytest.approx(0.5 * GAIN + 0.5 * 0.5 * DRIFT)


def test_the_threshold_stays_a_number_however_long_a_budget_is_missed() -> None:
    governor = Governor(Allowance(5.0, "ms"))
    for _ in range(1_000):
        governor.hear(80.0)
    assert log_odds(governor.threshold) == pytest.approx(FARTHEST, abs=0.01)
    for _ in range(200):
        governor.hear(0.0)
    assert governor.threshold < 0.01, "what was missed for long is not owed for ever"


def test_a_time_that_was_lost_once_counts_for_little() -> None:
    governor = Governor(Allowance(2.0, "ms"))
    governor.hear(60_000.0)
    assert log_odds(governor.threshold) - log_odds(governor.first) == pytest.approx(LATEST * (GAIN + DRIFT))


@pytest.mark.parametrize(("budget", "start"), [(1.3, 0.02), (1.3, None), (2.0, 0.9), (3.5, 0.5)])
def test_a_text_keeps_its_budget(budget: float, start: float | None, policy: Any, vocabulary: Any) -> None:
    model: Any = build("adaptive_lm")
    allowance = Allowance(budget, start=start)
    made = generate(
        model, vocabulary, "x", policy=policy, max_new_tokens=90, seed=4, sampling=WARM, allowance=allowance
    )
    receipt = made.receipt
    assert receipt.kept == receipt.passes
    assert receipt.passes == pytest.approx(sum(map(sum, made.passes)) / (2 * len(made.passes)))
    assert len(made.tokens) > 50
    assert receipt.kept == pytest.approx(budget, abs=10 / len(made.tokens))
    assert receipt.thresholds is not None
    assert receipt.thresholds[0] == pytest.approx(0.5 if start is None else start)
    assert (receipt.budget, receipt.unit) == (budget, "passes")


def test_less_time_thinks_less(policy: Any, vocabulary: Any) -> None:
    """Not how much time: that is the machine's affair. A budget far below what is possible ends at one pass."""
    model: Any = build("adaptive_lm")

    def sample(ms: float) -> Any:
        allowance = Allowance(ms, "ms")
        return generate(
            model, vocabulary, "x", policy=policy, max_new_tokens=60, sampling=WARM, allowance=allowance
        )

    hurried, idle = sample(1e-3), sample(1e6)
    assert hurried.passes[-1] == [1, 1]
    assert idle.passes[-1] == [4, 4]
    assert hurried.receipt.kept == hurried.receipt.ms_per_token > 0
    assert hurried.receipt.unit == "ms"


@pytest.mark.parametrize("amount", [0.5, 4.5, math.nan, math.inf, -1.0, 0.0])
def test_a_budget_that_no_threshold_meets_is_refused(amount: float, policy: Any, vocabulary: Any) -> None:
    model: Any = build("adaptive_lm")
    with pytest.raises(ConfigError, match="cannot be met"):
        generate(model, vocabulary, "x", policy=policy, allowance=Allowance(amount))


def test_a_statistic_can_keep_a_budget_and_one_that_needs_two_passes_cannot_keep_less(
    policy: Any, vocabulary: Any
) -> None:
    model: Any = build("adaptive_lm")
    options = {"policy": policy, "max_new_tokens": 80, "sampling": WARM}
    made = generate(model, vocabulary, "x", allowance=Allowance(2.5, readout="update"), **options)
    assert made.receipt.kept == pytest.approx(2.5, abs=0.4)
    with pytest.raises(ConfigError, match="2 to 4 passes"):
        generate(model, vocabulary, "x", allowance=Allowance(1.5, readout="direction"), **options)


def test_a_model_without_gates_has_no_budget(policy: Any, vocabulary: Any) -> None:
    model: Any = build("dense_lm")
    with pytest.raises(ConfigError, match="has none"):
        generate(model, vocabulary, "x", policy=policy, allowance=Allowance(1.0))


def test_a_receipt_counts_every_forward_pass(model: Any, policy: Any, vocabulary: Any) -> None:
    machinery = Machinery(table=FlopTable(model.cost))
    effort = None if not hasattr(model, "depth") else Effort(forced_passes=2)
    options = {"policy": policy, "max_new_tokens": 9, "machinery": machinery, "effort": effort}
    made = generate(model, vocabulary, "spam", **options)
    passes = 1 if effort is None else 2
    # The end token and four bytes of prompt, and all tokens but the last are read.
    positions = 5 + len(made.tokens) - (made.finish == "length")
    flops = sum(model.cost(float(position + 1)).uniform(passes) for position in range(positions))
    receipt = made.receipt
    assert receipt.flops == pytest.approx(flops)
    assert receipt.prompt_tokens == 5
    assert receipt.prompt_seconds > 0
    assert receipt.ms_per_token == pytest.approx(1000 * receipt.seconds / (positions - 5), rel=1e-6)
    assert (receipt.budget, receipt.kept, receipt.thresholds) == (None, None, None)
    assert (receipt.weights, receipt.stepped) == ("float32", 0.0)
    assert receipt.as_data()["flops"] == receipt.flops
