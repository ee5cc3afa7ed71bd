"""Puzzles made ready: what to train on, what is held out, and what to write about them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np

from ourospec.data.documents import OnUndecodable
from ourospec.data.encoding import byte_lengths
from ourospec.data.puzzles.chance import stream_of
from ourospec.data.puzzles.config import CurriculumSource, MixtureSource, PuzzleSource
from ourospec.data.puzzles.example import FORMAT, Answer, Example, Problems
from ourospec.data.puzzles.schedule import OpenLesson, OpenShare
from ourospec.data.puzzles.stream import PuzzleStream
from ourospec.data.tokenizers import ByteTokenizer
from ourospec.errors import DataError

SHOWN = 4
"""Held-out questions that are asked for samples during training."""
Sources = PuzzleSource | MixtureSource | CurriculumSource


@dataclass(frozen=True)
class PuzzleDocument:
    """A puzzle as a text among others."""

    tokens: np.ndarray
    """[n] int64, without the end token on either side."""
    num_bytes: int
    """Of the whole text."""
    task: str
    """Its name."""
    answers: tuple[Answer, ...]


class PuzzleSide:
    """Puzzles of one side of the split, of all tasks in turn: any number of them from the front has all tasks in it."""

    def __init__(self, examples: Sequence[tuple[str, Sequence[Example]]]) -> None:
        each = [[_document(name, example) for example in found] for name, found in examples]
        self._documents = [
            document for turn in zip_longest(*each) for document in turn if document is not None
        ]

    @property
    def num_documents(self) -> int:
        return len(self._documents)

    def document(self, number: int) -> PuzzleDocument:
        """One puzzle, from 0."""
        return self._documents[number]

    def documents(self) -> Iterator[PuzzleDocument]:
        """All puzzles, in order."""
        return iter(self._documents)


@dataclass(frozen=True)
class PuzzleDataset:
    """Puzzles to train on, and puzzles to measure with that share no problem with them."""

    source: Sources
    lessons: Sequence[OpenLesson]
    tasks: Sequence[tuple[str, Problems]]
    """Every task that occurs, once, by a name that no other has."""
    tokenizer: ByteTokenizer

    @cached_property
    def byte_lengths(self) -> np.ndarray:
        """[V] bytes of text that each token stands for."""
        return byte_lengths(self.tokenizer)

    @cached_property
    def heldout(self) -> PuzzleSide:
        """What is never trained on, the same in every run."""
        count = self.source.heldout_examples
        return PuzzleSide([(name, problems.heldout(count)) for name, problems in self.tasks])

    @cached_property
    def train(self) -> PuzzleSide:
        """A sample of what is trained on, as large as what is held out: for what is fitted to training data."""
        stream, count = stream_of(FORMAT, "sample"), self.source.heldout_examples
        return PuzzleSide(
            [
                (name, [problems.training(stream, index) for index in range(count)])
                for name, problems in self.tasks
            ]
        )

    @property
    def fingerprint(self) -> str:
        """Changes with the puzzles, the split, or what is asked when."""
        digest = hashlib.sha256(FORMAT.encode())
        for lesson in self.lessons:
            digest.update(f"\nfrom {lesson.from_step}\n".encode())
            for problems, share in lesson.shares:
                digest.update(f"{share!r} {problems.fingerprint}\n".encode())
        return digest.hexdigest()

    @property
    def summary(self) -> dict[str, Any]:
        """JSON-ready: source and tasks."""
        return {
            "source": self.source.describe(),
            "vocab_size": self.tokenizer.vocab_size,
            "tasks": [{**problems.summary, "task": name} for name, problems in self.tasks],
            "stages": [
                {"from_step": lesson.from_step, "shares": [round(share.share, 4) for share in lesson.shares]}
                for lesson in self.lessons
            ],
        }

    @property
    def prompts(self) -> tuple[str, ...]:
        """Some held-out questions, up to their first answer, where they are text."""
        asked = (bytes(d.tokens[: d.answers[0].start].tolist()) for d in self.heldout.documents())
        texts = (question.decode(errors="replace") for question in asked)
        return tuple(
            text for text, _ in zip((t for t in texts if "\ufffd" not in t), range(SHOWN), strict=False)
        )

    def stream(
        self,
        window: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> PuzzleStream:
        """The puzzles to train on as batches, see `PuzzleStream`.

        Raises:
            ConfigError: sizes that do not go together, or a window too short for a puzzle.
        """
        return PuzzleStream(
            self.lessons,
            self.fingerprint,
            self.tokenizer.end_id,
            per_row=self.source.per_row,
            targets=self.source.targets,
            window=window,
            batch_size=batch_size,
            micro_batch_size=micro_batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
        )


def open_puzzles(source: Sources, heldout_fraction: float, on_undecodable: OnUndecodable) -> PuzzleDataset:
    """Make the tasks of a source ready, reading files where there are any.

    Args:
        heldout_fraction: share of each task's problems that is never trained on.

    Raises:
        DataError: a file that is missing or malformed, or a task too small to be split.
    """
    opened: dict[str, Problems] = {}
    lessons = []
    for lesson in source.lessons():
        shares = []
        for task, share in lesson.shares:
            key = task.model_dump_json()
            if key not in opened:
                opened[key] = task.open(heldout_fraction, on_undecodable)
            shares.append(OpenShare(opened[key], share))
        lessons.append(OpenLesson(lesson.from_step, tuple(shares)))
    named: list[tuple[str, Problems]] = []
    for problems in opened.values():
        same = sum(other.name == problems.name for _, other in named)
        named.append((f"{problems.name} ({same + 1})" if same else problems.name, problems))
    dataset = PuzzleDataset(source, tuple(lessons), tuple(named), ByteTokenizer())
    for name, problems in named:
        if not problems.heldout(1):
            raise DataError(f"No problem of the task {name} is held out.", "Raise --data.heldout-fraction.")
    return dataset


def _document(task: str, example: Example) -> PuzzleDocument:
    tokens = np.frombuffer(example.text, np.uint8).astype(np.int64)
    return PuzzleDocument(tokens, len(example.text), task, example.answers)
