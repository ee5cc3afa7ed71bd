"""`ouro distill` on a trained run: the student's run, the comparison, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import ourospec
from ourospec.cli import distill

SHORT = ("--steps", "4", "--tokens", "800")


@pytest.fixture(scope="module")
def teacher(trained: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy of the trained run: comparing calibrates it."""
    return str(shutil.copytree(trained.path, tmp_path_factory.mktemp("teachers") / "teacher"))


@pytest.fixture(scope="module")
def student(teacher: str) -> Path:
    """Distilled once for all tests."""
    from ourospec import cli

    assert cli.main(["distill", teacher, "--budget", "1.4", *SHORT, "--quiet"]) == 0
    return Path(f"{teacher}-distilled-1.4")


def test_a_student_is_a_run_like_any_other(teacher: str, student: Path, ouro: Any) -> None:
    recipe = json.loads((student / "recipe.json").read_text())
    assert recipe["teacher"]["weights"] == ourospec.load(teacher).origin.digest
    assert recipe["objective"]["price"]["target"] == 1.4
    assert (student / "report.html").is_file()
    steps = [e for e in map(json.loads, (student / "events.jsonl").open()) if e["kind"] == "step"]
    assert len(steps) == 4 and all(
        {"distil_loss", "distil_share", "distil_kl"} <= set(step) for step in steps
    )
    assert ouro("evaluate", str(student), "--max-passes", "1")[0] == 0
    assert ouro("generate", str(student), "--max-new-tokens", "5")[0] == 0
    assert ouro("train", str(student), "--quiet")[0] == 0


def test_the_comparison_is_printed_and_kept(teacher: str, student: Path, ouro: Any) -> None:
    code, out, _ = ouro("distill", teacher, "--budget", "1.4", *SHORT)
    assert code == 0
    kept = json.loads((student / distill.RESULT).read_text())
    for label, name in (("teacher, 3 passes", "teacher_all"), ("student at 1.4", "student_budget")):
        row = re.search(rf"^{label} +([\d.]+)(?: ± \S+)? +([\d.]+)", out, re.M)
        assert row is not None, out
        assert float(row[2]) == pytest.approx(kept[name]["loss"], abs=6e-4)
        assert float(row[1]) == pytest.approx(kept[name]["mean_passes"], abs=6e-4)
    assert kept["teacher_all"]["mean_passes"] == 3 and kept["student_one"]["mean_passes"] == 1
    assert abs(kept["student_budget"]["mean_passes"] - 1.4) < 0.15
    change = kept["student_budget"]["loss"] - kept["teacher_budget"]["loss"]
    assert f"At 1.4 passes the student's loss is {change:+.4f} nats" in out
    code, out, _ = ouro("distill", teacher, "--budget", "1.4", *SHORT, "--json")
    assert code == 0 and json.loads(out) == kept


def test_a_fresh_student_may_be_of_another_shape(teacher: str, ouro: Any, tmp_path: Path) -> None:
    run = str(tmp_path / "slim")
    options = ("--student", "adaptive_lm/smoke", "--model.width", "16", "--out", run, *SHORT)
    code, _, err = ouro("distill", teacher, "--budget", "1.5", *options, "--quiet")
    assert code == 0, err
    assert ourospec.load(run).recipe.model_dump()["model"]["width"] == 16


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "There is no budget"),
        (("--budget", "x"), "is not a number above 0"),
        (("--budget", "1.2", "--steps", "-3"), "is not a number above 0"),
        (("--budget", "7"), "cannot be held to 7"),
        (("--budget", "1.2", "--student", "dense_lm/smoke"), "has none to save"),
        (("--budget", "1.2", "--student", "adaptive_lm/smok"), "There is no preset"),
        (("--budget", "1.2", "--distil.wher", "all"), "There is no option"),
        (("--budget", "1.2", "--model.width", "64"), "another shape"),
        (("--budget", "1.2", "--tokens", "0"), "Samples of 0 tokens"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    teacher: str, ouro: Any, tmp_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    out = tmp_path / "student"
    code, _, err = ouro("distill", teacher, *arguments, "--out", str(out), "--quiet")
    assert code == 2
    assert says in err
    assert not (out / "recipe.json").exists()


def test_help_and_the_recipe_can_be_read_without_training(teacher: str, ouro: Any) -> None:
    assert "ouro distill RUN --budget" in ouro("distill", "--help")[1]
    code, out, _ = ouro("distill", teacher, "--budget", "1.3", "--distil.where", "answer", "--print-config")
    assert code == 0
    assert json.loads(out)["distil"]["where"] == "answer"
    assert not Path(f"{teacher}-distilled-1.3").exists()


def test_a_teacher_whose_passes_taught_nothing_is_said_to() -> None:
    figures = {"loss": 3.0}
    found = {
        "teacher_passes": 3,
        "budget": 1.2,
        "teacher_all": {"loss": 3.1},
        "teacher_one": figures,
        "teacher_budget": None,
        "student_budget": figures,
    }
    first, second = distill.remarks(found)
    assert "nothing to hand on" in first and "teacher within 1.2 passes" in second
    found |= {"teacher_all": {"loss": 2.8}, "teacher_budget": {"loss": 3.2}}
    sentence, _ = distill.remarks(found)
    assert "is -0.2000 nats against the teacher's" in sentence and "its 3 passes +0.2000" in sentence
