"""Epochs, patience and best weights from the command line: resolved once, resumed by the same command, used by name."""

import json
import re

import pytest

from ourospec.runs import RunDirectory

SMALL = ["--prompts", "x", "--train.sample-every", "0", "--train.batch-size", "8"]


def recipe_of(run):
    return json.loads((run / "recipe.json").read_text())


def events_of(run, kind):
    return [event for event in RunDirectory(run).read_events() if event["kind"] == kind]


@pytest.fixture(scope="module")
def epoch_command(corpus):
    """Trains for a fraction of an epoch that is a few steps."""
    return ["train", "dense_lm/smoke", *corpus, *SMALL, "--train.epochs", "0.25", "--train.keep-best", "true"]


@pytest.fixture(scope="module")
def epoch_run(epoch_command, tmp_path_factory):
    from ourospec import cli

    run = tmp_path_factory.mktemp("runs") / "epochs"
    assert cli.main([*epoch_command, "--run", str(run), "--train.eval-every", "2", "--quiet"]) == 0
    return run


def test_epochs_are_resolved_into_steps_and_both_are_written(epoch_run):
    train, (start, *_) = recipe_of(epoch_run)["train"], events_of(epoch_run, "start")
    windows = (start["data"]["train"]["tokens"] - train["window"]) // train["window"]
    assert train["epochs"] == 0.25 and train["steps"] == -(-windows // (4 * 8)) > 2
    assert start["total_steps"] == train["steps"] == events_of(epoch_run, "end")[0]["step"]


def test_the_same_command_and_the_directory_go_on_with_it(epoch_command, epoch_run, ouro):
    again = [*epoch_command, "--run", str(epoch_run), "--train.eval-every", "2"]
    steps = recipe_of(epoch_run)["train"]["steps"]
    for command in (again, ["train", str(epoch_run)]):
        code, out, err = ouro(*command)
        assert code == 0, err
        assert f"was trained to its end before: {steps} of {steps} steps" in out
    code, _, err = ouro(*again, "--train.epochs", "0.5")
    assert code == 2 and "train.epochs: 0.25 there, 0.5 here" in err


def test_plan_knows_the_steps(epoch_command, epoch_run, ouro):
    code, out, err = ouro("plan", *epoch_command[1:], "--no-measure")
    assert code == 0, err
    assert f"{recipe_of(epoch_run)['train']['steps']} steps, " in out and "0.25 epochs" in out
    code, out, _ = ouro("plan", *epoch_command[1:], "--no-measure", "--json")
    assert json.loads(out)["steps"] == recipe_of(epoch_run)["train"]["steps"]


@pytest.mark.parametrize("verb", ["train", "plan", "sweep"])
def test_two_lengths_refuse_each_other(epoch_command, tmp_path, ouro, verb):
    more = {"train": ["--run", str(tmp_path / "run")], "plan": ["--no-measure"], "sweep": ["--seeds", "1"]}
    code, _, err = ouro(verb, *epoch_command[1:], *more[verb], "--train.steps", "9")
    assert code == 2 and "--train.steps 9 says how long to train" in err and "--train.epochs 0" in err
    assert not (tmp_path / "run").exists()


def test_steps_may_take_the_place_of_epochs(epoch_run, tmp_path, ouro):
    run = tmp_path / "run"
    steps = ["--train.steps", "1", "--train.epochs", "0"]
    code, _, err = ouro("train", str(epoch_run), "--run", str(run), *steps, "--quiet")
    assert code == 0, err
    assert recipe_of(run)["train"]["steps"] == 1 and "epochs" not in recipe_of(run)["train"]


def test_without_an_interval_every_epoch_is_evaluated(epoch_command, tmp_path, ouro):
    run = tmp_path / "run"
    # Windows as long as this make an epoch of a few steps.
    more = [
        "--train.epochs",
        "2.5",
        "--train.eval-every",
        "0",
        "--train.window",
        "250",
        "--model.max-length",
        "250",
    ]
    code, _, err = ouro(*epoch_command, *more, "--run", str(run), "--quiet")
    assert code == 0, err
    train = recipe_of(run)["train"]
    every, steps = train["eval_every"], train["steps"]
    assert 2.5 * (every - 0.5) <= steps <= 2.5 * (every + 0.5) + 1
    assert [event["step"] for event in events_of(run, "eval")] == [every, 2 * every, steps]


def test_puzzles_without_an_end_have_no_epochs(ouro, tmp_path):
    puzzle = ["--data.source", "puzzle", "--data.tokenizer", "byte", "--train.epochs", "2"]
    code, _, err = ouro("train", "dense_lm/smoke", "--run", str(tmp_path / "run"), *puzzle)
    assert code == 2 and "never comes to an end" in err and "--train.steps N --train.epochs 0" in err
    assert not (tmp_path / "run" / "recipe.json").exists()


def test_the_best_weights_are_used_and_told(epoch_run, ouro):
    evaluations = events_of(epoch_run, "eval")
    best = min(evaluations, key=lambda event: event["loss"])
    assert events_of(epoch_run, "end")[0]["best_step"] == best["step"]
    code, out, err = ouro("evaluate", str(epoch_run), "--checkpoint", "best", "--json")
    assert code == 0, err
    assert json.loads(out)["step"] == best["step"]
    code, out, err = ouro(
        "generate", str(epoch_run), "--checkpoint", "best", "--max-new-tokens", "2", "--json"
    )
    assert code == 0, err
    page = (epoch_run / "report.html").read_text(encoding="utf-8")
    assert re.search(rf"Best weights.{{0,40}}step {best['step']}, loss", page, re.S)


def test_a_run_without_best_weights_says_how_to_keep_them(trained, ouro):
    code, _, err = ouro("evaluate", trained.run, "--checkpoint", "best")
    assert code == 4 and "keeps no best weights" in err and "--train.keep-best true" in err


def test_text_ends_early_and_the_console_names_the_best(epoch_command, tmp_path, ouro):
    run = tmp_path / "run"
    more = [
        "--train.epochs",
        "1",
        "--train.eval-every",
        "2",
        "--train.patience",
        "4",
        "--train.min-improvement",
        "9",
    ]
    code, out, err = ouro(*epoch_command, *more, "--run", str(run))
    assert code == 0, err
    (end,) = events_of(run, "end")
    assert end["step"] == 6 < recipe_of(run)["train"]["steps"], "the first evaluation was at step 2"
    assert end["stopped_early"] in out and f"at step {end['best_step']}" in out
