"""Judging gates: where the right answer is known, it comes out."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ourospec.contracts import Effort, Output
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.measure.gates import BINS, follow_difficulty, gate_quality, judge_gate, lay_out_bench
from ourospec.measure.oracle import equal_cost, interpolation, regret
from ourospec.measure.ranks import over_documents, ranks, spearman

from .test_calibrate import adaptive, texts
from .toy import END

SMALL_TABLES = st.integers(1, 5).flatmap(
    lambda tokens: st.integers(1, 4).flatmap(
        lambda depths: st.lists(
            st.lists(st.integers(0, 30), min_size=tokens, max_size=tokens), min_size=depths, max_size=depths
        )
    )
)


def test_ranks_share_what_is_equal() -> None:
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0, 3.0])).tolist() == [4, 1, 4, 2, 4]
    assert ranks(np.array([7, 7])).tolist() == [1.5, 1.5]


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=30))
def test_spearman_is_pearson_of_ranks(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=float).T
    found = spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(float(np.corrcoef(ranks(a), ranks(b))[0, 1]), abs=1e-9)
        assert spearman(np.exp(a), b**3) == pytest.approx(found), "only order counts"
        assert spearman(a, -b) == pytest.approx(-found)


def test_the_jackknife_of_a_mean_over_equal_documents_is_its_standard_error() -> None:
    generator = np.random.default_rng(0)
    documents = np.repeat(np.arange(12), 5)
    values = generator.normal(size=60)
    found = over_documents(lambda of: float(values[of].mean()), documents)
    by_document = values.reshape(12, 5).mean(1)
    assert found.value == pytest.approx(values.mean())
    assert found.error == pytest.approx(by_document.std(ddof=1) / math.sqrt(12))
    assert math.isnan(over_documents(lambda of: 1.0, np.zeros(5)).error)


@settings(max_examples=150, deadline=None)
@given(SMALL_TABLES, st.floats(0, 1))
def test_the_oracle_is_never_worse_than_any_whole_choice_of_its_cost(
    table: list[list[int]], share: float
) -> None:
    losses = np.array(table, dtype=float)
    depths, count = losses.shape
    most = count * (1 + share * (depths - 1))
    found, spent = equal_cost(losses, most)
    assert count <= spent <= most + 1e-9
    choices = list(itertools.product(range(depths), repeat=count))
    affordable = [choice for choice in choices if sum(choice) + count <= most + 1e-9]
    best = min(losses[list(choice), np.arange(count)].sum() for choice in affordable)
    assert found.sum() <= best + 1e-9
    # The relaxation differs from whole choices in one token at most.
    assert found.sum() >= best - (losses.max(0) - losses.min(0)).max() - 1e-9
    free, _ = equal_cost(losses, count * depths)
    assert free.tolist() == pytest.approx(losses.min(0).tolist())


def test_reading_between_depths() -> None:
    weights = interpolation(np.array([1.0, 1.25, 2.0, 2.5, 3.0]), 3)
    assert weights.T.tolist() == [[1, 0, 0], [0.75, 0.25, 0], [0, 1, 0], [0, 0.5, 0.5], [0, 0, 1]]
    assert interpolation(np.array([1.0, 1.0]), 1).tolist() == [[1, 1]]


HALF = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 0.2, 0.2]])
"""A second pass helps the last two of four tokens by 0.8 nats, and the others not."""
FOUR = np.arange(4)


def test_a_policy_that_knows_has_no_regret_and_earns_everything() -> None:
    found = regret(HALF, np.array([1.0, 1.0, 2.0, 2.0]), FOUR)
    assert found["regret"] == pytest.approx(0)
    assert found["share_earned"] == pytest.approx(1)
    assert (found["policy"], found["oracle"], found["random"]) == pytest.approx((0.6, 0.6, 0.8))
    assert found["cheapest"]["mean_passes"] == 1.5
    assert found["cheapest"]["histogram"] == [0.5, 0.5]
    assert found["uniform"] == pytest.approx([1.0, 0.6])


def test_a_policy_that_errs_earns_less_than_chance() -> None:
    found = regret(HALF, np.array([2.0, 2.0, 1.0, 1.0]), FOUR)
    assert found["regret"] == pytest.approx(0.4)
    assert found["earned"] == pytest.approx(-0.2)
    assert found["share_earned"] == pytest.approx(-1)


def test_one_depth_for_all_is_chance_itself() -> None:
    found = regret(HALF, np.full(4, 1.5), FOUR)
    assert found["earned"] == pytest.approx(0)
    assert found["policy"] == pytest.approx(0.8)
    assert found["regret_se"] > 0


def test_an_oracle_buys_nothing_that_harms() -> None:
    found = regret(np.array([[1.0, 1.0], [2.0, 2.0]]), np.array([2.0, 2.0]), np.arange(2))
    assert (found["oracle"], found["oracle_passes"]) == (1, 1)


def test_a_gate_that_knows_gains_is_told_from_one_that_guesses() -> None:
    generator = np.random.default_rng(3)
    gains = generator.normal(size=2_000)
    documents = np.repeat(np.arange(20), 100)
    knows = judge_gate(gains, 1 / (1 + np.exp(-gains)), documents)
    assert knows["spearman"] == pytest.approx(1)
    assert [row["gain"] for row in knows["reliability"]] == sorted(
        row["gain"] for row in knows["reliability"]
    )
    assert knows["reliability"][0]["helped"] == 0
    assert knows["reliability"][-1]["helped"] == 1
    assert len(knows["reliability"]) == BINS
    assert sum(row["tokens"] for row in knows["reliability"]) == 2_000
    guesses = judge_gate(gains, generator.uniform(size=2_000), documents)
    assert abs(guesses["spearman"]) < 4 * guesses["spearman_se"] < 0.4
    assert knows["gain"] == guesses["gain"] == pytest.approx(gains.mean())


def test_depth_that_follows_difficulty_is_seen_by_layer() -> None:
    hardness = np.arange(400.0)
    follows, ignores = 1 + (hardness >= 200), np.tile([1, 2], 200)
    found = follow_difficulty(hardness, np.stack([follows, ignores]), np.repeat(np.arange(20), 20))
    assert found["by_layer"][0]["passes_by_quarter"] == [1, 1, 2, 2]
    assert found["by_layer"][0]["spearman"] > 0.8
    assert found["by_layer"][1]["passes_by_quarter"] == [1.5] * 4
    assert abs(found["by_layer"][1]["spearman"]) < 0.01
    assert found["quarters"] == [49.5, 149.5, 249.5, 349.5]


class Seer(nn.Module):
    """One layer, at most two passes; the second lowers the loss of even tokens, and the gate wants it for those.

    After a helpful second pass all tokens but the end are likelier by a factor of e.
    """

    max_length = 64

    def forward(
        self, tokens: Tensor, documents: Any = None, cache: Any = None, effort: Effort | None = None
    ) -> Output:
        asked = effort or Effort()
        wanted = 1 + (tokens % 2 == 0).long()
        passes = torch.full_like(tokens, asked.forced_passes) if asked.forced_passes else wanted
        if asked.threshold == 0:
            passes = torch.full_like(tokens, 2)
        return Output(torch.stack([tokens, passes], -1).float(), passes[None])

    def logits(self, states: Tensor) -> Tensor:
        helped = (states[..., 0] % 2 == 0) & (states[..., 1] >= 2)
        return helped[..., None] * torch.ones(9).scatter(0, torch.tensor([END]), 0.0)

    def new_cache(self, batch: int, capacity: int) -> Any:
        raise AssertionError("nothing is decoded here")

    def probe_gain(
        self, tokens: Tensor, documents: Any, targets: Tensor, layer: int, passes: int, effort: Any = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        assert (layer, passes) == (0, 1)
        even = (tokens % 2 == 0).float()
        return even * 0.5, even * 4 - 2, even


def test_the_figures_of_a_model_that_knows(policy: DevicePolicy) -> None:
    model: Any = Seer()
    found = gate_quality(lay_out_bench(model, texts(), END, 16, policy, 4, None))
    assert (found["layers"], found["max_passes"], found["documents"]) == (1, 2, 40)
    assert found["gates"][0]["spearman"] == pytest.approx(1)
    assert found["gates"][0]["reliability"][-1]["gain"] == 0.5
    assert 1.4 < found["mean_passes"] < 1.7
    assert found["oracle"]["policy"] == pytest.approx(found["loss"]), "with one layer the table is exact"
    assert found["oracle"]["share_earned"] > 0.4


def test_a_real_models_figures_agree_with_each_other(policy: DevicePolicy) -> None:
    model, told = adaptive(), []
    state = torch.get_rng_state()
    found = gate_quality(lay_out_bench(model, texts(), END, 32, policy, 8, None, told.append))
    assert torch.equal(torch.get_rng_state(), state)
    assert [(gate["layer"], gate["passes"]) for gate in found["gates"]] == [
        (i, k) for i in range(2) for k in (1, 2, 3)
    ]
    oracle = found["oracle"]
    assert oracle["oracle"] <= oracle["policy"]
    assert oracle["oracle"] <= oracle["random"]
    assert len(oracle["uniform"]) == found["max_passes"] == 4
    assert oracle["cheapest"]["loss"] <= min(oracle["uniform"])
    assert oracle["mean_passes"] == pytest.approx(found["mean_passes"])
    assert len(found["difficulty"]["by_layer"]) == found["layers"] == 2
    assert len(told) == 1 + 4 + 6
    json.dumps(found)


def test_what_has_no_gates_cannot_be_judged(policy: DevicePolicy, bigram: Any) -> None:
    with pytest.raises(ConfigError, match="still forced"):
        gate_quality(lay_out_bench(bigram, texts(), END, 32, policy, 8, Effort(forced_passes=2)))
