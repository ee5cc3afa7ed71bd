import pytest

from ourospec.cli.suggest import did_you_mean, nearest

SETTINGS = {
    "--optim.lr": "Highest learning rate, reached at the end of the warm-up.",
    "--optim.final-lr-fraction": "Learning rate of the last step, as a fraction of the highest.",
    "--optim.weight-decay": "Share of a matrix's weight lost per step.",
    "--train.steps": "Optimiser steps of the whole run.",
    "--train.batch-size": "Rows per optimiser step.",
    "--model.width": "Width of the residual stream.",
}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--optim.learning_rate", "--optim.lr"),
        ("--optim.learning-rate", "--optim.lr"),
        ("--lr", "--optim.lr"),
        ("--steps", "--train.steps"),
        ("--train.step", "--train.steps"),
        ("--train.batchsize", "--train.batch-size"),
        ("--optim.weight_decy", "--optim.weight-decay"),
        ("--train.width", "--model.width"),
    ],
)
def test_the_setting_that_was_meant_comes_first(typed, meant):
    assert nearest(typed, SETTINGS)[0] == meant


def test_nothing_is_suggested_for_what_is_like_nothing():
    assert nearest("--zzz.qqq", SETTINGS) == []
    assert did_you_mean("zzz", ["train", "plan"]) == ""


def test_the_last_part_of_a_preset_finds_it_in_every_family():
    presets = ["adaptive_lm/tiny", "adaptive_lm/smoke", "dense_lm/tiny", "dense_lm/smoke"]
    assert set(nearest("tiny", presets)) == {"adaptive_lm/tiny", "dense_lm/tiny"}
    assert nearest("adaptive_lm/tinny", presets)[0] == "adaptive_lm/tiny"


def test_the_sentence():
    assert did_you_mean("trian", ["train", "plan"]) == "Did you mean train? "
