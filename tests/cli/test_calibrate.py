"""`ouro calibrate`, and the budgets of `ouro generate` and `ouro evaluate`, on a run whose gates differ."""

import json
import re
import shutil
from pathlib import Path

import pytest

import ourospec
from ourospec.contracts import Effort
from ourospec.errors import ConfigError
from ourospec.measure.calibration_record import Budget
from ourospec.serve.pace import decoding_pace

TOKENS = ("--tokens", "1500")


@pytest.fixture(scope="module")
def calibrated(trained, tmp_path_factory):
    """A copy of the trained run, calibrated for two budgets."""
    run = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(trained.path, run)
    ourospec.load(run).calibrate([1.3, 2.0], most_tokens=1_500)
    return str(run)


def test_calibrate_prints_a_table_and_keeps_it(trained, ouro, tmp_path):
    run = str(shutil.copytree(trained.path, tmp_path / "run"))
    code, out, _ = ouro("calibrate", run, "--budget", "1.4", "1.8", *TOKENS)
    assert code == 0
    assert "ms per token" not in out
    stored = json.loads((Path(run) / "calibration.json").read_text())
    assert [entry["amount"] for entry in stored["budgets"]] == [1.4, 1.8]
    for entry in stored["budgets"]:
        assert abs(entry["figures"]["mean_passes"] - entry["amount"]) <= 0.005
        assert entry["met"] is True
        assert entry["tokens"] <= 1_500
        assert f"{entry['figures']['mean_passes']:.3f} ±" in out
    assert re.search(r"^as trained ", out, re.M)
    assert re.search(r"^1\.4 passes: loss [+-]", out, re.M)
    data = json.loads(ouro("calibrate", run, "--budget", "1.6", "--json", *TOKENS)[1])
    assert [entry["amount"] for entry in data["budgets"]] == [1.4, 1.6, 1.8]
    assert data["step"] == 12
    assert data["dropped"] is None


def test_calibrate_for_time_prints_the_time(trained, ouro, tmp_path, monkeypatch):
    run = str(shutil.copytree(trained.path, tmp_path / "run"))
    monkeypatch.setattr("ourospec.loaded_model.decoding_pace", by_the_clockwork)
    for ms, word in (("4.5", "cannot be met here"), ("11.5", "more than this model can use")):
        code, _, err = ouro("calibrate", run, "--budget-ms", ms, *TOKENS)
        assert code == 2
        assert word in err
    code, out, _ = ouro("calibrate", run, "--budget-ms", "8", *TOKENS)
    assert code == 0
    assert "ms per token" in out
    entry = json.loads((Path(run) / "calibration.json").read_text())["budgets"][0]
    assert entry["unit"] == "ms"
    assert entry["met"] is True
    assert entry["pace"]["ms"] == pytest.approx(8, rel=0.03)
    assert entry["pace_as_trained"]["mean_passes"] >= 1
    data = json.loads(ouro("generate", run, "--budget-ms", "8", "--max-new-tokens", "4", "--json")[1])
    assert data["budget_ms"] == 8


def by_the_clockwork(*arguments):
    """Decoding that takes 2 ms a token and 3 ms a pass, however busy the machine is."""
    return [pace._replace(ms=2 + 3 * pace.mean_passes, spread=0.0) for pace in decoding_pace(*arguments)]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "no budget"),
        (("--budget", "0.5"), "at least 1 pass"),
        (("--budget", "9"), "to 3.000 passes"),
        (("--budget", "nan"), "cannot be met"),
        (("--budget", "1.3", "--tokens", "0"), "--tokens 20000"),
        (("--budget", "2.5", "--readout", "size"), "direction"),
    ],
)
def test_calibrate_refuses_what_cannot_be(calibrated, ouro, arguments, expected):
    code, _, err = ouro("calibrate", calibrated, *TOKENS, *arguments)
    assert code == 2
    assert expected in err


