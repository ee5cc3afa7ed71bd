"""`ouro train --specialization --wandb-mode --test`: each stands for options that could be written out."""

import json

import pytest

from ourospec.cli.shortcuts import spell_out

TRIAL = ["--train.device", "cpu", "--train.steps", "10"]
TOKENS = ["--train.eval-tokens", "2000"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("recursive_lm --specialization speed --seed 3", "recursive_lm/speed --seed 3"),
        ("recursive_lm --seed 3 --specialization=memory", "recursive_lm/memory --seed 3"),
        ("a/b --wandb-mode online --quiet", "a/b --quiet --wandb online"),
        ("a/b --wandb_mode=disabled", "a/b --wandb off"),
        ("a/b --prompts x y --wandb-mode offline", "a/b --prompts x y --wandb offline"),
        ("a/b --seed 3", "a/b --seed 3"),
    ],
)
def test_what_they_stand_for(typed, meant):
    start, *arguments = typed.split()
    first, *rest = meant.split()
    assert spell_out(start, arguments) == (first, rest)


@pytest.mark.parametrize(
    ("more", "rows"),
    [
        ([], ["--train.batch-size", "2", "--train.micro-batch-size", "2"]),
        (["--train.batch-size", "8"], ["--train.micro-batch-size", "8"]),
        (["--train.batch_size=8", "--train.micro-batch-size", "4"], []),
    ],
)
def test_a_trial_sets_what_was_not_set_by_hand(more, rows):
    assert spell_out("a/b", ["--test", *more])[1] == ["--test", *more, *TRIAL, *rows, *TOKENS]


def test_a_trial_trains_a_few_rows_beside_the_run_itself(ouro, tmp_path, monkeypatch, short_puzzles):
    monkeypatch.chdir(tmp_path)
    puzzles = short_puzzles[2:]
    code, out, _ = ouro("train", "dense_lm/smoke", "--test", *puzzles)
    assert code == 0
    (run,) = (tmp_path / "runs").iterdir()
    train = json.loads((run / "recipe.json").read_text())["train"]
    assert run.name == "test-dense_lm-smoke"
    assert f"ouro generate {run.relative_to(tmp_path)} --puzzle 1" in out
    assert [train[name] for name in ("steps", "batch_size", "micro_batch_size", "device")] == [
        10,
        2,
        2,
        "cpu",
    ]
    code, out, _ = ouro(
        "train", "dense_lm/smoke", "--test", "--train.batch-size", "6", "--print-config", *puzzles
    )
    train = json.loads(out)["train"]
    assert code == 0 and (train["batch_size"], train["micro_batch_size"]) == (6, 6)


def test_a_specialization_is_a_preset(ouro):
    named = ouro("train", "recursive_lm", "--specialization", "memory", "--print-config")
    assert named[0] == 0 and named == ouro("train", "recursive_lm/memory", "--print-config")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("recursive_lm --specialization memry", "reasoning, memory, speed"),
        ("recursive_lm --specialization", "has no specialization ''"),
        ("recursive_lm/tiny_memory --specialization memory", "goes with a family alone"),
        ("dense_lm/smoke --wandb-mode sometimes", "offline, online, disabled"),
        ("dense_lm/smoke --wandb --wandb-mode online", "mean the same"),
        (
            "dense_lm/smoke --test --train.micro-batch-size 4",
            "micro_batch_size (4) must divide batch_size (2)",
        ),
    ],
)
def test_what_cannot_be_meant_is_said(ouro, typed, told):
    code, _, err = ouro("train", *typed.split())
    assert code == 2 and told in err
