"""`ouro train --tensorboard --wandb`: other tools' files beside ours, only where they were asked for."""

import sys

import pytest

from ourospec.cli.train import resolve, spelt_out


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--wandb"], ["--wandb", "offline"]),
        (["--wandb", "--seed", "1"], ["--wandb", "offline", "--seed", "1"]),
        (["--wandb", "online"], ["--wandb", "online"]),
        (["--wandb=online", "--quiet"], ["--wandb=online", "--quiet"]),
        (["--prompts", "wandb"], ["--prompts", "wandb"]),
    ],
)
def test_the_mode_may_be_left_away(typed, meant):
    assert spelt_out(typed) == meant


def test_nothing_is_asked_of_other_tools_by_default():
    options = resolve("dense_lm/smoke", [])[1]
    assert (options.tensorboard, options.wandb) == (False, "off")
    assert resolve("dense_lm/smoke", ["--tensorboard", "--wandb"])[1].wandb == "offline"


@pytest.mark.parametrize("package", ["tensorboard", "wandb"])
def test_a_missing_package_ends_with_4_before_anything_is_written(
    ouro, corpus, tmp_path, monkeypatch, package
):
    for name in ("wandb", "tensorboard.compat.proto"):
        monkeypatch.setitem(sys.modules, name, None)
    run = tmp_path / "run"
    code, _, err = ouro("train", "dense_lm/smoke", "--run", str(run), *corpus, f"--{package}")
    assert code == 4
    assert f"pip install 'ourospec[{package}]'" in err
    assert not run.exists()


def test_a_word_that_is_no_mode_names_those_that_are(ouro):
    assert ouro("train", "dense_lm/smoke", "--wandb", "somewhere")[0] == 2
