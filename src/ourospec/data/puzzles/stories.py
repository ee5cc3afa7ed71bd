"""Arithmetic in words: small stories about how many of something somebody has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from ourospec.data.puzzles.chance import Chance
from ourospec.data.puzzles.example import Posed, Task, ask

NAMES = (
    "Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jon", "Kim", "Leo", "Mia", "Ned", "Tom", "Zoe",
)  # fmt: skip
THINGS = ("apples", "books", "coins", "cards", "eggs", "nuts", "pens", "shells", "stamps", "stones")


class _Event(NamedTuple):
    """Something that happens: the words for it, and what becomes of the count."""

    words: str
    apply: Callable[[int, int], int | None]
    """None where it cannot happen."""
    most: int = 0
    """Of the number in it; 0: as large as the task allows."""


def _more(have: int, n: int) -> int:
    return have + n


def _less(have: int, n: int) -> int | None:
    return have - n if n <= have else None


def _times(have: int, n: int) -> int | None:
    return have * n if n >= 2 else None


def _shared(have: int, n: int) -> int | None:
    return have // n if n >= 2 and have % n == 0 else None


_EVENTS = (
    _Event("finds {n} more", _more),
    _Event("buys {n}", _more),
    _Event("gets {n} from {other}", _more),
    _Event("sells {n}", _less),
    _Event("loses {n}", _less),
    _Event("gives {n} to {other}", _less),
    _Event("then has {n} times as many", _times, 5),
    _Event("shares them out to {n} boxes and keeps one of the boxes", _shared, 5),
)


class StoryTask(Task):
    """Arithmetic questions: "Q: Tom has 15 coins. Tom sells 7. How many coins does Tom have now?\nA: 8".

    The difficulty is the number of things that happen. Stories that differ in nothing but names and things share a side
    of the split.
    """

    kind: Literal["story"] = "story"
    """Which task."""
    least_events: Annotated[int, Field(ge=1, le=12)] = 1
    """Things that happen, at least."""
    most_events: Annotated[int, Field(ge=1, le=12)] = 3
    """Things that happen, at most."""
    largest: Annotated[int, Field(ge=10, le=100_000)] = 99
    """Greatest number that occurs on the way."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least_events > self.most_events:
            raise ValueError(f"{self.least_events} to {self.most_events} events: the least come first")
        return self

    @property
    def name(self) -> str:
        return "story"

    @property
    def longest(self) -> int:
        name, thing, digits = max(map(len, NAMES)), max(map(len, THINGS)), len(str(self.largest))
        event = max(len(event.words.format(n="", other="")) for event in _EVENTS) + 2 * name + digits + 3
        frame = len("Q:  has  . How many  does  have now?\nA: ")
        return frame + 2 * name + 2 * thing + 2 * digits + self.most_events * event

    def pose(self, chance: Chance) -> Posed:
        count = chance.between(self.least_events, self.most_events)
        have = first = chance.between(2, self.largest)
        happened: list[tuple[int, int]] = []
        while len(happened) < count:
            number = chance.below(len(_EVENTS))
            event = _EVENTS[number]
            n = chance.between(1, event.most or self.largest)
            now = event.apply(have, n)
            if now is not None and now <= self.largest:
                have = now
                happened.append((number, n))
        key = f"story {first} {happened}".encode()
        return Posed(
            key, lambda: ask(self._tell(chance, first, happened), str(have), count, f"events {count}")
        )

    def _tell(self, chance: Chance, first: int, happened: list[tuple[int, int]]) -> str:
        who, *others = (NAMES[name] for name in chance.some(len(NAMES), 1 + len(happened)))
        thing = chance.one_of(THINGS)
        told = [f"{who} has {first} {thing}."]
        for (number, n), other in zip(happened, others, strict=True):
            told.append(f"{who} {_EVENTS[number].words.format(n=n, other=other)}.")
        return f"Q: {' '.join(told)} How many {thing} does {who} have now?\nA: "
