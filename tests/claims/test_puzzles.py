"""Claims about puzzles: losses are of the answers, costs of everything that is read."""

import json

import numpy as np
import pytest
import torch

from ourospec.claims import scoring
from ourospec.claims.config import Claim
from ourospec.claims.harness import Harness
from ourospec.claims.parts import Workshop
from ourospec.claims.results import answer_rows, arm_rows, as_data, markdown
from ourospec.measure.oracle import equal_cost

READ, ANSWERED = 14, 2
"""Positions of a puzzle, the end in front included, and tokens of its answer, the end behind it included."""


@pytest.fixture(scope="module")
def finished(puzzle_claim, tmp_path_factory):
    """(harness, findings, folder)."""
    folder = tmp_path_factory.mktemp("puzzles")
    claim = Claim.model_validate_json(json.dumps(puzzle_claim))
    with Workshop(folder) as workshop:
        harness = Harness(claim, workshop)
        return harness, harness.run(), folder


def opened(finished, name, seed=0):
    harness, _, folder = finished
    return scoring.open_run(folder, harness.recipes[name, seed], harness.claim.eval_tokens)


def test_losses_are_of_the_answers_and_costs_of_the_questions_too(finished):
    """One pass for each position is what reading costs, and what the question costs is not left out."""
    _, found, _ = finished
    for name in ("one", "two", "three"):
        for seed in found.scores[name]:
            assert set(seed["tokens"]) == {ANSWERED} and set(seed["positions"]) == {READ}
    passes = {name: found.total(name, "passes", "positions") for name in ("one", "two", "three")}
    assert passes == {"one": [1.0, 1.0], "two": [2.0, 2.0], "three": [3.0, 3.0]}
    model = opened(finished, "adaptive").loaded.model
    # Position t sees t + 1 keys.
    by_hand = sum(model.cost(t + 1.0).uniform(1.0) for t in range(READ)) / READ
    assert found.total("one", "flops", "positions")[0] == pytest.approx(by_hand, rel=1e-6)
    assert found.cost("one", "executed_flops") == pytest.approx(by_hand, rel=1e-6)


def test_an_answer_that_is_thought_about_for_longer_costs_little(finished):
    """What a claim about puzzles is of: three passes for the answer alone are a seventh of what three for all cost."""
    _, found, _ = finished
    run = opened(finished, "adaptive")
    one, three = (found.cost(name, "executed_flops") for name in ("one", "three"))

    def deal(passes):
        plan = torch.ones_like(passes)
        plan[:, -ANSWERED:] = 3
        return plan

    read = run.read(None, scoring.PlannedModel(run.loaded.model, None, deal))
    share = (scoring.cost_of(read.likelihood) - one) / (three - one)
    assert share == pytest.approx(ANSWERED / READ, rel=0.05)
    assert scoring.mean_passes(read.likelihood) == pytest.approx(1 + 2 * ANSWERED / READ)


def test_matched_and_mixed_arms_meet_costs_of_all_that_is_read(finished):
    _, found, _ = finished
    wanted = np.array(found.total("two", "flops", "positions"))
    matched = np.array(found.total("as_two", "flops", "positions"))
    # Of so few puzzles a threshold moves the depth in jumps.
    assert np.abs(matched / wanted - 1).max() < 0.1
    np.testing.assert_allclose(found.total("mixture", "flops"), found.total("as_two", "flops"), rtol=1e-6)
    np.testing.assert_allclose(found.total("shuffled", "passes"), found.total("as_two", "passes"))


def test_an_oracle_spends_on_answers_what_questions_leave(finished):
    """Equal to the best use of all passes over all positions, those without a target losing nothing."""
    _, found, _ = finished
    run = opened(finished, "adaptive")
    policy = scoring.as_effort(found.scores["as_two"][0]["effort"])
    chosen = run.score(policy)
    tables = []
    for passes in (1, 2, 3):
        rows = []
        for puzzle in run.documents:
            one = scoring.Opened(run.loaded, [puzzle])
            bench = scoring.lay_out_chunks(
                run.loaded.model,
                scoring.cut_puzzles(one.documents, run.loaded.tokenizer.end_id),
                run.loaded.tokenizer.end_id,
                run.loaded.policy,
                1,
                policy,
            )
            nats = bench.read(scoring.Effort(forced_passes=passes)).nats
            rows.append(np.concatenate([np.zeros(READ - len(nats)), nats]))
        tables.append(np.concatenate(rows))
    budget = float(chosen.passes.sum()) / chosen.passes.shape[1]
    losses, _ = equal_cost(np.stack(tables), budget)
    assert sum(found.scores["oracle"][0]["nats"]) == pytest.approx(losses.sum(), rel=1e-4)
    assert found.exact_match("oracle") == []


def test_exact_match_stands_beside_the_loss(finished):
    _, found, _ = finished
    run = opened(finished, "two")
    exact = run.loaded.evaluate(effort=run.trained)["exact_match"]
    whole = scoring.Opened(run.loaded, list(scoring.open_text(run.loaded.recipe.data).heldout.documents()))
    right, answers, bins = whole.read(run.trained).exactness
    assert right.sum() / answers.sum() == pytest.approx(exact)
    assert list(bins) == ["pointer hops 1", "pointer hops 2"]
    assert sum(all_of for _, all_of in bins.values()) == answers.sum()
    shares = found.exact_match("mixture")
    low, high = (found.exact_match(name) for name in ("one", "three"))
    assert all(min(a, b) <= share <= max(a, b) for a, b, share in zip(low, high, shares, strict=True))
    assert arm_rows(found)[0][1:3] == ["nats per answer token", "exact match"]
    assert [row[0] for row in answer_rows(found)[1:]] == [
        arm.name for arm in found.claim.arms if arm.name != "oracle"
    ]
    verdict = found.verdict(True)
    data = as_data(found, verdict, True)
    assert data["positions"] == READ * data["documents"] and data["tokens"] == ANSWERED * data["documents"]
    assert data["arms"]["two"]["exact_match_by_seed"] == found.exact_match("two")
    assert f"{data['positions']:,} that were read" in markdown(found, verdict)


def test_leaks_are_looked_for_in_puzzles_as_they_are_read(finished, monkeypatch):
    harness, found, folder = finished
    assert all(leak["held"] for seeds in found.leaks.values() for tests in seeds for leak in tests)
    seen = []
    monkeypatch.setattr(scoring.leaks, "leak_tests", lambda model, rows, effort: seen.append(rows) or [])
    scoring.check_leaks(folder, harness.recipes["adaptive", 0], harness.claim.eval_tokens)
    assert seen[0].shape == (3, READ) and set(seen[0][:, 0].tolist()) == {256}
    assert all(bytes(row[1:].tolist()).decode()[-2] == "=" for row in seen[0])
