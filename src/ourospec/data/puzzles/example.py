"""What a puzzle is: a text of which some stretches are answers, each of a known difficulty."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ourospec.config import Config
from ourospec.data.documents import OnUndecodable
from ourospec.data.puzzles.chance import Chance, stream_of
from ourospec.errors import DataError

FORMAT = "puzzles-v1"
"""Names the way from random numbers to examples; a change of it changes every stream's fingerprint."""
MOST_DRAWS = 10_000
"""Problems that are drawn in search of one of the right side."""
ATTEMPTS = 8
"""Examples drawn for each that is held out, in search of new ones."""


class Answer(NamedTuple):
    """A stretch of the text that is to be foretold, all of it."""

    start: int
    """Its first byte in the text."""
    end: int
    """Behind its last one."""
    difficulty: float
    """A number that rises with it; each task says what it counts."""
    bin: str
    """The difficulties that are reported together with this one."""

    def targets(self, size: int) -> slice:
        """Which tokens of a text of `size` bytes and its end have to be foretold: the end, too, of an answer that ends
        the text."""
        return slice(self.start, self.end + (self.end == size))


class Example(NamedTuple):
    """One puzzle. Where the last answer ends the text, the end of the text belongs to it: a model must know when it is
    done."""

    text: bytes
    answers: tuple[Answer, ...]


class Posed(NamedTuple):
    """A problem that is not written down yet."""

    key: bytes
    """What decides its side of the split: problems that give each other away share it. It begins with the kind of task,
    since all kinds are split alike."""
    write: Callable[[], Example]
    """Writes it down, which may cost more than posing it; called once at most."""


class Problems(Protocol):
    """A task made ready: examples of two sides that share no key."""

    @property
    def name(self) -> str:
        """As it stands in tables of results."""
        ...

    @property
    def longest(self) -> int:
        """No text has more bytes."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes with what would be asked."""
        ...

    @property
    def examples(self) -> int | None:
        """To learn from, before they come again; None: without end."""
        ...

    @property
    def summary(self) -> dict[str, object]:
        """JSON-ready: what there is."""
        ...

    def training(self, stream: int, index: int) -> Example:
        """Example number `index` of a stream of examples to learn from, without end."""
        ...

    def heldout(self, count: int) -> list[Example]:
        """Up to `count` examples that are never trained on, always the same, no text twice."""
        ...


class Task(Config):
    """How puzzles of one kind are made, as many as are wanted."""

    @property
    def name(self) -> str:
        """As it stands in tables of results."""
        raise NotImplementedError

    @property
    def longest(self) -> int:
        """No text of this task has more bytes."""
        raise NotImplementedError

    def pose(self, chance: Chance) -> Posed:
        """The problem that these random numbers give."""
        raise NotImplementedError

    def is_heldout(self, key: bytes, fraction: float) -> bool:
        """Whether the problems of this key are held out, as about that fraction of all keys are. A key is held out or
        not whatever the other settings of the task, so that easier stages of a curriculum give nothing away."""
        return share_of(key) < fraction

    def open(self, fraction: float, on_undecodable: OnUndecodable) -> Problems:
        """Ready to draw from; `fraction` of the problems is held out."""
        del on_undecodable
        return Generated(self, fraction)


@dataclass(frozen=True)
class Generated:
    """The examples of a task that makes its own: those of one side, by leaving out the problems of the other."""

    task: Task
    fraction: float

    @property
    def name(self) -> str:
        return self.task.name

    @property
    def longest(self) -> int:
        return self.task.longest

    @property
    def fingerprint(self) -> str:
        return f"{FORMAT}\n{self.fraction}\n{self.task.model_dump_json()}"

    @property
    def examples(self) -> None:
        return None

    @property
    def summary(self) -> dict[str, object]:
        return {"task": self.name, "examples": "made as they are needed"}

    def training(self, stream: int, index: int) -> Example:
        return self._draw(Chance(stream, index), heldout=False).write()

    def heldout(self, count: int) -> list[Example]:
        stream = stream_of(FORMAT, "heldout", self.task.model_dump_json())
        found: dict[bytes, Example] = {}
        # A small task may have fewer than are wanted.
        for index in range(ATTEMPTS * count):
            if len(found) == count:
                break
            example = self._draw(Chance(stream, index), heldout=True).write()
            found.setdefault(example.text, example)
        return list(found.values())

    def _draw(self, chance: Chance, heldout: bool) -> Posed:
        for _ in range(MOST_DRAWS):
            posed = self.task.pose(chance)
            if self.task.is_heldout(posed.key, self.fraction) == heldout:
                return posed
        where = "is held out" if heldout else "is left to train on"
        raise DataError(
            f"Of {MOST_DRAWS:,} problems of the task {self.name} none {where}.",
            "It has too few different problems: make it larger, or set another --data.heldout-fraction.",
        )


def share_of(key: bytes) -> float:
    """A number from 0 to 1 that only the key decides."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64


def ask(question: str, answer: str, difficulty: float, bin: str) -> Example:
    """A text that ends with its only answer."""
    asked = question.encode()
    text = asked + answer.encode()
    return Example(text, (Answer(len(asked), len(text), difficulty, bin),))


def doubling(name: str, count: int) -> str:
    """The bin of a count, such as "hops 3-4": 1, 2, 3-4, 5-8, 9-16 and so on."""
    if count <= 2:
        return f"{name} {count}"
    high = 1 << (count - 1).bit_length()
    return f"{name} {high // 2 + 1}-{high}"
