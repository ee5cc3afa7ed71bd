"""`ouro plan`: its figures, and the command it ends with."""

import json
import shlex

import pytest


@pytest.mark.parametrize("preset", ["adaptive_lm/smoke", "dense_lm/smoke"])
def test_plan_without_measuring(corpus, ouro, preset):
    code, out, _ = ouro("plan", preset, "--no-measure", "--json", *corpus)
    figures = json.loads(out)
    assert code == 0
    assert figures["parameters_total"] == sum(figures["parameters"].values())
    assert figures["flops_per_token"] > 2 * 32 * 32
    assert figures["checkpoint"] >= 3 * 4 * figures["parameters_total"]
    assert "hours" not in figures


def test_plan_measures_and_speaks_of_hours_memory_and_disk(corpus, ouro, monkeypatch):
    monkeypatch.setattr("ourospec.cli.plan.SECONDS", 0.3)
    code, out, _ = ouro("plan", "adaptive_lm/smoke", *corpus)
    assert code == 0
    for word in ("Parameters", "FLOP forward", "activations", "checkpoint", "tokens/s", "whole run"):
        assert word in out
    figures = json.loads(ouro("plan", "adaptive_lm/smoke", "--json", *corpus)[1])
    assert figures["hours"] > 0
    assert figures["memory_total"] > figures["memory"]["activations"] > 0


def test_plan_ends_with_the_command_that_trains_what_was_planned(corpus, ouro):
    changes = ["--train.steps", "7", "--prompts", "def ", "x", *corpus]
    code, out, _ = ouro("plan", "adaptive_lm/smoke", "--no_measure", *changes)
    assert code == 0
    words = shlex.split(out.partition("Train it:")[2])
    assert words[1:] == ["train", "adaptive_lm/smoke", *changes]
    recipe = json.loads(ouro(*words[1:], "--print-config")[1])
    assert (recipe["train"]["steps"], recipe["prompts"]) == (7, ["def ", "x"])


def test_plan_leaves_nothing_behind(corpus, ouro, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ouro("plan", "dense_lm/smoke", "--no-measure", *corpus)[0] == 0
    assert list(tmp_path.iterdir()) == []


def test_plan_speaks_of_what_the_model_predicts(ouro):
    some = ["--data.source", "wigner", "--data.source.count", "4000"]
    code, out, err = ouro("plan", "spacing_mdn/smoke_tones", "--no-measure", *some)
    assert code == 0, err
    assert "Per spacing" in out and "20 steps, 2.64 k spacings" in out
    assert "token" not in out and "pass" not in out
