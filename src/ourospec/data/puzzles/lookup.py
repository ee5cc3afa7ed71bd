"""Tasks of looking something up in what was read: pointer chasing, associative recall, a needle, a copy."""

from __future__ import annotations

import string
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ourospec.data.puzzles.chance import Chance
from ourospec.data.puzzles.example import Answer, Example, Posed, Task, ask, doubling

LOWER, UPPER = string.ascii_lowercase, string.ascii_uppercase
FILLER = "."


class PointerTask(Task):
    """Pointer chasing: "ae cb ba dc ec b3=c" lists where each of 5 letters points, and asks where 3 hops from b end.

    The way visits no letter twice, so that no shorter way gives the answer away; all other letters point anywhere. The
    difficulty is the number of hops. Problems that differ in nothing but the order of the list share a side of the
    split.
    """

    kind: Literal["pointer"] = "pointer"
    """Which task."""
    nodes: Annotated[int, Field(ge=2, le=26)] = 6
    """Letters that point to each other."""
    least_hops: Annotated[int, Field(ge=1, le=9)] = 1
    """Hops at least."""
    most_hops: Annotated[int, Field(ge=1, le=9)] = 4
    """Hops at most; fewer than letters."""
    questions: Annotated[int, Field(ge=1, le=64)] = 1
    """Questions about one list at most, "b3=c a1=e ...", none twice: more is learned from a text."""

    @model_serializer(mode="wrap")
    def _as_before_there_were_several(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A single question is not written: the puzzles of before, and those held out, stay what they were."""
        return {name: value for name, value in handler(self).items() if (name, value) != ("questions", 1)}

    @model_validator(mode="after")
    def _way_fits(self) -> Self:
        if not self.least_hops <= self.most_hops < self.nodes:
            raise ValueError(
                f"{self.least_hops} to {self.most_hops} hops through {self.nodes} letters: a way that visits no letter "
                "twice has fewer hops than there are letters, and the least come first"
            )
        return self

    @property
    def name(self) -> str:
        return "pointer"

    @property
    def longest(self) -> int:
        return 3 * self.nodes + 5 * self.questions - 1

    def pose(self, chance: Chance) -> Posed:
        hops = chance.between(self.least_hops, self.most_hops)
        order = chance.order(self.nodes)
        target = [chance.below(self.nodes) for _ in range(self.nodes)]
        for here, there in pairwise(order[: hops + 1]):
            target[here] = there
        asked = [(order[0], hops)]
        while len(asked) < self.questions and (more := self._another(chance, target, asked)):
            asked.append(more)
        pairs = [LOWER[here] + LOWER[there] for here, there in enumerate(target)]
        key = " ".join(f"{LOWER[start]}{hops}" for start, hops in asked)

        def write() -> Example:
            text = " ".join(pairs[here] for here in chance.order(self.nodes))
            answers = []
            for start, hops in asked:
                text += f" {LOWER[start]}{hops}="
                answers.append(Answer(len(text), len(text) + 1, hops, f"hops {hops}"))
                text += LOWER[_way(target, start, hops)[-1]]
            return Example(text.encode(), tuple(answers))

        return Posed(f"pointer {' '.join(pairs)} {key}".encode(), write)

    def _another(
        self, chance: Chance, target: list[int], asked: list[tuple[int, int]]
    ) -> tuple[int, int] | None:
        """A start and a number of hops whose way visits no letter twice, not asked yet; None where there is none."""
        found: dict[int, list[int]] = {}
        for hops in range(self.least_hops, self.most_hops + 1):
            for here in range(self.nodes):
                if (here, hops) not in asked and len(set(_way(target, here, hops))) > hops:
                    found.setdefault(hops, []).append(here)
        if not found:
            return None
        hops = chance.one_of(list(found))
        return chance.one_of(found[hops]), hops


def _way(target: list[int], start: int, hops: int) -> list[int]:
    """The letters that are visited."""
    way = [start]
    for _ in range(hops):
        way.append(target[way[-1]])
    return way


class RecallTask(Task):
    """Multi-query associative recall: pairs of key and value, then each key once more, to be followed by its value.

    "aXcBbQ|.c" is answered by B, and goes on "..aXbQ". Between the questions lies filler, as the length allows. The
    difficulty of an answer is the distance from the value to its question, in bytes: beyond a model's window only its
    memory reaches. Source: Arora et al. 2023, arXiv 2312.04927 (here with bytes and evenly spread questions).
    """

    kind: Literal["recall"] = "recall"
    """Which task."""
    pairs: Annotated[int, Field(ge=1, le=26)] = 8
    """Pairs of a key, a to z, and a value, A to Z."""
    length: Annotated[int, Field(ge=5, le=65_536)] = 64
    """Bytes of the text, at least four for each pair and one."""

    @model_validator(mode="after")
    def _pairs_fit(self) -> Self:
        if self.length < 4 * self.pairs + 1:
            raise ValueError(
                f"{self.pairs} pairs and their questions need a length of {4 * self.pairs + 1} at least"
            )
        return self

    @property
    def name(self) -> str:
        return "recall"

    @property
    def longest(self) -> int:
        return self.length

    def pose(self, chance: Chance) -> Posed:
        keys = [LOWER[key] for key in chance.some(26, self.pairs)]
        values = [chance.one_of(UPPER) for _ in keys]
        known = "".join(key + value for key, value in zip(keys, values, strict=True))
        return Posed(f"recall {known}".encode(), lambda: self._write(chance, known))

    def _write(self, chance: Chance, known: str) -> Example:
        """Questions stand in a random order, and as many of the free bytes as it happens before each of them."""
        room = self.length - 4 * self.pairs - 1
        # A random choice of the places of questions among places and fillers; what is left over lies at the end.
        places = sorted(chance.some(room + self.pairs, self.pairs))
        text, answers = [known, "|"], []
        at, before = 2 * self.pairs + 1, 0
        for number, (pair, place) in enumerate(zip(chance.order(self.pairs), places, strict=True)):
            gap = place - number - before
            before += gap
            text += [FILLER * gap, known[2 * pair : 2 * pair + 2]]
            at += gap + 2
            distance = at - 2 - (2 * pair + 1)
            answers.append(Answer(at - 1, at, distance, doubling("distance", distance)))
        text.append(FILLER * (room - before))
        return Example("".join(text).encode(), tuple(answers))


class NeedleTask(Task):
    """A needle in a haystack: among random letters stands, once, "!" and a value in capitals; "?" asks for it.

    "qhrb!Kwpo?K". The difficulty is the distance from the needle to the question in bytes.
    """

    kind: Literal["needle"] = "needle"
    """Which task."""
    length: Annotated[int, Field(ge=4, le=65_536)] = 64
    """Bytes of the text."""
    value_length: Annotated[int, Field(ge=1, le=64)] = 1
    """Capitals of the value."""

    @model_validator(mode="after")
    def _needle_fits(self) -> Self:
        if self.length < 2 * self.value_length + 2:
            raise ValueError(
                f"a value of {self.value_length} needs a length of {2 * self.value_length + 2} at least"
            )
        return self

    @property
    def name(self) -> str:
        return "needle"

    @property
    def longest(self) -> int:
        return self.length

    def pose(self, chance: Chance) -> Posed:
        size = self.value_length
        hay = self.length - 2 * size - 2
        straw = "".join([chance.one_of(LOWER) for _ in range(hay)])
        value = "".join([chance.one_of(UPPER) for _ in range(size)])
        at = chance.below(hay + 1)
        question = f"{straw[:at]}!{value}{straw[at:]}?"
        distance = hay - at + 1

        def write() -> Example:
            return ask(question, value, distance, doubling("distance", distance))

        return Posed(f"needle {question}".encode(), write)


class CopyTask(Task):
    """A copy: "qhrb|qhrb". The difficulty is the number of letters."""

    kind: Literal["copy"] = "copy"
    """Which task."""
    least: Annotated[int, Field(ge=1, le=32_767)] = 4
    """Letters at least."""
    most: Annotated[int, Field(ge=1, le=32_767)] = 16
    """Letters at most."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"{self.least} to {self.most} letters: the least come first")
        return self

    @property
    def name(self) -> str:
        return "copy"

    @property
    def longest(self) -> int:
        return 2 * self.most + 1

    def pose(self, chance: Chance) -> Posed:
        length = chance.between(self.least, self.most)
        letters = "".join([chance.one_of(LOWER) for _ in range(length)])
        return Posed(
            f"copy {letters}".encode(),
            lambda: ask(f"{letters}|", letters, length, doubling("letters", length)),
        )
