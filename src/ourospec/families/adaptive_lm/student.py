"""The recipe of a distilled run: a student, the teacher that it learns from, and where its weights start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator
from torch import Tensor

from ourospec.config import Config, absolute
from ourospec.contracts import Effort, Observer
from ourospec.data.text import open_text
from ourospec.data.tokenizers import load_tokenizer
from ourospec.errors import ConfigError, DataError
from ourospec.families.adaptive_lm.distil import DistilConfig, DistillingObjective
from ourospec.families.adaptive_lm.economy import DualAscentConfig
from ourospec.families.adaptive_lm.model import AdaptiveLM
from ourospec.families.adaptive_lm.objective import DepthObjective
from ourospec.families.adaptive_lm.recipe import AdaptiveRecipe
from ourospec.nn.next_token import NextToken
from ourospec.recipe import Recipe, Tell, read_recipe
from ourospec.runs import RunDirectory, open_run
from ourospec.train.loop import Job
from ourospec.train.rng import undisturbed
from ourospec.train.weights import WeightsOrigin, load_weights

STEPS_SHARE, LR_SHARE = 0.25, 0.3
"""Of the teacher's steps and highest learning rate: what a student that goes on with its weights is given."""


class TeacherConfig(Config):
    """The run that is learned from."""

    run: Annotated[str, AfterValidator(absolute)]
    """Its directory."""
    step: Annotated[int, Field(ge=0)]
    """Optimiser steps behind its weights."""
    weights: str
    """Their digest: the student learns from these weights and no others, however often it is stopped."""


class DistilledRecipe(AdaptiveRecipe):
    """Everything that decides a run of adaptive_lm that learns from another one."""

    family: Literal["adaptive_lm_distilled"] = "adaptive_lm_distilled"  # pyright: ignore[reportIncompatibleVariableOverride]
    """Name of the model family."""
    teacher: TeacherConfig
    """Whom the student learns from."""
    start: Literal["teacher", "fresh"] = "teacher"
    """The student's first weights: those of the teacher, whose shape it then has, or fresh ones."""
    distil: DistilConfig = DistilConfig()
    """What is learned from the teacher."""

    @model_validator(mode="after")
    def _has_depth_to_save(self) -> DistilledRecipe:
        if self.model.depth.halting == "fixed" or self.model.depth.max_passes == 1:
            raise ValueError(
                "a student without gates cannot be held to a budget: set model.depth.halting token"
            )
        return self

    def build_objective(self) -> NextToken:
        return DistillingObjective(self.objective, self.model.depth, self.model.layers, self.distil)

    def teaching_effort(self) -> Effort:
        """How long the teacher thinks while it teaches.

        Raises:
            ConfigError: the teacher is gone.
        """
        return Effort(forced_passes=self.distil.passes or _recipe_of(self.teacher.run).model.depth.max_passes)

    def assemble(self, run: RunDirectory, observers: Sequence[Observer], tell: Tell = None) -> Job:
        """As for every text; the teacher is opened, too, and its weights and price may be where the student starts.

        Raises:
            ConfigError: the teacher is gone, or has other weights now, or the student's shape is not as it must be.
            DataError: the teacher was trained on another text than is there now.
        """
        taught = open_teacher(self.teacher)
        self._refuse_other_shape(taught)
        job = super().assemble(run, observers, tell)
        self._refuse_other_text(taught)
        objective = job.objective
        assert isinstance(objective, DistillingObjective)
        objective.teacher = taught.build().to(job.policy.device)
        if self.start == "teacher":
            job.model.load_state_dict(taught.weights)
            objective.market.inherit(taught.origin.objective)
        return replace(job, about={**job.about, "teacher": self.teacher.model_dump()})

    def _refuse_other_shape(self, taught: Taught) -> None:
        if self.start == "teacher" and self.model != taught.recipe.model:
            raise ConfigError(
                "The student goes on with the teacher's weights, but its model is set to another shape.",
                "Leave the --model settings as they are, or begin a fresh student: --student PRESET",
            )
        if self.distil.passes > taught.recipe.model.depth.max_passes:
            raise ConfigError(
                f"The teacher is to run {self.distil.passes} passes, but has "
                f"{taught.recipe.model.depth.max_passes} at most.",
                "Set --distil.passes to at most so many, or 0 for all of them.",
            )

    def _refuse_other_text(self, taught: Taught) -> None:
        """Raise DataError unless the student's text and tokenizer are the teacher's, its held-out part included."""
        dataset = open_text(self.data)
        now = taught.recipe.open_stream(dataset).fingerprint
        if self.data != taught.recipe.data or now != taught.origin.data:
            raise DataError(
                f"The text ({self.data.source.describe()}) is no longer the one that the teacher was trained on, so "
                "that what is held out from the student may have been learned by the teacher.",
                "Bring the text back as it was, or train the teacher anew.",
            )


