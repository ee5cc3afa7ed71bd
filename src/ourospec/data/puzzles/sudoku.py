"""Sudoku with 4, 6 or 9 digits, each puzzle with one solution, which a solver has proved."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import permutations
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ourospec.data.puzzles.chance import Chance
from ourospec.data.puzzles.example import Answer, Example, Posed, Task, doubling, share_of

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Rows and columns of a box, by the number of digits."""
CLASSES_OF_4 = 12
"""The 288 grids of 4 digits, counted as one where they differ in the names of the digits."""
ZERO = ord("0")


class SudokuTask(Task):
    """Sudoku: "1..4..1..3..4..2=1234341223414123" for 4 digits, row by row, the solution after "=".

    The difficulty is the number of rounds of a fixed search (sudoku_kernels.search_depth): a round fills every cell
    that admits one digit, and every cell that is the only place of a digit in its unit; where nothing can be filled so,
    a guess is a round, and failed branches count. The split is by complete grids: two that differ only in the names of
    their digits are on one side, all puzzles made of them too. (Turned, mirrored or otherwise permuted grids count as
    different.)
    """

    kind: Literal["sudoku"] = "sudoku"
    """Which task."""
    size: Literal[4, 6, 9] = 6
    """Digits; boxes are of 2 by 2, 2 by 3 or 3 by 3 cells."""
    least_blank: Annotated[float, Field(gt=0, le=0.8)] = 0.4
    """Share of the cells that are blank, at least; less where no more can go without a second solution."""
    most_blank: Annotated[float, Field(gt=0, le=0.8)] = 0.6
    """Share of the cells that are blank, at most."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least_blank > self.most_blank:
            raise ValueError(
                f"{self.least_blank:g} to {self.most_blank:g} of the cells blank: the least comes first"
            )
        return self

    @property
    def name(self) -> str:
        return f"sudoku {self.size}x{self.size}"

    @property
    def longest(self) -> int:
        return 2 * self.size**2 + 1

    def is_heldout(self, key: bytes, fraction: float) -> bool:
        """By the key; of the few classes of 4 digits as many as come nearest to the fraction, one on each side at
        least."""
        return key in _heldout_of_4(fraction) if self.size == 4 else share_of(key) < fraction

    def pose(self, chance: Chance) -> Posed:
        from ourospec.data.puzzles.sudoku_kernels import fill

        solution = fill(np.uint64(chance.word()), *BOXES[self.size])
        return Posed(_key(solution.tolist(), self.size), lambda: self._dig(chance, solution))

    def _dig(self, chance: Chance, solution: np.ndarray) -> Example:
        from ourospec.data.puzzles.sudoku_kernels import dig, search_depth

        height, width = BOXES[self.size]
        least, most = (max(1, round(share * self.size**2)) for share in (self.least_blank, self.most_blank))
        puzzle = dig(solution, height, width, chance.between(least, most), np.uint64(chance.word()))
        rounds, _ = search_depth(puzzle, height, width)
        asked = (puzzle + ZERO).tobytes().replace(b"0", b".") + b"="
        text = asked + (solution + ZERO).tobytes()
        return Example(text, (Answer(len(asked), len(text), rounds, doubling("rounds", rounds)),))


def _key(solution: Sequence[int], size: int) -> bytes:
    """The same for two grids that differ only in the names of their digits: the first row is then 1, 2, 3, ..."""
    names = {digit: place + 1 for place, digit in enumerate(solution[:size])}
    return b"sudoku " + bytes([ZERO + names[digit] for digit in solution])


@lru_cache(maxsize=8)
def _heldout_of_4(fraction: float) -> frozenset[bytes]:
    count = min(max(1, round(fraction * CLASSES_OF_4)), CLASSES_OF_4 - 1)
    return frozenset(sorted(_keys_of_4(), key=share_of)[:count])


def _keys_of_4() -> list[bytes]:
    """All keys of grids with 4 digits."""
    first = (1, 2, 3, 4)
    rows = list(permutations(first))

    def apart(*above: Sequence[int]) -> list[tuple[int, ...]]:
        """Rows without a digit in the column where a row above has it."""
        return [
            row for row in rows if all(d != e for other in above for d, e in zip(row, other, strict=True))
        ]

    def boxes(one: Sequence[int], other: Sequence[int]) -> bool:
        return len({*one[:2], *other[:2]}) == 4

    return [
        _key([*first, *second, *third, *fourth], 4)
        for second in apart(first)
        if boxes(first, second)
        for third in apart(first, second)
        for fourth in apart(first, second, third)
        if boxes(third, fourth)
    ]
