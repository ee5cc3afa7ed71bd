"""Mazes in machine code: carving, and counting shortest ways.

A maze of n by n cells is a map of (2n − 1) by (2n − 1) places, row by row, 1 where it is open: cell (i, j) stands at
(2i, 2j), and between two neighbours the place that is open where a way leads from one to the other.

Numba looks at this file alone to see whether what it has kept is still good: everything that it compiles stands here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

MANY = 1_000_000
"""Ways are not counted beyond this."""


def machine_code(function: Callable) -> Any:
    """Compile at the first call and keep."""
    return njit(cache=True, nogil=True)(inspect.unwrap(function))


@machine_code
def below(state, bound):
    """0 to bound − 1, for bounds that are small beside 2³².

    Moves state[0] on by SplitMix64 (Steele, Lea and Flood 2014).
    """
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.int64(((z >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@machine_code
def carve(seed, n, loops):
    """[(2n − 1)²] uint8: a maze in which one way leads from any cell to any other, by a random walk that turns back
    where it finds nothing new; then so many of the remaining walls, at random, are opened, too."""
    side = 2 * n - 1
    state = np.array([seed], np.uint64)
    maze = np.zeros(side * side, np.uint8)
    walk = np.empty(n * n, np.int64)
    ways = np.empty(4, np.int64)
    at = 2 * below(state, n) * side + 2 * below(state, n)
    maze[at], walk[0], length = 1, at, 1
    while length:
        at = walk[length - 1]
        row, column = at // side, at % side
        count = 0
        if row > 0 and maze[at - 2 * side] == 0:
            ways[count], count = -side, count + 1
        if row < side - 1 and maze[at + 2 * side] == 0:
            ways[count], count = side, count + 1
        if column > 0 and maze[at - 2] == 0:
            ways[count], count = -1, count + 1
        if column < side - 1 and maze[at + 2] == 0:
            ways[count], count = 1, count + 1
        if count == 0:
            length -= 1
            continue
        way = ways[below(state, count)]
        maze[at + way] = maze[at + 2 * way] = 1
        walk[length] = at + 2 * way
        length += 1
    opened = 0
    while opened < loops:
        # The places between two neighbours are those where row and column are not both even or both odd.
        place = below(state, side * side)
        if (place // side + place % side) % 2 and maze[place] == 0:
            maze[place] = 1
            opened += 1
    return maze


@machine_code
def count_ways(maze, n, start):
    """[n²] twice: how many steps each cell is away from cell number `start`, and how many shortest ways lead there."""
    side = 2 * n - 1
    steps = np.full(n * n, -1, np.int64)
    ways = np.zeros(n * n, np.int64)
    queue = np.empty(n * n, np.int64)
    steps[start], ways[start], queue[0] = 0, 1, start
    head, tail = 0, 1
    while head < tail:
        cell = queue[head]
        head += 1
        row, column = cell // n, cell % n
        place = 2 * row * side + 2 * column
        for turn in range(4):
            if turn == 0 and row > 0:
                door, there = place - side, cell - n
            elif turn == 1 and row < n - 1:
                door, there = place + side, cell + n
            elif turn == 2 and column > 0:
                door, there = place - 1, cell - 1
            elif turn == 3 and column < n - 1:
                door, there = place + 1, cell + 1
            else:
                continue
            if maze[door] == 0:
                continue
            if steps[there] < 0:
                steps[there] = steps[cell] + 1
                queue[tail] = there
                tail += 1
            if steps[there] == steps[cell] + 1:
                ways[there] = min(MANY, ways[there] + ways[cell])
    return steps, ways
