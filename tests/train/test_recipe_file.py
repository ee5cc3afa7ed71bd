"""A directory belongs to one recipe."""

import json
from pathlib import Path

import pytest

from ourospec.errors import ConfigError, ResourceError
from ourospec.runs import RunDirectory
from ourospec.train.recipe_file import recipe_digest, record_recipe, refuse_other_recipe

RECIPE = {"name": "x", "optim": {"lr": 0.001, "beta1": 0.9}, "prompts": ["a", "b"], "data": {}}


def test_the_digest_is_of_the_meaning() -> None:
    reordered = dict(reversed(RECIPE.items()))
    assert recipe_digest(json.dumps(RECIPE)) == recipe_digest(json.dumps(reordered, indent=2))
    assert recipe_digest(json.dumps(RECIPE)) != recipe_digest(json.dumps({**RECIPE, "name": "y"}))


def test_a_new_directory_takes_any_recipe_and_the_same_again(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "new" / "run")
    refuse_other_recipe(run, json.dumps(RECIPE))
    record_recipe(run, json.dumps(RECIPE))
    refuse_other_recipe(run, json.dumps(RECIPE, indent=4))
    before = run.recipe.read_text()
    record_recipe(run, json.dumps(RECIPE, indent=4))
    assert run.recipe.read_text() == before


def test_another_recipe_is_refused_field_by_field(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    record_recipe(run, json.dumps(RECIPE))
    other = {**RECIPE, "optim": {"lr": 0.002, "beta1": 0.9}, "prompts": ["a"], "seed": 1}
    del other["data"]
    with pytest.raises(ConfigError) as caught:
        refuse_other_recipe(run, json.dumps(other))
    lines = str(caught.value).splitlines()
    assert lines[1:5] == [
        "  optim.lr: 0.001 there, 0.002 here",
        '  prompts: ["a", "b"] there, ["a"] here',
        "  data: {} there, absent here",
        "  seed: absent there, 1 here",
    ]
    assert "beta1" not in str(caught.value)
    assert "--run" in caught.value.remedy


def test_a_long_difference_is_cut(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    record_recipe(run, json.dumps({str(i): 0 for i in range(50)}))
    with pytest.raises(ConfigError, match="and 30 more"):
        refuse_other_recipe(run, json.dumps({str(i): 1 for i in range(50)}))


def test_the_files_of_a_run_without_its_recipe_are_not_taken_over(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.events.write_text("")
    refuse_other_recipe(run, json.dumps(RECIPE))  # an observer that came early
    run.events.write_text('{"kind": "start"}\n')
    with pytest.raises(ConfigError, match=r"no recipe\.json"):
        refuse_other_recipe(run, json.dumps(RECIPE))


def test_an_unreadable_recipe_is_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.recipe.write_text('{"name": ')
    with pytest.raises(ConfigError, match="cannot be read"):
        refuse_other_recipe(run, json.dumps(RECIPE))


def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="Writing the recipe failed"):
        record_recipe(RunDirectory(tmp_path / "file" / "run"), json.dumps(RECIPE))
