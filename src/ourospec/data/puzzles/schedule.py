"""Which example comes when: a pure function of (seed, step, place in the batch)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ourospec.data.puzzles.chance import stream_of
from ourospec.data.puzzles.example import FORMAT, Example, Problems
from ourospec.errors import ConfigError

DECK = 1_000
"""Examples that are shared out at a time, each part getting its share exactly."""


class OpenShare(NamedTuple):
    """A task made ready, with its share of the examples."""

    problems: Problems
    share: float


class OpenLesson(NamedTuple):
    """What is trained on from an optimiser step on."""

    from_step: int
    shares: Sequence[OpenShare]


class Schedule:
    """Endless examples, lesson by lesson.

    The examples of a lesson are numbered from 0. Every DECK of them are shared out to the lesson's parts, in an order
    of their own; part p is thereby asked for its examples 0, 1, 2, ... in turn, so that a file of questions is gone
    through epoch by epoch. Every part of every lesson draws from a stream of its own. No position has to be stored.

    Args:
        examples_per_step: of all ranks together.
    """

    def __init__(self, lessons: Sequence[OpenLesson], examples_per_step: int, seed: int) -> None:
        self._lessons, self._per_step, self._seed = lessons, examples_per_step, seed
        self._begins = [lesson.from_step for lesson in lessons]
        self._counts = [_share_out([share.share for share in lesson.shares]) for lesson in lessons]
        self._streams = [
            [stream_of(FORMAT, "train", seed, number, part) for part in range(len(lesson.shares))]
            for number, lesson in enumerate(lessons)
        ]
        self._deck = lru_cache(maxsize=2)(self._draw_deck)

    @property
    def num_lessons(self) -> int:
        return len(self._lessons)

    @property
    def examples_per_epoch(self) -> int | None:
        """Examples after which all have come once; None where they never end, or end part by part."""
        parts = [share.problems for lesson in self._lessons for share in lesson.shares]
        return parts[0].examples if len(parts) == 1 else None

    def lesson(self, step: int) -> int:
        """The number, from 0, of the lesson that an optimiser step (from 0) is of."""
        return bisect_right(self._begins, step) - 1

    def examples(self, step: int, places: range) -> list[Example]:
        """Examples of an optimiser step (from 0), by their places in it."""
        number = self.lesson(step)
        lesson = self._lessons[number]
        first = (step - lesson.from_step) * self._per_step
        found = []
        for place in places:
            deck, card = divmod(first + place, DECK)
            parts, ranks = self._deck(number, deck)
            part = parts[card]
            index = deck * self._counts[number][part] + ranks[card]
            found.append(lesson.shares[part].problems.training(self._streams[number][part], index))
        return found

    def _draw_deck(self, lesson: int, deck: int) -> tuple[list[int], list[int]]:
        """[DECK] twice: whose each card is, and how many of the deck's cards before it are of the same part.

        Raw output, sorted, rather than Generator.permutation: NumPy keeps only the former the same for ever.
        """
        counts = self._counts[lesson]
        key = np.array([stream_of(FORMAT, "deck", self._seed, lesson), deck], np.uint64)
        order = np.argsort(np.random.Philox(key=key).random_raw(DECK), kind="stable")
        parts = np.repeat(np.arange(len(counts)), counts)[order]
        ranks = np.empty(DECK, np.int64)
        for part, count in enumerate(counts):
            ranks[parts == part] = np.arange(count)
        return parts.tolist(), ranks.tolist()


def _share_out(shares: Sequence[float]) -> list[int]:
    """How many cards of a deck each part gets: in proportion, at least one (the largest remainders are rounded up).

    Raises:
        ConfigError: more parts than cards.
    """
    if len(shares) > DECK:
        raise ConfigError(f"{len(shares)} tasks in one stage are more than {DECK}.", "Mix fewer tasks.")
    wanted = np.array(shares) * DECK
    counts = np.maximum(1, np.floor(wanted + 1e-9).astype(np.int64))
    while (left := DECK - int(counts.sum())) != 0:
        change = 1 if left > 0 else -1
        counts[int(np.argmax(np.where(counts + change >= 1, change * (wanted - counts), -np.inf)))] += change
    return counts.tolist()