class Taught(NamedTuple):
    """A teacher, opened."""

    recipe: AdaptiveRecipe
    weights: dict[str, Tensor]
    origin: WeightsOrigin
    run: RunDirectory

    def build(self) -> AdaptiveLM:
        """The model, in eval mode and without gradients."""
        with undisturbed():
            model = self.recipe.build_model(load_tokenizer(self.run.tokenizer))
        assert isinstance(model, AdaptiveLM)
        model.load_state_dict(self.weights)
        return model.eval().requires_grad_(False)


def open_teacher(config: TeacherConfig) -> Taught:
    """The weights that a student was begun with.

    Raises:
        ConfigError: the run is gone, or its weights are others now.
        ResourceError: it has no whole checkpoint.
    """
    taught = _open(config.run)
    if taught.origin.digest != config.weights:
        raise ConfigError(
            f"The teacher {config.run} has the weights of step {taught.origin.step:,} now; the student was begun with "
            f"others, of step {config.step:,}.",
            "Bring the teacher's checkpoint back, or distil from it anew: ouro distill RUN --out OTHER",
        )
    return taught


def distilled(
    teacher: str | Path, budget: float, *, student: Recipe | None = None, steps: int | None = None
) -> DistilledRecipe:
    """A recipe by which a student learns from a run, and thinks no longer than the budget.

    Args:
        teacher: a run directory.
        budget: mean passes per token and layer, above 1.
        student: what a fresh student is like, its text aside, which is the teacher's; None: the teacher's own weights
            go on being trained, without a warm-up, for a quarter of its steps at 0.3 of its learning rate.
        steps: optimiser steps; None: as said above, or as the student's recipe says.

    Raises:
        ConfigError: nothing can be learned from that run, or that student or budget cannot be.
    """
    taught = _open(teacher)
    if student is not None and not isinstance(student, AdaptiveRecipe):
        raise ConfigError(
            f"A student of {student.family} runs one pass and has none to save.",
            "Name a preset whose tokens vary their depth; ouro presets lists them.",
        )
    base: AdaptiveRecipe = student or taught.recipe
    most = base.model.depth.max_passes
    if base.model.depth.halting == "fixed" or base.objective.schedule.hard_kill:
        raise ConfigError(
            "Without gates, every token runs the same passes, and no budget can be kept.",
            "Begin a fresh student that has them: --student PRESET",
        )
    if not 1 < budget < most:
        raise ConfigError(
            f"A student of {most} passes cannot be held to {budget:g} per token and layer.",
            f"Choose a budget above 1 and below {most}, such as --budget 1.2",
        )
    kept: dict[str, Any] = {name: getattr(base, name) for name in ("train", "optim", "model", "prompts")}
    kept |= _continued(taught.recipe) if student is None else _fresh(student, taught.recipe)
    if steps is not None:
        kept["train"] = kept["train"].model_copy(update={"steps": steps})
    origin = taught.origin
    return DistilledRecipe(
        name=base.name,
        # Another order of the same text than the teacher's.
        seed=(taught.recipe.seed + 1) % 2**31,
        data=taught.recipe.data,
        teacher=TeacherConfig(run=str(teacher), step=origin.step, weights=origin.digest),
        start="teacher" if student is None else "fresh",
        objective=_held_to(budget, base.objective, warm=student is None),
        **kept,
    )


def _open(path: str | Path) -> Taught:
    recipe, run = _recipe_of(path), open_run(path)
    return Taught(recipe, *load_weights(run), run)


def _recipe_of(path: str | Path) -> AdaptiveRecipe:
    recipe = read_recipe(open_run(path).recipe)
    if not isinstance(recipe, AdaptiveRecipe) or recipe.model.depth.max_passes == 1:
        raise ConfigError(
            f"{path} holds a {recipe.family} whose layers run one pass: there are no further ones to learn from.",
            "Name a run whose layers may run several passes.",
        )
    return recipe


def _continued(teacher: AdaptiveRecipe) -> dict[str, Any]:
    steps = max(1, round(STEPS_SHARE * teacher.train.steps))
    return {
        "train": teacher.train.model_copy(update={"steps": steps, "epochs": 0.0}),
        "optim": teacher.optim.scaled(LR_SHARE),
    }


def _fresh(student: AdaptiveRecipe, teacher: AdaptiveRecipe) -> dict[str, Any]:
    # Both heads say the same tokens, in rows of the same number.
    return {"model": student.model.model_copy(update={"vocab_size": teacher.model.vocab_size})}


def _held_to(budget: float, objective: DepthObjective, warm: bool) -> DepthObjective:
    """The same objective with the budget for a target; where the gates are taught already, without a warm-up."""
    asked = objective.price
    # A price that stands still holds nothing to a target.
    price = (
        asked.model_copy(update={"target": budget})
        if asked.kind != "constant"
        else DualAscentConfig(target=budget)
    )
    update: dict[str, Any] = {"price": price}
    if warm:
        at_once = {"unit": "fraction", "forced_passes": 0, "forced_until": 0.0, "price_from": 0.0}
        at_once |= {"ceiling_until": 0.0, "threshold_until": 0.0}
        update["schedule"] = objective.schedule.model_copy(update=at_once)
    return objective.model_copy(update=update)
