"""Claim files: what is understood, and what is refused with a reason."""

import json
from pathlib import Path

import pytest

from ourospec.claims.config import Claim, Matched, MixedArm, TrainedArm, UsedArm, quickened, read_claim
from ourospec.claims.recipes import recipe_of, refuse_unlike
from ourospec.errors import ConfigError

SHIPPED = sorted((Path(__file__).parents[2] / "benchmarks" / "claims").glob("*.json"))


def claim(**changes):
    told = {
        "statement": {"better": "a", "than": ["b"], "axes": ["parameters"]},
        "seeds": [0, 1],
        "tuning": {"learning_rates": [0.001, 0.003]},
        "arms": [{"name": "a", "preset": "adaptive_lm/smoke"}, {"name": "b", "preset": "dense_lm/smoke"}],
    }
    return {**told, **changes}


def read(tmp_path, told) -> Claim:
    path = tmp_path / "claim.json"
    path.write_text(json.dumps(told))
    return read_claim(path)


def arms(*more):
    return [*claim()["arms"], *more]


def test_three_sorts_of_arms_are_told_apart_by_their_fields(tmp_path):
    more = [
        {"name": "c", "of": "a", "effort": {"kind": "matched", "to": "b"}},
        {"name": "d", "of": "c", "effort": {"kind": "shuffled"}},
        {"name": "e", "mix": ["b", "a"], "to": "c"},
    ]
    found = read(tmp_path, claim(arms=arms(*more)))
    assert [type(arm) for arm in found.arms] == [TrainedArm, TrainedArm, UsedArm, UsedArm, MixedArm]
    assert found.root("d").name == "a"
    assert [[arm.name for arm in wave] for wave in found.waves()] == [["c"], ["d", "e"]]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "twice"),
        ({"statement": {"better": "a", "than": ["x"], "axes": ["parameters"]}}, "there is no arm 'x'"),
        ({"statement": {"better": "a", "than": ["a"], "axes": ["parameters"]}}, "with itself"),
        ({"statement": {"better": "a", "than": ["b"], "axes": ["price"]}}, "axes"),
        ({"statement": {"better": "a", "than": ["b"], "axes": []}}, "axes"),
        ({"statement": {"better": "a", "than": ["b"], "axes": ["parameters"], "p": 0.2}}, "statement.p"),
        ({"arms": arms({"name": "a", "preset": "dense_lm/smoke"})}, "two arms"),
        ({"arms": arms({"name": "../c", "preset": "dense_lm/smoke"})}, "name"),
        ({"arms": arms({"name": "c", "preset": "dense_lm/smoke", "sett": {}})}, "sett"),
        ({"arms": arms({"name": "c", "of": "x", "effort": {"kind": "even"}})}, "there is no arm 'x'"),
        ({"arms": arms({"name": "c", "of": "a", "effort": {"kind": "hard"}})}, "effort"),
        (
            {"arms": arms({"name": "c", "of": "a", "effort": {"kind": "matched", "to": "c"}})},
            "need each other",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, changes, why):
    with pytest.raises(ConfigError, match="not a claim") as caught:
        read(tmp_path, claim(**changes))
    assert why in str(caught.value)


def test_depths_are_dealt_out_of_plain_policies_only(tmp_path):
    even = {"name": "c", "of": "a", "effort": {"kind": "even"}}
    with pytest.raises(ConfigError, match="name the trained arm"):
        read(tmp_path, claim(arms=arms(even, {"name": "d", "of": "c", "effort": {"kind": "shuffled"}})))
    mix = {"name": "c", "mix": ["a", "b"], "to": "a"}
    with pytest.raises(ConfigError, match="mixture"):
        read(tmp_path, claim(arms=arms(mix, {"name": "d", "of": "c", "effort": {"kind": "even"}})))


def test_the_oracle_can_win_nothing(tmp_path):
    oracle = {"name": "c", "of": "a", "effort": {"kind": "oracle"}}
    statement = {"better": "c", "than": ["b"], "axes": ["parameters"]}
    with pytest.raises(ConfigError, match="reads the targets"):
        read(tmp_path, claim(arms=arms(oracle), statement=statement))


def test_no_file_and_no_json_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_claim(tmp_path / "nothing.json")
    (tmp_path / "text.json").write_text("not JSON")
    with pytest.raises(ConfigError, match="not a claim"):
        read_claim(tmp_path / "text.json")


def test_settings_reach_the_recipe_common_ones_first(tmp_path):
    told = claim(common={"train.steps": 5, "model.layers": 3, "optim.weight_decay": 0.2})
    told["arms"][0]["set"] = {"model.layers": 4, "objective.credit": {"kind": "gain", "clip": 0.5}}
    found = read(tmp_path, told)
    first, second = (recipe_of(found, arm, 7, 0.002) for arm in found.trained)
    assert (first.train.steps, second.train.steps) == (5, 5)
    assert (first.model.layers, second.model.layers) == (4, 3)
    assert (first.seed, first.optim.lr, first.optim.weight_decay) == (7, 0.002, 0.2)
    assert (first.objective.credit.kind, first.objective.credit.clip) == ("gain", 0.5)
    assert recipe_of(found, found.trained[0], 7, 0.002, steps=3).train.steps == 3
    refuse_unlike(found)


@pytest.mark.parametrize(
    ("path", "value", "why"),
    [
        ("model.depht.threshold", 0.5, "no setting model.depht.threshold"),
        ("model.lairs", 3, "There are here: .*layers"),
        ("train.steps.more", 3, "no setting"),
        ("train.steps", "many", "train.steps"),
        ("train.window", 0, "window"),
    ],
)
def test_settings_that_lead_nowhere_are_refused(tmp_path, path, value, why):
    told = claim()
    told["arms"][0]["set"] = {path: value}
    found = read(tmp_path, told)
    with pytest.raises(ConfigError, match=why):
        recipe_of(found, found.trained[0], 0, 0.001)


def test_arms_have_to_read_the_same_text_in_the_same_way(tmp_path):
    told = claim()
    told["arms"][1]["set"] = {"train.window": 32}
    with pytest.raises(ConfigError, match=r"differ in train\.window"):
        refuse_unlike(read(tmp_path, told))
    told["arms"][1] = {"name": "b", "preset": "no/such"}
    with pytest.raises(ConfigError, match="no preset"):
        refuse_unlike(read(tmp_path, told))


def test_a_quick_claim_is_the_same_in_little(tmp_path):
    told = claim(seeds=[0, 1, 2, 3, 4], eval_tokens=10**6, common={"train.steps": 900})
    told["arms"][0]["set"] = {"train.steps": 800, "model.layers": 3}
    quick = quickened(read(tmp_path, told))
    assert quick.seeds == (0, 1) and quick.eval_tokens < 10_000
    assert [recipe_of(quick, arm, 0, 0.001).train.steps for arm in quick.trained] == [20, 20]
    assert recipe_of(quick, quick.trained[0], 0, 0.001).model.layers == 3


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_the_shipped_claims_can_be_tested(path):
    found = read_claim(path)
    refuse_unlike(found)
    refuse_unlike(quickened(found))
    used = [arm.effort for arm in found.arms if isinstance(arm, UsedArm)]
    assert any(isinstance(effort, Matched) for effort in used)
    if path.stem != "smoke":
        assert len(found.seeds) >= 5 and found.statement.by >= 0.01 and found.statement.p <= 0.01
        assert len(found.tuning.learning_rates) >= 3
