"""Slow twins of the puzzles' machine code, and readers of puzzles that know nothing of how they are made."""

from collections import deque


def solve_sudoku(puzzle: str, height: int, width: int) -> list[str]:
    """All solutions of a sudoku, by trying every digit in the cell that admits the fewest."""
    n = height * width
    found = []

    def allowed(grid: list[int], cell: int) -> set[int]:
        row, column = divmod(cell, n)
        top, left = row // height * height, column // width * width
        taken = {grid[row * n + k] for k in range(n)} | {grid[k * n + column] for k in range(n)}
        taken |= {grid[(top + k // width) * n + left + k % width] for k in range(n)}
        return set(range(1, n + 1)) - taken

    def fill(grid: list[int]) -> None:
        blank = [(len(allowed(grid, cell)), cell) for cell in range(n * n) if grid[cell] == 0]
        if not blank:
            found.append("".join(map(str, grid)))
            return
        _, cell = min(blank)
        for digit in allowed(grid, cell):
            fill([*grid[:cell], digit, *grid[cell + 1 :]])

    fill([0 if sign == "." else int(sign) for sign in puzzle])
    return found


def count_shortest_ways(drawing: str) -> tuple[int, int]:
    """(moves of a shortest way from S to E, how many such ways), every place of the drawing being half a move."""
    rows = drawing.split("\n")
    places = {(i, j): sign for i, row in enumerate(rows) for j, sign in enumerate(row)}
    start = next(place for place, sign in places.items() if sign == "S")
    end = next(place for place, sign in places.items() if sign == "E")
    steps, ways, queue = {start: 0}, {start: 1}, deque([start])
    while queue:
        i, j = queue.popleft()
        for there in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
            if places.get(there, "#") == "#":
                continue
            if there not in steps:
                steps[there], ways[there] = steps[i, j] + 1, 0
                queue.append(there)
            if steps[there] == steps[i, j] + 1:
                ways[there] += ways[i, j]
    return steps[end] // 2, ways[end]


def walk(drawing: str, moves: str) -> bool:
    """Whether the moves lead from S to E through no wall."""
    rows = drawing.split("\n")
    i, j = next((i, row.index("S")) for i, row in enumerate(rows) if "S" in row)
    for move in moves:
        di, dj = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}[move]
        for _ in range(2):
            i, j = i + di, j + dj
            if i < 0 or j < 0 or i >= len(rows) or j >= len(rows[i]) or rows[i][j] == "#":
                return False
    return rows[i][j] == "E"


def exact_match(logits, targets) -> bool:
    """Whether greedy choices, position by position, are the targets; [T, V] and [T], −100 where there is none."""
    right = True
    for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
        if target >= 0:
            right = right and max(range(len(row)), key=row.__getitem__) == target
    return right
