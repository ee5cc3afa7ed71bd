"""`ouro claim`, from file to verdict: what it finds, what it writes, and that a kill changes nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ourospec import cli
from ourospec.claims.config import MixedArm, read_claim
from ourospec.claims.harness import Harness, mixed
from ourospec.claims.parts import Workshop
from ourospec.claims.results import as_data, picture, write_results
from ourospec.errors import ConfigError


class Killed(BaseException):
    """Raised in place of a kill."""


@pytest.fixture(scope="module")
def finished(claim_file, tmp_path_factory):
    """Findings of a run that was stopped twice on the way: (findings, folder, what was told)."""
    folder, told = tmp_path_factory.mktemp("out"), []
    for patience in (3, 9, 1_000):
        calls = []

        def tell(what, calls=calls, patience=patience):
            calls.append(what)
            if len(calls) > patience:
                raise Killed

        try:
            with Workshop(folder, tell=tell) as workshop:
                found = Harness(read_claim(claim_file), workshop).run()
        except Killed:
            pass
        told.append(calls)
    return found, folder, told


def test_a_stopped_claim_goes_on_where_it_was(finished):
    _, folder, told = finished
    done = [what.split(" (")[0] for calls in told for what in calls if " of " in what and "(" in what]
    # The part that was announced when the axe fell is announced again; no other is.
    assert len(done) - len(set(done)) == 2
    assert not set(told[0][:3]) & set(told[1])
    names = [path.name for path in (folder / "runs").iterdir()]
    # 2 arms x 2 learning rates with the first seed, and the second seed with the rate chosen; trials are whole runs
    # here, so that the chosen ones are the runs themselves.
    assert len(names) == 2 * 2 + 2


def test_every_arm_is_scored_on_the_same_documents(finished):
    found, _, _ = finished
    claim = found.claim
    tokens = {tuple(seed["tokens"]) for arm in claim.arms for seed in found.scores[arm.name]}
    assert len(tokens) == 1
    assert all(len(found.scores[arm.name]) == 2 for arm in claim.arms)


def test_matched_arms_execute_as_many_flops(finished):
    found, _, _ = finished
    wanted = np.array(found.total("two", "flops"))
    assert np.abs(np.array(found.total("as_two", "flops")) / wanted - 1).max() < 0.03
    # Not to the last: a later token's pass sees more keys.
    for name in ("shuffled", "even", "mixture", "oracle"):
        np.testing.assert_allclose(found.total(name, "flops"), found.total("as_two", "flops"), rtol=3e-3)
    np.testing.assert_allclose(found.total("shuffled", "passes"), found.total("as_two", "passes"))
    np.testing.assert_allclose(found.total("even", "passes"), found.total("as_two", "passes"))


def test_forced_passes_and_the_oracle_are_what_they_say(finished):
    found, _, _ = finished
    assert found.total("one", "passes") == [1.0, 1.0]
    assert found.total("two", "passes") == [2.0, 2.0]
    forced = [found.total(name, "nats") for name in ("one", "as_two")]
    assert all(
        oracle <= one + 1e-9 for oracle, one in zip(found.total("oracle", "nats"), forced[0], strict=True)
    )


def test_learning_rates_are_tuned_alike_and_an_edge_is_told(finished):
    found, _, _ = finished
    assert all(set(trials) == {0.001, 0.003} for trials in found.trials.values())
    for name, trials in found.trials.items():
        assert found.rates[name] == min(trials, key=lambda rate: trials[rate])
    assert len(found.warnings) == 2 and "edge of the grid" in found.warnings[0]


def test_leaks_are_looked_for_in_every_trained_model(finished):
    found, _, _ = finished
    assert set(found.leaks) == {"adaptive", "two"}
    assert all(leak["held"] for seeds in found.leaks.values() for leaks in seeds for leak in leaks)


def test_costs_are_those_of_the_models_behind_an_arm(finished):
    found, _, _ = finished
    for axis in ("parameters", "training_flops"):
        assert found.cost("shuffled", axis) == found.cost("adaptive", axis) > 0
        assert found.cost("mixture", axis) == found.cost("adaptive", axis)
        assert found.cost("beside", axis) == found.cost("adaptive", axis) + found.cost("two", axis)
    assert found.cost("adaptive", "wall_clock") > 0 and found.cost("shuffled", "wall_clock") is None
    assert found.cost("adaptive", "training_flops") > found.cost("two", "training_flops")


def test_a_failed_leak_test_and_a_quick_run_forbid_the_verdict(finished):
    found, _, _ = finished
    assert any("quick run" in reason for reason in found.verdict(True).reasons)
    assert not any("leak" in reason for reason in found.verdict(False).reasons)
    test = found.leaks["two"][1][0]
    test["held"] = False
    try:
        assert f"a leak test failed: two, seed 1: {test['name']}" in found.verdict(False).reasons
    finally:
        test["held"] = True


def test_the_results_say_no_more_than_the_verdict(finished, tmp_path):
    found, _, _ = finished
    verdict = found.verdict(True)
    paths = write_results(found, verdict, tmp_path, True)
    page, data = paths[1].read_text(), json.loads(paths[0].read_text())
    assert verdict.sentence in page and "better" not in page
    assert data["verdict"]["shown"] is False
    assert all(f"| {arm.name} |" in page for arm in found.claim.arms)
    assert set(data["differences"]) == {arm.name for arm in found.claim.arms} - {"as_two"}
    assert data["arms"]["as_two"]["efforts"][0]["threshold"] is not None
    assert paths[2].stat().st_size > 10_000
    assert data["curves"].keys() == {"adaptive"}
    # 9 passes are more than the model runs, and left out.
    assert [point["effort"] for point in data["curves"]["adaptive"]] == ["threshold 0.5", "max 1"]


def test_the_picture_shows_every_arm(finished):
    found, _, _ = finished
    figure = picture(found)
    named = [trace["name"] for trace in figure.data if trace.get("showlegend") is not False]
    assert sorted(named) == sorted(arm.name for arm in found.claim.arms)
    for trace in figure.data:
        assert np.isfinite(trace["x"]).all() and np.isfinite(trace["y"]).all()


def test_a_mixture_lies_between_its_parts():
    def scores(nats, flops):
        each = {name: [1, 1] for name in ("tokens", "positions", "bytes")}
        return {**each, "nats": nats, "flops": flops, "passes": flops}

    arm = MixedArm(name="m", mix=("a", "b"), to="c")
    cheap, dear = scores([4.0, 2.0], [1.0, 1.0]), scores([2.0, 1.0], [3.0, 3.0])
    half = mixed(arm, cheap, dear, scores([0.0, 0.0], [2.0, 2.0]))
    assert (half["nats"], half["flops"], half["share"]) == ([3.0, 1.5], [2.0, 2.0], 0.5)
    assert mixed(arm, cheap, dear, scores([0.0, 0.0], [3.01, 3.01]))["share"] == 1.0
    asked = [
        {**one, "answers": [1, 1], "right": right, "bins": {"b": [sum(right), 2]}}
        for one, right in ((cheap, [0, 0]), (dear, [1, 0]))
    ]
    exact = mixed(arm, *asked, scores([0.0, 0.0], [2.0, 2.0]))
    assert (exact["answers"], exact["right"], exact["bins"]) == ([1, 1], [0.5, 0.0], {"b": [0.5, 2.0]})
    with pytest.raises(ConfigError, match="not between"):
        mixed(arm, cheap, dear, scores([0.0, 0.0], [4.0, 4.0]))


def test_the_verb_prints_tables_and_a_verdict(claim_file, finished, capsys):
    found, folder, _ = finished
    capsys.readouterr()
    assert cli.main(["claim", str(claim_file), "--out", str(folder)]) == 0
    printed = capsys.readouterr()
    verdict = found.verdict(False)
    assert verdict.sentence in printed.out
    assert ("better" in printed.out) == verdict.shown
    assert str(folder / "curve.png") in printed.out
    assert "(1 of" not in printed.err, "nothing was left to do"
    assert cli.main(["claim", str(claim_file), "--out", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["arms"].keys() == {arm.name for arm in found.claim.arms}


def test_a_claim_that_cannot_be_meant_ends_with_advice(tmp_path, capsys):
    (tmp_path / "bad.json").write_text("{}")
    assert cli.main(["claim", str(tmp_path / "bad.json")]) == 2
    assert "docs/claim.md" in capsys.readouterr().err
    assert cli.main(["claim", str(tmp_path / "bad.json"), "--jobs", "0"]) == 2


def figures(folder: Path):
    """What must not depend on how often a claim was killed: everything but times."""
    data = json.loads((folder / "claim.json").read_text())
    told = {name: arm["loss_by_seed"] for name, arm in data["arms"].items()}
    return told, data["learning_rates"], [run["flops"] for runs in data["training"].values() for run in runs]


@pytest.mark.slow
def test_killed_and_started_again_it_ends_the_same(claim_file, tmp_path):
    """kill -9, two processes at a time, at moments that lie all over the run."""

    def start(folder):
        command = [sys.executable, "-m", "ourospec.cli", "claim", str(claim_file), "--jobs", "2"]
        return subprocess.Popen(
            [*command, "--out", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    whole = start(tmp_path / "whole")
    began = time.monotonic()
    output = whole.communicate()[0]
    took = time.monotonic() - began
    assert whole.returncode == 0, output
    kills = 0
    for moment in (0.3, 0.45, 0.3, 0.6):
        process = start(tmp_path / "killed")
        try:
            process.communicate(timeout=moment * took)
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
            process.communicate()
            time.sleep(1)  # its workers notice that it is gone
    last = start(tmp_path / "killed")
    output = last.communicate()[0]
    assert last.returncode == 0, output
    assert kills >= 2
    assert figures(tmp_path / "killed") == figures(tmp_path / "whole")


def test_as_data_holds_no_path_of_this_machine(finished, claim_file):
    found, folder, _ = finished
    told = as_data(found, found.verdict(False), False)
    assert str(folder) not in json.dumps({key: value for key, value in told.items() if key != "environment"})
