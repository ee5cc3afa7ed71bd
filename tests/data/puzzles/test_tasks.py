"""Every task: its answers are right, told by readers that know nothing of how they were made."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ourospec.data.puzzles.arithmetic import AdditionTask, ModularTask
from ourospec.data.puzzles.chance import Chance
from ourospec.data.puzzles.example import Example, doubling
from ourospec.data.puzzles.lookup import CopyTask, NeedleTask, PointerTask, RecallTask
from ourospec.data.puzzles.maze import MazeTask
from ourospec.data.puzzles.stories import StoryTask
from ourospec.data.puzzles.sudoku import BOXES, SudokuTask
from ourospec.data.puzzles.sudoku_kernels import lay_boxes, search, search_depth

spec = importlib.util.spec_from_file_location(
    "reference_puzzles", Path(__file__).parents[2] / "reference" / "puzzles.py"
)
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

TASKS = (
    PointerTask(),
    PointerTask(nodes=10, least_hops=3, most_hops=9),
    PointerTask(questions=6),
    PointerTask(nodes=3, most_hops=2, questions=20),
    RecallTask(),
    RecallTask(pairs=26, length=300),
    NeedleTask(value_length=3),
    CopyTask(least=1, most=20),
    ModularTask(),
    ModularTask(operation="/", write_as="symbols", modulus=113),
    AdditionTask(),
    AdditionTask(order="lowest_first", digits=5),
    StoryTask(most_events=12, largest=1_000),
    SudokuTask(size=4),
    SudokuTask(size=6),
    SudokuTask(size=9),
    MazeTask(),
    MazeTask(size=8, loops=12, ask="length"),
)
every_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{task.name} {task.longest}")


def examples(task, count: int = 60, stream: int = 7) -> list[Example]:
    return [task.pose(Chance(stream, index)).write() for index in range(count)]


def parts(example: Example) -> tuple[str, str]:
    """Question and answer of a text with one answer."""
    (answer,) = example.answers
    assert answer.end == len(example.text)
    return example.text[: answer.start].decode("latin-1"), example.text[answer.start :].decode("latin-1")


@every_task
def test_an_example_is_a_function_of_stream_and_index_within_its_length(task):
    found = examples(task, 20)
    assert found == examples(task, 20)
    assert found != examples(task, 20, stream=8)
    assert len({example.text for example in found}) > 10
    for example in found:
        assert 0 < len(example.text) <= task.longest
        edges = [edge for answer in example.answers for edge in (answer.start, answer.end)]
        assert edges == sorted(edges) and edges[0] > 0 and edges[-1] <= len(example.text)
        assert all(answer.start < answer.end and answer.bin for answer in example.answers)


@every_task
def test_problems_are_keyed_by_what_they_ask(task):
    # Whatever is written of one problem, its key says the side; different texts of one key are the same problem.
    keys = {task.pose(Chance(7, index)).key for index in range(40)}
    assert len(keys) > (5 if task.name.startswith("sudoku 4") else 20)
    assert all(key.startswith(task.kind.encode()) for key in keys)


def test_pointers_lead_where_they_are_said_to():
    task, ends = PointerTask(nodes=8, most_hops=6), set()
    for example in examples(task, 200):
        question, answer = parts(example)
        *pairs, asked = question.split(" ")
        target = {pair[0]: pair[1] for pair in pairs}
        here, hops = asked[0], int(asked[1])
        way = [here]
        for _ in range(hops):
            here = target[here]
            way.append(here)
        assert here == answer and len(set(way)) == hops + 1 and len(target) == 8
        assert (example.answers[0].difficulty, example.answers[0].bin) == (hops, f"hops {hops}")
        ends.add((hops, answer))
    assert {hops for hops, _ in ends} == set(range(1, 7)) and {end for _, end in ends} == set("abcdefgh")


def test_several_questions_about_one_list_are_different_and_each_has_its_way():
    short = 0
    for example in examples(PointerTask(questions=8), 100):
        words = example.text.decode().split(" ")
        target, asked = {pair[0]: pair[1] for pair in words[:6]}, words[6:]
        assert len(set(asked)) == len(asked) == len(example.answers) <= 8
        short += len(asked) < 8
        for question, answer in zip(asked, example.answers, strict=True):
            here, hops = question[0], int(question[1])
            way = [here]
            for _ in range(hops):
                way.append(target[way[-1]])
            assert question[2:] == f"={way[-1]}" and len(set(way)) == hops + 1
            assert example.text[answer.start : answer.end].decode() == way[-1]
            assert (answer.difficulty, answer.bin) == (hops, f"hops {hops}")
    assert short < 100, "most lists have eight questions"
    # With one question a text, its key and its description are what they were before there could be more.
    assert "questions" not in PointerTask().model_dump_json() and PointerTask.model_validate_json(
        PointerTask(questions=3).model_dump_json()
    ) == PointerTask(questions=3)


@pytest.mark.parametrize(("pairs", "length"), [(1, 5), (8, 64), (8, 33), (26, 400)])
def test_recall_asks_each_key_once_and_answers_with_its_value(pairs, length):
    for example in examples(RecallTask(pairs=pairs, length=length)):
        text = example.text.decode()
        listed, asked = text[: 2 * pairs], text[2 * pairs + 1 :]
        known = dict(zip(listed[::2], listed[1::2], strict=True))
        assert len(text) == length and text[2 * pairs] == "|" and len(known) == pairs
        assert re.fullmatch(r"\.*([a-z][A-Z]\.*)+", asked)
        assert {text[a.start - 1]: text[a.start : a.end] for a in example.answers} == known
        for answer in example.answers:
            # Keys are small letters and values are capitals, so that a key is found at its own place.
            asked_at = answer.start - 1
            assert answer.difficulty == asked_at - (listed.index(text[asked_at]) + 1)


def test_the_needle_is_found_at_every_distance():
    distances = set()
    for example in examples(NeedleTask(length=12), 300):
        question, answer = parts(example)
        value = re.search(r"!([A-Z]+)", question).group(1)
        assert answer == value and question.endswith("?")
        distance = len(question) - 1 - (question.index("!") + 1)
        assert distance == example.answers[0].difficulty
        distances.add(distance)
    assert distances == set(range(1, 10))


def test_sums_are_right():
    for operation, is_right in {
        "+": lambda a, b, c: (a + b - c) % 97 == 0,
        "-": lambda a, b, c: (a - b - c) % 97 == 0,
        "*": lambda a, b, c: (a * b - c) % 97 == 0,
        "/": lambda a, b, c: (c * b - a) % 97 == 0,
    }.items():
        for example in examples(ModularTask(operation=operation)):
            a, b, c = map(int, re.split(r"[-+*/=]", example.text.decode()))
            assert is_right(a, b, c) and 0 <= c < 97
    symbols, digits = ModularTask(write_as="symbols"), ModularTask()
    for example, plain in zip(examples(symbols), examples(digits), strict=True):
        assert [byte - 128 for byte in example.text[::2]] == [
            int(n) for n in re.split(r"\D", plain.text.decode())
        ]
    for order in ("highest_first", "lowest_first"):
        for example in examples(AdditionTask(order=order)):
            question, answer = parts(example)
            terms = question.rstrip("=").split("+")
            assert sum(map(int, terms)) == int(answer if order == "highest_first" else answer[::-1])
            assert len(answer) == 4 and {len(term) for term in terms} == {3}
            assert example.answers[0].difficulty == len(terms)


def test_copies_are_copies():
    for example in examples(CopyTask(least=1, most=9)):
        question, answer = parts(example)
        assert question == f"{answer}|" and example.answers[0].difficulty == len(answer)


def test_stories_add_up():
    """Read sentence by sentence, as a person would."""
    verbs = {"finds": 1, "buys": 1, "gets": 1, "sells": -1, "loses": -1, "gives": -1}
    for example in examples(StoryTask(most_events=6), 200):
        question, answer = parts(example)
        first, *events = question.removeprefix("Q: ").split(" How many")[0].rstrip(".").split(". ")
        have = int(re.search(r"\d+", first).group())
        for event in events:
            verb, number = event.split()[1], int(re.search(r"\d+", event).group())
            if verb in verbs:
                have += verbs[verb] * number
            elif "times" in event:
                have *= number
            else:
                assert have % number == 0
                have //= number
            assert 0 <= have <= 99
        assert answer == str(have) and example.answers[0].difficulty == len(events)


@pytest.mark.parametrize("size", [4, 6])
def test_a_sudoku_has_one_solution_which_a_plain_search_finds_too(size):
    for example in examples(SudokuTask(size=size, least_blank=0.2, most_blank=0.8), 25):
        question, answer = parts(example)
        assert reference.solve_sudoku(question.rstrip("="), *BOXES[size]) == [answer]


def test_machine_code_finds_a_solution_where_the_plain_search_does():
    """With digits taken away, added wrongly, and barred from a cell: none, one or many solutions."""
    rng, boxes, ends = np.random.default_rng(0), lay_boxes(2, 2), set()
    for example in examples(SudokuTask(size=4, least_blank=0.5, most_blank=0.7), 60):
        puzzle = np.array([0 if sign == "." else int(sign) for sign in parts(example)[0][:-1]], np.int8)
        for cell in rng.choice(16, 2, replace=False):
            puzzle[cell] = rng.integers(1, 5) if puzzle[cell] == 0 and rng.random() < 0.3 else 0
        cell, barred = int(np.flatnonzero(puzzle == 0)[0]), int(rng.integers(1, 5))
        plain = reference.solve_sudoku("".join(map(str, puzzle)).replace("0", "."), 2, 2)
        wanted = [solution for solution in plain if solution[cell] != str(barred)]
        grid, state = puzzle.copy(), np.zeros(1, np.uint64)
        found = search(grid, boxes, 4, cell, 1 << (barred - 1), state)
        assert found == bool(wanted)
        assert "".join(map(str, grid)) in wanted if found else (grid == puzzle).all()
        ends.add((found, len(plain) > 1))
    assert len(ends) == 4


def test_a_sudoku_of_nine_has_one_solution_and_deeper_ones_have_more_blanks():
    mild, hard = SudokuTask(size=9, most_blank=0.45), SudokuTask(size=9, least_blank=0.7, most_blank=0.8)
    depths = []
    for task in (mild, hard):
        found = examples(task, 4)
        for example in found:
            question, answer = parts(example)
            assert reference.solve_sudoku(question[:-1], 3, 3) == [answer]
        depths.append(np.mean([example.answers[0].difficulty for example in found]))
    assert depths[1] > 2 * depths[0]


def test_search_depth_counts_rounds_by_hand():
    full = np.array([int(sign) for sign in "1234341221434321"], np.int8)
    assert search_depth(full, 2, 2) == (0, 0)
    one = full.copy()
    one[[0, 6]] = 0
    assert search_depth(one, 2, 2) == (1, 0)
    # Two solutions: 1 and 2 may change places in two rows, so that nothing follows and one has to be guessed.
    free = np.array([int(sign) for sign in "0034341200434321"], np.int8)
    free[[8, 9, 0, 1]] = 0
    assert search_depth(free, 2, 2) == (2, 1)
    none = full.copy()
    none[[0, 1]] = 0
    none[0] = 2
    assert search_depth(none, 2, 2)[0] == -1


@settings(max_examples=15)
@given(st.integers(3, 9), st.integers(0, 60), st.integers(0, 10_000))
def test_the_only_shortest_way_through_a_maze(size, loops, index):
    loops = min(loops, (size - 1) ** 2)
    question, moves = parts(MazeTask(size=size, loops=loops).pose(Chance(3, index)).write())
    drawing = question.removesuffix("\n=")
    length, ways = reference.count_shortest_ways(drawing)
    assert ways == 1 and length == len(moves) and reference.walk(drawing, moves)
    # Walls between n² cells: 2n(n − 1) places, of which a tree opens n² − 1.
    doors = sum(
        drawing.split("\n")[i][j] != "#"
        for i in range(2 * size - 1)
        for j in range(2 * size - 1)
        if (i + j) % 2
    )
    assert doors == size * size - 1 + loops
    asked = MazeTask(size=size, loops=loops, ask="length").pose(Chance(3, index)).write()
    question, length = parts(asked)
    assert reference.count_shortest_ways(question.removesuffix("\n="))[0] == int(length)
    assert asked.answers[0].bin == doubling("moves", int(length))


def test_bins_double():
    names = [doubling("hops", count) for count in (1, 2, 3, 4, 5, 8, 9, 16, 17)]
    assert names == [
        "hops 1",
        "hops 2",
        *["hops 3-4"] * 2,
        *["hops 5-8"] * 2,
        *["hops 9-16"] * 2,
        "hops 17-32",
    ]


@pytest.mark.parametrize(
    ("task", "settings_", "why"),
    [
        (PointerTask, {"nodes": 4, "most_hops": 4}, "visits no letter twice"),
        (PointerTask, {"least_hops": 3, "most_hops": 2}, "least come first"),
        (RecallTask, {"pairs": 8, "length": 32}, "length of 33 at least"),
        (NeedleTask, {"length": 4, "value_length": 2}, "length of 6 at least"),
        (CopyTask, {"least": 5, "most": 4}, "least come first"),
        (ModularTask, {"modulus": 96, "operation": "/"}, "no prime"),
        (ModularTask, {"modulus": 129, "write_as": "symbols"}, "at most 128"),
        (AdditionTask, {"least_terms": 5, "most_terms": 4}, "least come first"),
        (StoryTask, {"least_events": 5, "most_events": 4}, "least come first"),
        (SudokuTask, {"least_blank": 0.5, "most_blank": 0.4}, "least comes first"),
        (MazeTask, {"size": 3, "loops": 5}, "4 walls to open"),
    ],
)
def test_what_cannot_be_meant_is_refused(task, settings_, why):
    with pytest.raises(ValidationError, match=why):
        task(**settings_)
