"""Mazes: the shortest way through, or how long it is."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ourospec.data.puzzles.chance import Chance
from ourospec.data.puzzles.example import Answer, Example, Posed, Task, doubling

WALL, OPEN, START, END = (ord(sign) for sign in "#.SE")


class MazeTask(Task):
    """A maze drawn with # and ., row by row; then, after "=", the moves from S to E (U, D, L, R), or their number.

    The difficulty is the length of the shortest way in moves, of a cell each. Where the moves are asked for there is
    one shortest way only. The split is by mazes: no walls that are held out are trained on, whatever the ends of a way.
    """

    kind: Literal["maze"] = "maze"
    """Which task."""
    size: Annotated[int, Field(ge=3, le=40)] = 5
    """Cells in each direction; a cell is a place of the drawing, and so is what lies between two."""
    loops: Annotated[int, Field(ge=0, le=1_000)] = 0
    """Walls opened beyond what connects all cells, each of which makes a loop; at most (size − 1)²."""
    ask: Literal["moves", "length"] = "moves"
    """What the answer is."""

    @model_validator(mode="after")
    def _walls_suffice(self) -> Self:
        if self.loops > (self.size - 1) ** 2:
            raise ValueError(
                f"{self.size} by {self.size} cells have {(self.size - 1) ** 2} walls to open, at most"
            )
        return self

    @property
    def name(self) -> str:
        return f"maze {self.size}x{self.size}"

    @property
    def longest(self) -> int:
        side = 2 * self.size - 1
        most = self.size**2 - 1
        return side * (side + 1) + 1 + (most if self.ask == "moves" else len(str(most)))

    def pose(self, chance: Chance) -> Posed:
        from ourospec.data.puzzles.maze_kernels import carve

        maze = carve(np.uint64(chance.word()), self.size, self.loops)
        return Posed(b"maze " + maze.tobytes(), lambda: self._ask(chance, maze))

    def _ask(self, chance: Chance, maze: np.ndarray) -> Example:
        from ourospec.data.puzzles.maze_kernels import count_ways

        n, side = self.size, 2 * self.size - 1
        while True:
            start, end = chance.some(n * n, 2)
            # Counted from the end, so that the way can be walked downhill from the start.
            steps, ways = count_ways(maze, n, end)
            # Two neighbours joined by a door have one shortest way, so that this ends.
            if self.ask == "length" or ways[start] == 1:
                break
        drawing = np.where(maze, OPEN, WALL).astype(np.uint8)
        drawing[_place(start, n)], drawing[_place(end, n)] = START, END
        rows = np.full((side, side + 1), ord("\n"), np.uint8)
        rows[:, :side] = drawing.reshape(side, side)
        length = int(steps[start])
        answer = _walk(maze, steps, n, start) if self.ask == "moves" else str(length)
        asked = rows.tobytes() + b"="
        text = asked + answer.encode()
        return Example(text, (Answer(len(asked), len(text), length, doubling("moves", length)),))


def _place(cell: int, n: int) -> int:
    """Where a cell stands in the map."""
    return 2 * (cell // n) * (2 * n - 1) + 2 * (cell % n)


def _walk(maze: np.ndarray, steps: np.ndarray, n: int, start: int) -> str:
    """The moves from a cell to where `steps` are 0."""
    moves, cell, side = [], start, 2 * n - 1
    while steps[cell]:
        for move, door, there, inside in (
            ("U", -side, -n, cell >= n),
            ("D", side, n, cell < n * (n - 1)),
            ("L", -1, -1, cell % n > 0),
            ("R", 1, 1, cell % n < n - 1),
        ):
            if inside and maze[_place(cell, n) + door] and steps[cell + there] == steps[cell] - 1:
                moves.append(move)
                cell += there
                break
    return "".join(moves)
