"""Training batches of puzzles. Letters: B rows, T positions, m puzzles of a row."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch

from ourospec.data.batch import NO_TARGET, TokenBatch
from ourospec.data.puzzles.example import Example
from ourospec.data.puzzles.schedule import OpenLesson, Schedule
from ourospec.data.stream import check_sizes
from ourospec.errors import ConfigError

_ORDER = "puzzle-rows-v1"
"""Names the layout below; a change of it changes every stream's fingerprint."""
Targets = Literal["answers", "everything"]
LOOKED_AT = 8
"""Steps from which the usual number of targets is told."""


class PuzzleStream:
    """Rows of m whole puzzles, END p1 END p2 ... END, and padding up to T.

    Row i of step s holds examples i·m to i·m + m − 1 of that step, whatever the number of ranks and the size of a
    micro-batch; which these are is a pure function of (seed, s), see Schedule.

    Args:
        lessons: what is trained on, from step 0 on.
        source: stands for the puzzles in the fingerprint.
        end_id: the token that borders documents; all others are bytes.
        per_row: m; 0: as many as surely fit.
        targets: what is to be foretold.
        window: T.
        batch_size: rows of an optimiser step, over all ranks.
        micro_batch_size: rows at a time, at most.
        rank, world_size: which contiguous share of the rows is this process's.

    Raises:
        ConfigError: m puzzles may be longer than the window, the rows cannot be shared out evenly, or a size is not
            positive.
    """

    def __init__(
        self,
        lessons: Sequence[OpenLesson],
        source: str,
        end_id: int,
        *,
        per_row: int,
        targets: Targets,
        window: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_sizes(window, batch_size, micro_batch_size, rank, world_size)
        longest = max(
            (share.problems for lesson in lessons for share in lesson.shares), key=lambda p: p.longest
        )
        self.per_row = per_row or max(1, window // (longest.longest + 1))
        needed = self.per_row * (longest.longest + 1)
        if window < needed:
            each = f"{self.per_row} puzzles" if self.per_row > 1 else "a puzzle"
            raise ConfigError(
                f"A row of {window} positions is too short for {each} of the task {longest.name}, which may have "
                f"{longest.longest} bytes and an end.",
                f"Read longer windows, --train.window {needed} (and --model.max-length), or make the task smaller.",
            )
        self.window, self.seed, self.batch_size, self.micro_batch_size = (
            window,
            seed,
            batch_size,
            micro_batch_size,
        )
        self._end_id = end_id
        self._targets: Targets = targets
        self._schedule = Schedule(lessons, batch_size * self.per_row, seed)
        share = batch_size // world_size
        self._rows = range(rank * share, (rank + 1) * share)
        order = f"{_ORDER}\n{source}\n{self.per_row}\n{targets}\n{window}\n{batch_size}\n{seed}"
        self._fingerprint = hashlib.sha256(order.encode()).hexdigest()

    @property
    def fingerprint(self) -> str:
        """Changes with the puzzles, the split, the layout of rows, the batch size or the seed."""
        return self._fingerprint

    @property
    def tokens_per_step(self) -> int:
        """Targets of an optimiser step, over all ranks: the mean of the first ones, since puzzles differ in length."""
        places = range(self.batch_size * self.per_row)
        first = [example for step in range(LOOKED_AT) for example in self._schedule.examples(step, places)]
        return round(sum(count_targets(example, self._targets) for example in first) / LOOKED_AT)

    @property
    def steps_per_epoch(self) -> float | None:
        """Optimiser steps in which each question of a file comes once; None for all that is not one file alone."""
        count = self._schedule.examples_per_epoch
        return None if count is None else count / (self.batch_size * self.per_row)

    def about(self, step: int) -> Mapping[str, Any]:
        """In a curriculum `stage`, from 0; otherwise nothing."""
        return {"stage": self._schedule.lesson(step)} if self._schedule.num_lessons > 1 else {}

    def batches(self, step: int) -> Sequence[TokenBatch]:
        """The micro-batches of optimiser step `step` (from 0), for this rank."""
        m, size = self.per_row, self.micro_batch_size
        examples = self._schedule.examples(step, range(self._rows.start * m, self._rows.stop * m))
        rows = [examples[i : i + m] for i in range(0, len(examples), m)]
        return [
            lay_rows(rows[i : i + size], self.window, self._end_id, self._targets)
            for i in range(0, len(rows), size)
        ]


def lay_rows(rows: Sequence[Sequence[Example]], window: int, end_id: int, targets: Targets) -> TokenBatch:
    """A batch of rows, each of puzzles that fit into it; rows are padded with end tokens that nobody foretells."""
    tokens = np.full((len(rows), window + 1), end_id, np.int64)
    wanted = np.zeros((len(rows), window + 1), bool)
    documents = np.zeros((len(rows), window), np.int64)
    num_bytes = 0
    for row, examples in enumerate(rows):
        at = 1
        for number, example in enumerate(examples):
            end = at + len(example.text)
            tokens[row, at:end] = np.frombuffer(example.text, np.uint8)
            wanted[row, at : end + 1] = mark_targets(example, targets)
            # The end token behind it opens what comes next, the padding too.
            documents[row, end:] = number + 1
            num_bytes += int(wanted[row, at:end].sum())
            at = end + 1
    return TokenBatch(
        tokens=torch.from_numpy(np.ascontiguousarray(tokens[:, :-1])),
        targets=torch.from_numpy(np.where(wanted, tokens, NO_TARGET)[:, 1:].copy()),
        # Padding behind a single puzzle is seen by none of its positions.
        documents=None if max(map(len, rows)) == 1 else torch.from_numpy(documents),
        num_targets=int(wanted[:, 1:].sum()),
        num_bytes=num_bytes,
    )


def mark_targets(example: Example, targets: Targets) -> np.ndarray:
    """[n + 1] which of its n bytes and its end are to be foretold."""
    size = len(example.text)
    marks = np.full(size + 1, targets == "everything")
    for answer in example.answers:
        marks[answer.targets(size)] = True
    return marks


def count_targets(example: Example, targets: Targets) -> int:
    """How many tokens are to be foretold."""
    return int(mark_targets(example, targets).sum())
