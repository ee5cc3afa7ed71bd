"""Epochs in place of steps: resolved once, exact, and refused where the data never ends."""

from __future__ import annotations

import json
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ourospec.errors import ConfigError
from ourospec.runs import RunDirectory
from ourospec.train.config import TrainConfig
from ourospec.train.recipe_file import record_recipe, refuse_other_recipe


class Rows(NamedTuple):
    steps_per_epoch: float | None


@given(st.integers(1, 10**7), st.integers(1, 512), st.integers(1, 10_000))
def test_steps_are_the_least_that_see_so_many_epochs(rows: int, batch: int, hundredths: int) -> None:
    settings = TrainConfig(epochs=hundredths / 100, eval_every=7).settled(Rows(rows / batch))
    assert settings.steps == max(1, ceil(Fraction(hundredths * rows, 100 * batch)))
    assert settings.eval_every == 7


@given(st.floats(0.01, 50), st.integers(1, 5_000), st.integers(1, 64), st.sampled_from([0, 3]))
def test_what_is_settled_stays(epochs: float, rows: int, batch: int, eval_every: int) -> None:
    """So that the recipe in a run directory, which has both, gives itself."""
    stream = Rows(rows / batch)
    once = TrainConfig(epochs=epochs, eval_every=eval_every).settled(stream)
    assert once.settled(stream) == once
    assert TrainConfig.model_validate_json(once.model_dump_json()) == once
    assert once.eval_every == (eval_every or max(1, round(rows / batch)))


def test_without_epochs_nothing_changes_and_nothing_is_asked_of_the_stream() -> None:
    settings = TrainConfig(steps=5, eval_every=0)
    assert settings.settled(object()) is settings and settings.unsettled == ()


@pytest.mark.parametrize("stream", [Rows(None), object()])
def test_data_without_an_end_has_no_epochs(stream: object) -> None:
    with pytest.raises(ConfigError, match=r"train.epochs is 2.5, but this training data never") as caught:
        TrainConfig(epochs=2.5).settled(stream)
    assert "--train.steps" in caught.value.remedy and "--train.epochs 0" in caught.value.remedy


def test_what_is_off_is_not_written() -> None:
    later = {"epochs", "patience", "min_improvement", "keep_best"}
    assert not later & json.loads(TrainConfig().model_dump_json()).keys()
    on = TrainConfig(epochs=1.0, patience=3, min_improvement=0.5, keep_best=True)
    assert later <= json.loads(on.model_dump_json()).keys()
    assert TrainConfig.model_validate_json(on.model_dump_json()) == on
    assert json.loads(TrainConfig(eval_every=0, sample_every=0).model_dump_json())["eval_every"] == 0


def test_patience_without_evaluations_is_refused() -> None:
    with pytest.raises(ValidationError, match="set eval_every"):
        TrainConfig(patience=5, eval_every=0)
    assert TrainConfig(patience=5, eval_every=0, epochs=2.0).patience == 5


def test_a_directory_is_not_refused_for_what_its_data_decided(tmp_path: Path) -> None:
    def recipe(steps: int, window: int, **train: object) -> str:
        return json.dumps({"train": {"steps": steps, "window": window, "epochs": 2.0, **train}})

    run = RunDirectory(tmp_path)
    record_recipe(run, recipe(17, 64))
    unsettled = TrainConfig(epochs=2.0).unsettled
    refuse_other_recipe(run, recipe(300, 64), unsettled)
    with pytest.raises(ConfigError, match=r"train\.window: 64 there, 32 here"):
        refuse_other_recipe(run, recipe(300, 32), unsettled)
    with pytest.raises(ConfigError, match=r"train\.steps: 17 there, 300 here"):
        refuse_other_recipe(run, recipe(300, 64))
