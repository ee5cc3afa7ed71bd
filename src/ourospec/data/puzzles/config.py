"""Which puzzles there are to learn from: one task, a mixture of tasks, or a curriculum of mixtures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from ourospec.config import Config
from ourospec.data.puzzles.arithmetic import AdditionTask, ModularTask
from ourospec.data.puzzles.lookup import CopyTask, NeedleTask, PointerTask, RecallTask
from ourospec.data.puzzles.maze import MazeTask
from ourospec.data.puzzles.question_files import QuestionsTask
from ourospec.data.puzzles.stories import StoryTask
from ourospec.data.puzzles.sudoku import SudokuTask

TaskConfig = Annotated[
    PointerTask
    | RecallTask
    | NeedleTask
    | CopyTask
    | ModularTask
    | AdditionTask
    | StoryTask
    | SudokuTask
    | MazeTask
    | QuestionsTask,
    Field(discriminator="kind"),
]
Temperature = Annotated[float, Field(gt=0, le=1_000)]


class Share(NamedTuple):
    """A task with its part of the examples of a stage; all parts add up to 1."""

    task: TaskConfig
    share: float


class Lesson(NamedTuple):
    """What is trained on from an optimiser step on."""

    from_step: int
    shares: tuple[Share, ...]


class Part(Config):
    """A task in a mixture."""

    task: TaskConfig
    """Which puzzles."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Beside the weights of the other parts."""


class Stage(Config):
    """A mixture in a curriculum."""

    from_step: Annotated[int, Field(ge=0)]
    """Optimiser steps after which it begins; 0 for the first one, rising."""
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    """The tasks."""
    temperature: Temperature = 1.0
    """A part's share of the examples is in proportion to weight^(1/temperature)."""


class PuzzleRows(Config):
    """How puzzles lie in batches."""

    per_row: Annotated[int, Field(ge=0, le=65_536)] = 0
    """Puzzles of a row, each a document of its own; 0: as many as surely fit into the window."""
    targets: Literal["answers", "everything"] = "answers"
    """What is learned: the answers, or the questions, too."""
    heldout_examples: Annotated[int, Field(ge=1, le=1_000_000)] = 500
    """Puzzles of each task on which a run is measured, at most; a small task may have fewer."""

    def describe(self) -> str:
        """In a few words, for reports."""
        names = dict.fromkeys(share.task.name for lesson in self.lessons() for share in lesson.shares)
        return f"puzzles: {', '.join(names)}"

    def lessons(self) -> Sequence[Lesson]:
        """What is trained on, from the first step on."""
        raise NotImplementedError


class PuzzleSource(PuzzleRows):
    """Puzzles of one task, made as they are needed; only the answers are learned. Needs --data.tokenizer byte."""

    kind: Literal["puzzle"] = "puzzle"
    """Which source."""
    task: TaskConfig = PointerTask()
    """Which puzzles."""

    def lessons(self) -> Sequence[Lesson]:
        return [Lesson(0, (Share(self.task, 1.0),))]


class MixtureSource(PuzzleRows):
    """Puzzles of several tasks. Needs --data.tokenizer byte."""

    kind: Literal["puzzle_mixture"] = "puzzle_mixture"
    """Which source."""
    parts: Annotated[tuple[Part, ...], Field(min_length=1)]
    """The tasks."""
    temperature: Temperature = 1.0
    """A part's share of the examples is in proportion to weight^(1/temperature): 1 for the weights themselves, more for
    shares that are more alike."""

    def lessons(self) -> Sequence[Lesson]:
        return [Lesson(0, shares_of(self.parts, self.temperature))]


class CurriculumSource(PuzzleRows):
    """Mixtures of puzzles, one after another, by optimiser steps. Needs --data.tokenizer byte."""

    kind: Literal["puzzle_curriculum"] = "puzzle_curriculum"
    """Which source."""
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]
    """In their order."""
    replay: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of a stage's examples that are of the stages before it, of each equally many."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        steps = [stage.from_step for stage in self.stages]
        if steps[0] != 0 or any(later <= earlier for earlier, later in pairwise(steps)):
            raise ValueError(
                f"stages begin at steps {', '.join(map(str, steps))}: the first at 0, each later than the last"
            )
        return self

    def lessons(self) -> Sequence[Lesson]:
        found: list[Lesson] = []
        own: list[tuple[Share, ...]] = []
        for stage in self.stages:
            fresh = shares_of(stage.parts, stage.temperature)
            replay = self.replay / len(own) if own else 0.0
            again = [Share(task, share * replay) for shares in own for task, share in shares if replay]
            kept = 1.0 - replay * len(own)
            found.append(
                Lesson(stage.from_step, (*(Share(task, share * kept) for task, share in fresh), *again))
            )
            own.append(fresh)
        return found


def shares_of(parts: Sequence[Part], temperature: float) -> tuple[Share, ...]:
    """Shares in proportion to weight^(1/temperature)."""
    flat = [part.weight ** (1 / temperature) for part in parts]
    return tuple(Share(part.task, size / sum(flat)) for part, size in zip(parts, flat, strict=True))
