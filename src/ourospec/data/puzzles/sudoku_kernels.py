"""Sudoku in machine code: filling, solving, digging, and how deep a search goes.

A grid is [n · n] int8, row by row, 0 where it is blank; its boxes have `height` rows and `width` columns, and
n = height · width digits. Sets of digits are bits, digit d being bit d − 1.

Numba looks at this file alone to see whether what it has kept is still good: everything that it compiles stands here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

NOWHERE = np.int64(-1)
"""A cell that there is not. (Plain numbers as arguments would have everything compiled for them alone.)"""
STACK = 1024
"""Branches that wait at once while a search looks for its depth: at most n − 1 for each of its guesses."""


def machine_code(function: Callable) -> Any:
    """Compile at the first call and keep."""
    return njit(cache=True, nogil=True)(inspect.unwrap(function))


@machine_code
def next_word(state):
    """Moves state[0] on and gives 64 random bits: SplitMix64 (Steele, Lea and Flood 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@machine_code
def below(state, bound):
    """0 to bound − 1, for bounds that are small beside 2³²."""
    return np.int64(((next_word(state) >> np.uint64(32)) * np.uint64(bound)) >> np.uint64(32))


@machine_code
def count_bits(mask):
    """Digits in a set of at most 16."""
    mask = mask - ((mask >> 1) & 0x5555)
    mask = (mask & 0x3333) + ((mask >> 2) & 0x3333)
    mask = (mask + (mask >> 4)) & 0x0F0F
    return (mask + (mask >> 8)) & 0x1F


@machine_code
def digit_of(bit):
    """The digit that a single bit stands for."""
    digit = 1
    while bit >> digit:
        digit += 1
    return digit


@machine_code
def lay_boxes(height, width):
    """[n · n] the number of each cell's box."""
    n = height * width
    boxes = np.empty(n * n, np.int64)
    for cell in range(n * n):
        boxes[cell] = (cell // n) // height * height + (cell % n) // width
    return boxes


@machine_code
def note_used(grid, boxes, n):
    """[3, n] the digits used in each row, column and box."""
    used = np.zeros((3, n), np.int64)
    for cell in range(n * n):
        if grid[cell]:
            bit = 1 << (grid[cell] - 1)
            used[0, cell // n] |= bit
            used[1, cell % n] |= bit
            used[2, boxes[cell]] |= bit
    return used


@machine_code
def most_bound(grid, boxes, used, n, barred_cell, barred):
    """The blank cell to fill next, and its candidates; (−1, 0) where none is blank, no candidates in a contradiction.

    A cell with one candidate, or else the only place of a digit in a unit, or else the first cell with the fewest.
    """
    full = (1 << n) - 1
    best, best_count, best_mask = -1, n + 1, 0
    masks = np.zeros(n * n, np.int64)
    for cell in range(n * n):
        if grid[cell] == 0:
            mask = full & ~(used[0, cell // n] | used[1, cell % n] | used[2, boxes[cell]])
            if cell == barred_cell:
                mask &= ~barred
            count = count_bits(mask)
            if count <= 1:
                return cell, mask
            if count < best_count:
                best, best_count, best_mask = cell, count, mask
            masks[cell] = mask
    if best < 0:
        return best, 0
    seen, twice = places(masks, boxes, n)
    for kind in range(3):
        for unit in range(n):
            if seen[kind, unit] | used[kind, unit] != full:
                return best, 0
    for cell in range(n * n):
        if masks[cell]:
            only = ~twice[0, cell // n] | ~twice[1, cell % n] | ~twice[2, boxes[cell]]
            if masks[cell] & only:
                return cell, masks[cell] & only
    return best, best_mask


@machine_code
def places(masks, boxes, n):
    """[3, n] each: digits that have a place in each row, column and box, and those that have more than one."""
    seen = np.zeros((3, n), np.int64)
    twice = np.zeros((3, n), np.int64)
    for cell in range(n * n):
        mask = masks[cell]
        if mask:
            row, column, box = cell // n, cell % n, boxes[cell]
            twice[0, row] |= seen[0, row] & mask
            twice[1, column] |= seen[1, column] & mask
            twice[2, box] |= seen[2, box] & mask
            seen[0, row] |= mask
            seen[1, column] |= mask
            seen[2, box] |= mask
    return seen, twice


@machine_code
def pick(mask, state):
    """A random digit of a set, as its bit."""
    for _ in range(below(state, count_bits(mask))):
        mask &= mask - 1
    return mask & -mask


@machine_code
def search(grid, boxes, n, barred_cell, barred, state):
    """Fill the grid's blanks, if there is a way; whether there is. Where there is none the grid is left as it was.

    Depth first, by `most_bound`, digits in random order. In `barred_cell` the digits `barred` may not stand.
    """
    used = note_used(grid, boxes, n)
    cells = np.empty(n * n + 1, np.int64)
    left = np.zeros(n * n + 1, np.int64)
    placed = np.zeros(n * n + 1, np.int64)
    depth = 0
    cells[0], left[0] = most_bound(grid, boxes, used, n, barred_cell, barred)
    while depth >= 0:
        cell = cells[depth]
        if cell < 0:
            return True
        bit = placed[depth]
        if bit:
            grid[cell] = 0
            used[0, cell // n] &= ~bit
            used[1, cell % n] &= ~bit
            used[2, boxes[cell]] &= ~bit
        if left[depth] == 0:
            depth -= 1
            continue
        bit = pick(left[depth], state)
        left[depth] &= ~bit
        placed[depth] = bit
        grid[cell] = digit_of(bit)
        used[0, cell // n] |= bit
        used[1, cell % n] |= bit
        used[2, boxes[cell]] |= bit
        depth += 1
        cells[depth], left[depth] = most_bound(grid, boxes, used, n, barred_cell, barred)
        placed[depth] = 0
    return False


@machine_code
def fill(seed, height, width):
    """A random complete grid (not all grids are equally likely)."""
    n = height * width
    grid = np.zeros(n * n, np.int8)
    state = np.array([seed], np.uint64)
    search(grid, lay_boxes(height, width), n, NOWHERE, np.int64(0), state)
    return grid


@machine_code
def dig(solution, height, width, blanks, seed):
    """Blank cells of a complete grid, in random order, as long as there is one solution only: at most `blanks` of them.

    A cell may be blanked if no other digit than its own leads to a solution, all other cells being as they are.
    """
    n = height * width
    boxes = lay_boxes(height, width)
    state = np.array([seed], np.uint64)
    order = np.arange(n * n)
    for place in range(n * n - 1):
        other = place + below(state, n * n - place)
        order[place], order[other] = order[other], order[place]
    puzzle, work = solution.copy(), solution.copy()
    removed = 0
    for cell in order:
        if removed == blanks:
            break
        work[:] = puzzle
        work[cell] = 0
        if not search(work, boxes, n, cell, 1 << (puzzle[cell] - 1), state):
            puzzle[cell] = 0
            removed += 1
    return puzzle


@machine_code
def deduce(grid, boxes, n):
    """One round: fill every cell that can hold one digit only, or the only cell of a unit for a digit, all at once.

    Returns how many were filled; −1 where a cell or a digit has no place left.
    """
    used = note_used(grid, boxes, n)
    full = (1 << n) - 1
    masks = np.zeros(n * n, np.int64)
    for cell in range(n * n):
        if grid[cell] == 0:
            masks[cell] = full & ~(used[0, cell // n] | used[1, cell % n] | used[2, boxes[cell]])
            if masks[cell] == 0:
                return -1
    seen, twice = places(masks, boxes, n)
    for kind in range(3):
        for unit in range(n):
            if seen[kind, unit] | used[kind, unit] != full:
                return -1
    filled = 0
    for cell in range(n * n):
        mask = masks[cell]
        if mask:
            row, column, box = cell // n, cell % n, boxes[cell]
            only = mask & (~twice[0, row] | ~twice[1, column] | ~twice[2, box])
            bit = mask if mask & (mask - 1) == 0 else only
            if bit:
                if bit & (bit - 1):
                    return -1
                grid[cell] = digit_of(bit)
                filled += 1
    return filled


@machine_code
def consistent(grid, boxes, n):
    """Whether no unit holds a digit twice."""
    used = np.zeros((3, n), np.int64)
    for cell in range(n * n):
        if grid[cell]:
            bit = 1 << (grid[cell] - 1)
            units = (cell // n, cell % n, boxes[cell])
            for kind in range(3):
                if used[kind, units[kind]] & bit:
                    return False
                used[kind, units[kind]] |= bit
    return True


@machine_code
def search_depth(puzzle, height, width):
    """(rounds, guesses) of a fixed search for the solution, those in branches that fail included.

    It deduces in rounds; where a round fills nothing, it guesses: the cell with the fewest candidates, lowest digit
    first. A guess is a round. (0, 0) for a grid without blanks; rounds are −1 where there is no solution.
    """
    n = height * width
    boxes = lay_boxes(height, width)
    waiting = np.empty((STACK, n * n), np.int8)
    waiting[0] = puzzle
    size, rounds, guesses = 1, 0, 0
    while size:
        size -= 1
        grid = waiting[size].copy()
        while True:
            blank = 0
            for cell in range(n * n):
                blank += grid[cell] == 0
            if blank == 0:
                return rounds, guesses
            filled = deduce(grid, boxes, n)
            if filled < 0 or (filled and not consistent(grid, boxes, n)):
                rounds += 1
                break
            if filled:
                rounds += 1
                continue
            cell, mask = most_bound(grid, boxes, note_used(grid, boxes, n), n, NOWHERE, np.int64(0))
            rounds += 1
            guesses += 1
            for digit in range(n, 0, -1):
                if mask >> (digit - 1) & 1:
                    waiting[size] = grid
                    waiting[size, cell] = digit
                    size += 1
            break
    return -1, guesses
