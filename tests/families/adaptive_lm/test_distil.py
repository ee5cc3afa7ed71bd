"""A student learns from the teacher's further passes where they told something, and its run is one like any other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import ourospec
from ourospec.contracts import Clock, Effort
from ourospec.errors import ConfigError, DataError, Interrupted
from ourospec.families.adaptive_lm.credit import GainConfig
from ourospec.families.adaptive_lm.distil import DistilConfig, DistillingObjective
from ourospec.families.adaptive_lm.model import AdaptiveLM
from ourospec.families.adaptive_lm.presets import fixed
from ourospec.families.adaptive_lm.student import distilled
from ourospec.families.dense_lm.presets import smoke as dense_smoke
from ourospec.recipe import read_recipe
from ourospec.runs import RunDirectory
from ourospec.train.step import accumulate

from .small import LAYERS, MARKET, POLICY, SCHEDULE, make
from .small import text as small_text
from .test_resume import end_of, recipe_of, steps_of, texts, train  # noqa: F401

CLOCK = Clock(5, 20)
LEAST = 0.6


def pupil(seed: int = 3, **distil: Any) -> tuple[AdaptiveLM, DistillingObjective]:
    """A student unlike its teacher, and its objective with the teacher in it."""
    teacher, base = make(GainConfig())
    student, _ = make(GainConfig())
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    settings = DistilConfig(**{"least_divergence": LEAST, **distil})
    objective = DistillingObjective(base.config, base.depth, LAYERS, settings)
    objective.teacher = teacher.eval().requires_grad_(False)
    return student, objective


def batch_of(seed: int, missing: int = 0) -> Any:
    return small_text(seed, missing=missing)


def by_hand(student: AdaptiveLM, objective: DistillingObjective, where: str) -> tuple[float, float]:
    """Σ KL over the chosen tokens / targets, and the share of these, one token after the other."""
    batch, teacher = batch_of(1, missing=2), objective.teacher
    torch.manual_seed(0)
    with torch.no_grad():
        run = student(batch.tokens, batch.documents, effort=objective.training_effort(CLOCK))
        q = student.logits(run.states).softmax(-1)
        p, hasty = (
            teacher.logits(
                teacher(batch.tokens, batch.documents, effort=Effort(forced_passes=k)).states
            ).softmax(-1)
            for k in (teacher.depth.max_passes, 1)
        )
    total, number = 0.0, 0
    for row in range(len(batch.tokens)):
        for at in range(batch.tokens.shape[1]):
            moved = float((p[row, at] * (p[row, at] / hasty[row, at]).log()).sum()) >= LEAST
            other = int(p[row, at].argmax()) != int(hasty[row, at].argmax())
            chosen = {"answer": other, "divergence": moved, "either": other or moved, "everywhere": True}[
                where
            ]
            if chosen and batch.targets[row, at] >= 0:
                total += float((p[row, at] * (p[row, at] / q[row, at]).log()).sum())
                number += 1
    return total / batch.num_targets, number / batch.num_targets


@pytest.mark.parametrize("where", ["answer", "divergence", "either", "everywhere"])
def test_the_loss_is_that_of_the_text_and_the_divergence_where_passes_told(where: str) -> None:
    student, objective = pupil(where=where, weight=0.7)
    divergence, share = by_hand(student, objective, where)
    assert 0 < share < 1 or where == "everywhere"
    steps = []
    for weight in (0.7, 0.0):
        objective.distil = objective.distil.model_copy(update={"weight": weight})
        torch.manual_seed(0)
        steps.append(objective(student, batch_of(1, missing=2), None, CLOCK))
    added = (steps[0].loss_sum - steps[1].loss_sum) / steps[0].num_targets
    assert added.item() == pytest.approx(0.7 * divergence, rel=1e-9)
    read = {
        name: float(mean.total / mean.weight) for name, mean in steps[0].metrics.items() if "distil" in name
    }
    assert read == pytest.approx({"distil_loss": 0.7 * divergence, "distil_share": share}, rel=1e-6)


def test_the_kinds_of_tokens_differ() -> None:
    student, objective = pupil()
    shares = {where: by_hand(student, objective, where)[1] for where in ("answer", "divergence", "either")}
    assert shares["either"] > max(shares["answer"], shares["divergence"]) > 0


def test_the_teacher_learns_nothing_and_draws_nothing() -> None:
    student, objective = pupil()
    before = {name: tensor.clone() for name, tensor in objective.teacher.state_dict().items()}
    ends = []
    for teacher_weight in (1.0, 0.0):
        objective.distil = objective.distil.model_copy(update={"weight": teacher_weight})
        torch.manual_seed(7)
        accumulate(student, objective, [batch_of(1)], None, CLOCK, POLICY)
        ends.append(torch.get_rng_state())
        student.zero_grad()
    assert torch.equal(*ends)
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in objective.teacher.state_dict().items())


def test_a_student_comes_nearer_to_its_teacher() -> None:
    student, objective = pupil(where="everywhere", weight=5.0)
    optimizer = torch.optim.Adam(student.parameters(), lr=3e-3)
    seen = []
    for _ in range(12):
        totals = accumulate(student, objective, [batch_of(1)], None, CLOCK, POLICY)
        seen.append(float(totals.metrics["distil_loss"].total))
        optimizer.step()
        optimizer.zero_grad()
    assert seen[-1] < 0.7 * seen[0]


def test_a_step_says_what_it_cost_by_chosen_token() -> None:
    _, objective = pupil(weight=2.0)
    metrics = {"distil_loss": 0.3, "distil_share": 0.5}
    assert objective_reads(objective, metrics)["distil_kl"] == pytest.approx(0.3)
    assert "distil_kl" not in objective_reads(objective, {"distil_loss": 0.0, "distil_share": 0.0})


def objective_reads(objective: DistillingObjective, metrics: dict[str, float]) -> dict[str, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ourospec.families.adaptive_lm.objective.AdaptiveObjective.update", lambda *_: {})
        return dict(objective.update(metrics, CLOCK))


def test_an_objective_without_its_teacher_says_so() -> None:
    student, objective = pupil()
    objective.teacher = None
    with pytest.raises(ValueError, match="before it had its teacher"):
        objective(student, batch_of(1), None, CLOCK)


@pytest.fixture(scope="module")
def teacher(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """A run whose gates decide at its end."""
    path = tmp_path_factory.mktemp("teachers") / "teacher"
    train(recipe_of(texts, GainConfig()), path)
    return path


def fresh(texts: Path) -> Any:  # noqa: F811
    """What a smaller student is like."""
    recipe = recipe_of(texts, GainConfig())
    slim = recipe.model.model_copy(update={"width": 16, "layers": 1})
    return recipe.model_copy(update={"name": "slim", "model": slim})


@pytest.mark.parametrize("begins", ["teacher", "fresh"])
def test_a_student_stopped_and_resumed_ends_like_one_that_was_not(
    texts: Path,  # noqa: F811
    teacher: Path,
    tmp_path: Path,
    begins: str,
) -> None:
    student = fresh(texts) if begins == "fresh" else None
    recipe = distilled(teacher, 1.4, student=student, steps=8)
    assert recipe.start == begins
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(recipe, whole)
    for until in (2, 5):
        with pytest.raises(Interrupted):
            train(read_recipe(stopped / "recipe.json") if until == 5 else recipe, stopped, until)  # pyright: ignore
    train(recipe, stopped)
    events = steps_of(whole)
    assert steps_of(stopped) == events
    assert all("distil_loss" in event and event["target_passes"] == 1.4 for event in events)
    assert any("distil_kl" in event for event in events)
    (tensors, market), (tensors_stopped, market_stopped) = end_of(whole), end_of(stopped)
    assert market == market_stopped
    assert [name for name, tensor in tensors.items() if not torch.equal(tensor, tensors_stopped[name])] == []


def test_a_student_goes_on_where_its_teacher_ended(teacher: Path, tmp_path: Path) -> None:
    recipe = distilled(teacher, 1.4)
    job = recipe.assemble(RunDirectory(tmp_path / "student"), [])
    taught = ourospec.load(teacher)
    for name, tensor in taught.model.state_dict().items():
        assert torch.equal(job.model.state_dict()[name], tensor), name
    assert job.objective.price == taught.objective.price != 0  # pyright: ignore
    assert recipe.objective.price.target == 1.4  # pyright: ignore
    assert not recipe.objective.schedule.forced(Clock(0, recipe.train.steps))
    assert recipe.train.steps == round(0.25 * taught.recipe.train.steps)


def test_the_recipe_names_its_teacher_and_a_student_lives_without_it(teacher: Path, tmp_path: Path) -> None:
    copy, student = tmp_path / "teacher", tmp_path / "student"
    shutil.copytree(teacher, copy)
    recipe = distilled(copy, 1.4, steps=3)
    train(recipe, student)
    written = json.loads((student / "recipe.json").read_text())["teacher"]
    assert written == {"run": str(copy), "step": 16, "weights": ourospec.load(copy).origin.digest}
    shutil.rmtree(copy)
    assert ourospec.load(student).score("0.5").nats > 0
    with pytest.raises(ConfigError):
        recipe.assemble(RunDirectory(tmp_path / "other"), [])


def test_other_weights_of_the_teacher_are_refused(texts: Path, teacher: Path, tmp_path: Path) -> None:  # noqa: F811
    recipe = distilled(teacher, 1.4)
    other = recipe.model_copy(update={"teacher": recipe.teacher.model_copy(update={"weights": "0" * 64})})
    with pytest.raises(ConfigError, match="the student was begun with others"):
        other.assemble(RunDirectory(tmp_path / "student"), [])
    wider = recipe.model_copy(update={"model": recipe.model.model_copy(update={"mlp_hidden": 44})})
    with pytest.raises(ConfigError, match="another shape"):
        wider.assemble(RunDirectory(tmp_path / "student"), [])
    deeper = recipe.model_copy(update={"distil": DistilConfig(passes=9)})
    with pytest.raises(ConfigError, match="3 at most"):
        deeper.assemble(RunDirectory(tmp_path / "student"), [])
    elsewhere = recipe.data.model_copy(update={"heldout_fraction": 0.4})
    with pytest.raises(DataError, match="no longer the one"):
        recipe.model_copy(update={"data": elsewhere}).assemble(RunDirectory(tmp_path / "student"), [])


@pytest.mark.parametrize("budget", [1.0, 0.5, 3.0, float("nan")])
def test_a_budget_that_cannot_be_held_is_refused(teacher: Path, budget: float) -> None:
    with pytest.raises(ConfigError, match="cannot be held"):
        distilled(teacher, budget)


def test_who_has_nothing_to_teach_or_to_save_is_refused(texts: Path, teacher: Path, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(ConfigError, match="runs one pass and has none to save"):
        distilled(teacher, 1.4, student=dense_smoke())
    with pytest.raises(ConfigError, match="no budget can be kept"):
        distilled(teacher, 1.4, student=fixed(recipe_of(texts, GainConfig()), 3))
    single = fixed(recipe_of(texts, GainConfig()), 1)
    quick = single.model_copy(update={"train": single.train.model_copy(update={"steps": 1})})
    train(quick, tmp_path / "single")
    with pytest.raises(ConfigError, match="no further ones to learn from"):
        distilled(tmp_path / "single", 1.4, student=fresh(texts))


def test_a_fixed_depth_can_teach_a_student_with_gates(texts: Path, tmp_path: Path) -> None:  # noqa: F811
    deep = fixed(recipe_of(texts, GainConfig()), 3)
    train(deep.model_copy(update={"train": deep.train.model_copy(update={"steps": 2})}), tmp_path / "deep")
    with pytest.raises(ConfigError, match="--student PRESET"):
        distilled(tmp_path / "deep", 1.4)
    recipe = distilled(tmp_path / "deep", 1.4, student=fresh(texts), steps=2)
    train(recipe, tmp_path / "student")
    assert "distil_loss" in steps_of(tmp_path / "student")[-1]


def test_the_schedule_of_these_tests_has_priced_steps() -> None:
    assert SCHEDULE.priced(CLOCK) and MARKET.target > 1