def test_a_plain_model_has_nothing_to_calibrate(corpus, ouro, tmp_path):
    run = str(tmp_path / "run")
    steps = ["--train.steps", "1", "--prompts", "x", "--quiet"]
    assert ouro("train", "dense_lm/smoke", "--run", run, *steps, *corpus)[0] == 0
    code, _, err = ouro("calibrate", run, "--budget", "1.3", *TOKENS)
    assert code == 2
    assert "no gates" in err
    assert not (Path(run) / "calibration.json").exists()


def test_evaluate_and_generate_stay_in_a_budget_and_say_so(calibrated, ouro):
    data = json.loads(ouro("evaluate", calibrated, "--budget", "1.3", "--json")[1])
    assert data["budget"] == 1.3
    assert abs(data["mean_passes"] - 1.3) < 0.3
    more = json.loads(ouro("evaluate", calibrated, "--budget", "2", "--json")[1])
    assert more["mean_passes"] > data["mean_passes"]
    assert "the budget: 1.3" in ouro("evaluate", calibrated, "--budget", "1.3")[1]
    arguments = ("generate", calibrated, "--max-new-tokens", "8", "--budget", "2")
    code, _, err = ouro(*arguments)
    assert code == 0
    assert re.search(r"\[8 tokens, [\d.]+ passes per layer \(budget 2\)", err)
    data = json.loads(ouro(*arguments, "--json")[1])
    assert data["budget"] == 2
    assert data["mean_passes"] >= 1


def test_what_a_budget_does_is_what_its_threshold_does(calibrated):
    model = ourospec.load(calibrated)
    threshold = model.effort_for(2).threshold
    assert threshold == model.effort_for(Budget(2.0)).threshold
    text = "def name(x):\n    return x\n"
    assert model.score(text, budget=2) == model.score(text, effort=Effort(threshold=threshold))
    # A text begins with the threshold of the nearest budget that was calibrated, and leaves it as it goes.
    for budget in (2, 1.8):
        receipt = model.generate("def ", budget=budget, max_new_tokens=6).receipt
        assert receipt.thresholds[0] == pytest.approx(threshold)
    with pytest.raises(ConfigError, match="together"):
        model.score(text, budget=2, effort=Effort(threshold=0.3))


def test_budgets_that_were_not_calibrated_end_with_the_command_that_helps(calibrated, trained, ouro):
    code, _, err = ouro("evaluate", calibrated, "--budget", "1.7")
    assert code == 2
    assert "only for 1.3 passes, 2 passes" in err
    assert f"ouro calibrate {calibrated} --budget 1.7" in err
    code, _, err = ouro("evaluate", trained.run, "--budget", "1.7")
    assert code == 2
    assert "has no calibration" in err


@pytest.mark.parametrize("verb", ["generate", "evaluate"])
def test_a_budget_and_a_depth_are_one_too_many(calibrated, ouro, verb):
    for other in (("--threshold", "0.3"), ("--max-passes", "2"), ("--budget-ms", "3")):
        code, _, err = ouro(verb, calibrated, "--budget", "1.3", *other)
        assert code == 2
        assert "Leave" in err


def test_a_calibration_of_an_earlier_checkpoint_is_refused_and_made_anew(calibrated, ouro, tmp_path):
    run = shutil.copytree(calibrated, tmp_path / "run")
    path = run / "calibration.json"
    earlier = {**json.loads(path.read_text()), "step": 7, "weights": "0" * 64}
    path.write_text(json.dumps(earlier))
    code, _, err = ouro("evaluate", str(run), "--budget", "1.3")
    assert code == 2
    assert "after step 7" in err
    assert "after step 12" in err
    code, out, _ = ouro("calibrate", str(run), "--budget", "1.3", *TOKENS)
    assert code == 0
    assert "Dropped: what was calibrated for the weights after step 7 (1.3 passes, 2 passes)." in out
    assert ouro("evaluate", str(run), "--budget", "1.3")[0] == 0
    assert ouro("evaluate", str(run), "--budget", "2")[0] == 2
