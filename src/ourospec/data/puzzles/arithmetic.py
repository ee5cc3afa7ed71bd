"""Sums: modular arithmetic, and addition of many numbers."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ourospec.data.puzzles.chance import Chance
from ourospec.data.puzzles.example import Answer, Example, Posed, Task, ask

FIRST_SYMBOL = 128
"""The byte of residue 0 where residues are written as single bytes: above all of ASCII."""


class ModularTask(Task):
    """Modular arithmetic: "35+81=19" modulo 97. There are only modulus² problems, of which a fixed share is trained on.

    The one on which models generalise long after they have memorised (Power et al. 2022, arXiv 2201.02177), and by
    which optimisers are compared. Hold a half out with data.heldout-fraction 0.5. The difficulty is 0.
    """

    kind: Literal["modular"] = "modular"
    """Which task."""
    modulus: Annotated[int, Field(ge=2, le=10_000)] = 97
    """What the result is a remainder of. Division needs a prime."""
    operation: Literal["+", "-", "*", "/"] = "+"
    """What is done; "/" asks for the c with c · b = a, b not being 0."""
    write_as: Literal["digits", "symbols"] = "digits"
    """Numbers in decimal, all of one width, or each as one byte (128 + number, for a modulus of at most 128)."""

    @model_validator(mode="after")
    def _meant(self) -> Self:
        prime = all(self.modulus % divisor for divisor in range(2, math.isqrt(self.modulus) + 1))
        if self.operation == "/" and not prime:
            raise ValueError(f"division modulo {self.modulus}, which is no prime, has not always one result")
        if self.write_as == "symbols" and self.modulus > 256 - FIRST_SYMBOL:
            raise ValueError(f"numbers below {self.modulus} are too many for a byte each (at most 128)")
        return self

    @property
    def name(self) -> str:
        return f"modular {self.operation}"

    @property
    def longest(self) -> int:
        return 2 + 3 * len(self._spell(self.modulus - 1))

    def pose(self, chance: Chance) -> Posed:
        p = self.modulus
        a = chance.below(p)
        b = 1 + chance.below(p - 1) if self.operation == "/" else chance.below(p)
        result = {"+": a + b, "-": a - b, "*": a * b}.get(self.operation)
        c = (a * pow(b, -1, p) if result is None else result) % p
        question = self._spell(a) + self.operation.encode() + self._spell(b) + b"="
        text = question + self._spell(c)
        answer = Answer(len(question), len(text), 0, "all")
        return Posed(f"modular {p} {a}{self.operation}{b}".encode(), lambda: Example(text, (answer,)))

    def _spell(self, number: int) -> bytes:
        if self.write_as == "symbols":
            return bytes([FIRST_SYMBOL + number])
        return str(number).zfill(len(str(self.modulus - 1))).encode()


class AdditionTask(Task):
    """Addition of many numbers: "123+456+789=1368". The difficulty is how many there are.

    Numbers and result have leading zeros, so that each has its width. Source of the task: Saunshi et al. 2025, arXiv
    2502.17416.
    """

    kind: Literal["addition"] = "addition"
    """Which task."""
    least_terms: Annotated[int, Field(ge=2, le=1_000)] = 2
    """Numbers at least."""
    most_terms: Annotated[int, Field(ge=2, le=1_000)] = 8
    """Numbers at most."""
    digits: Annotated[int, Field(ge=1, le=18)] = 3
    """Of each number."""
    order: Literal["highest_first", "lowest_first"] = "highest_first"
    """Which digit of the result comes first; from the lowest on, each needs only what stands before it."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least_terms > self.most_terms:
            raise ValueError(f"{self.least_terms} to {self.most_terms} numbers: the least come first")
        return self

    @property
    def name(self) -> str:
        return "addition"

    @property
    def longest(self) -> int:
        return self.most_terms * (self.digits + 1) + self._width

    @property
    def _width(self) -> int:
        return len(str(self.most_terms * (10**self.digits - 1)))

    def pose(self, chance: Chance) -> Posed:
        count = chance.between(self.least_terms, self.most_terms)
        terms = [chance.below(10**self.digits) for _ in range(count)]
        asked = "+".join([str(term).zfill(self.digits) for term in terms])
        result = str(sum(terms)).zfill(self._width)
        spelt = result if self.order == "highest_first" else result[::-1]
        # The same numbers in another order have the same sum.
        key = f"addition {' '.join(map(str, sorted(terms)))}".encode()
        return Posed(key, lambda: ask(f"{asked}=", spelt, count, f"terms {count}"))
