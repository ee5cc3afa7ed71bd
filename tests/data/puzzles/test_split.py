"""What is held out is never trained on, by construction."""

import numpy as np
import pytest

from ourospec.data.puzzles.arithmetic import AdditionTask, ModularTask
from ourospec.data.puzzles.chance import Chance
from ourospec.data.puzzles.config import PuzzleSource
from ourospec.data.puzzles.dataset import open_puzzles
from ourospec.data.puzzles.lookup import CopyTask, PointerTask, RecallTask
from ourospec.data.puzzles.maze import MazeTask
from ourospec.data.puzzles.stories import StoryTask
from ourospec.data.puzzles.sudoku import BOXES, SudokuTask, _heldout_of_4, _keys_of_4
from ourospec.data.puzzles.sudoku_kernels import fill
from ourospec.errors import DataError


def texts(task, fraction, count=40):
    """(trained on, held out)."""
    problems = task.open(fraction, "refuse")
    trained = [problems.training(5, index).text.decode("latin-1") for index in range(count)]
    return trained, [example.text.decode("latin-1") for example in problems.heldout(count)]


def relabelled(grid: str) -> str:
    """With the digits renamed in the order of their first appearance."""
    names: dict[str, str] = {}
    return "".join(names.setdefault(digit, str(len(names) + 1)) for digit in grid)


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        (PointerTask(nodes=3, most_hops=2), lambda t: (frozenset(t.split(" ")[:3]), t.split(" ")[3])),
        (RecallTask(pairs=1, length=9), lambda t: t[:2]),
        (CopyTask(least=1, most=2), lambda t: t),
        (ModularTask(modulus=11), lambda t: t),
        (AdditionTask(digits=1, most_terms=3), lambda t: tuple(sorted(t.split("=")[0].split("+")))),
        (StoryTask(most_events=1, largest=10), lambda t: t),
        (MazeTask(size=3), lambda t: t.split("\n=")[0].replace("S", ".").replace("E", ".")),
        (SudokuTask(size=4), lambda t: relabelled(t.split("=")[1])),
        (SudokuTask(size=6), lambda t: relabelled(t.split("=")[1])),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_no_problem_is_on_both_sides(task, problem, fraction):
    trained, held = texts(task, fraction)
    assert held and not {problem(text) for text in trained} & {problem(text) for text in held}
    assert len(set(held)) == len(held)


def test_the_share_held_out_is_as_asked():
    task = ModularTask(modulus=31)
    keys = {f"modular 31 {a}+{b}".encode() for a in range(31) for b in range(31)}
    assert task.pose(Chance(1, 1)).key in keys
    for fraction in (0.05, 0.5):
        held = sum(task.is_heldout(key, fraction) for key in keys) / len(keys)
        assert held == pytest.approx(fraction, abs=0.05)


def test_stages_of_one_task_share_their_split():
    """What is held out of the hard task is not trained on in the easy one, nor the other way round."""
    easy, hard = PointerTask(nodes=4, most_hops=1), PointerTask(nodes=4, most_hops=3)
    for index in range(50):
        key = easy.pose(Chance(1, index)).key
        assert easy.is_heldout(key, 0.3) == hard.is_heldout(key, 0.3)


def test_the_few_classes_of_sudoku_with_four_digits_are_shared_out():
    keys = _keys_of_4()
    assert len(set(keys)) == len(keys) == 12
    drawn = {SudokuTask(size=4).pose(Chance(1, index)).key for index in range(300)}
    assert drawn == set(keys)
    assert [len(_heldout_of_4(fraction)) for fraction in (0.001, 0.25, 0.5)] == [1, 3, 6]


@pytest.mark.parametrize("size", [4, 6, 9])
def test_new_names_for_the_digits_change_no_side(size):
    from ourospec.data.puzzles.sudoku import _key

    rng = np.random.default_rng(0)
    for seed in range(20):
        grid = fill(np.uint64(seed), *BOXES[size])
        names = rng.permutation(size) + 1
        assert _key(grid.tolist(), size) == _key(names[grid - 1].tolist(), size)
        assert _key(grid.tolist(), size) != _key(np.roll(grid, size).tolist(), size) or size == 4


def test_what_is_held_out_is_the_same_in_every_run_and_grows_in_place():
    small, large = (
        open_puzzles(PuzzleSource(task=PointerTask(), heldout_examples=count), 0.1, "refuse")
        for count in (5, 20)
    )
    first = [document.tokens.tolist() for document in small.heldout.documents()]
    assert first == [large.heldout.document(number).tokens.tolist() for number in range(5)]
    assert large.heldout.num_documents == 20 and large.prompts[0].endswith("=")


def test_a_task_too_small_to_be_split_says_so():
    with pytest.raises(DataError, match="of the task modular \\+ none is held out"):
        open_puzzles(PuzzleSource(task=ModularTask(modulus=2)), 0.0001, "refuse")
