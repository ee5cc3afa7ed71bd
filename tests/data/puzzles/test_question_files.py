"""Files of questions: each layout is read as its data set has it, and a malformed line is named."""

import json

import pytest

from ourospec.data.puzzles.config import PuzzleSource
from ourospec.data.puzzles.dataset import open_puzzles
from ourospec.data.puzzles.question_files import QuestionsTask
from ourospec.errors import DataError

ROWS = {
    "plain": ({"question": "Why?", "answer": "Because."}, "Q: Why?\nA: Because.", "all"),
    "gsm8k": (
        {"question": "How many?", "answer": "There are 2+3=<<2+3=5>>5 boxes.\nThat is all.\n#### 5"},
        "Q: How many?\nA: 5",
        "steps 2",
    ),
    "gsm8k_steps": (
        {"question": "How many?", "answer": "There are 2+3=<<2+3=5>>5 boxes.\n#### 5"},
        "Q: How many?\nA: There are 2+3=5 boxes.\n#### 5",
        "steps 1",
    ),
    "svamp": (
        {
            "ID": "chal-1",
            "Body": "Ann had 9.",
            "Question": "How many left?",
            "Equation": "( 9.0 - 2.0 )",
            "Answer": 7.0,
        },
        "Q: Ann had 9. How many left?\nA: 7",
        "operations 1",
    ),
    "mbpp": (
        {
            "text": "Write f.",
            "code": "def f():\r\n    return 1\r\n",
            "test_list": ["assert f() == 1"],
            "task_id": 1,
        },
        "Q: Write f.\nassert f() == 1\nA: def f():\n    return 1",
        "lines 2",
    ),
    "arc": (
        {
            "question": {
                "stem": "Which?",
                "choices": [{"text": "ice", "label": "A"}, {"text": "fire", "label": "B"}],
            },
            "answerKey": "B",
        },
        "Q: Which?\n(A) ice\n(B) fire\nA: B",
        "all",
    ),
    "hellaswag": (
        {"ctx": "A man sits.", "endings": ["He stands.", "It rains."], "label": 1},
        "Q: A man sits.\n(A) He stands.\n(B) It rains.\nA: B",
        "all",
    ),
    "piqa": (
        {"goal": "Open it", "sol1": "Push.", "sol2": "Pull.", "label": 0},
        "Q: Open it\n(A) Push.\n(B) Pull.\nA: A",
        "all",
    ),
}
every_layout = pytest.mark.parametrize("layout", ROWS)
NEEDED = {
    "question", "answer", "Answer", "Body", "code", "test_list", "answerKey", "endings", "goal", "sol2"
}  # fmt: skip
TEXT_FIELD = {
    "gsm8k": "question",
    "gsm8k_steps": "question",
    "mbpp": "text",
    "hellaswag": "ctx",
    "piqa": "goal",
}


@pytest.fixture
def write(tmp_path):
    """Writes objects, or raw lines, and opens them as a task."""

    def make(rows, layout="plain", fraction=0.5, **changes):
        path = tmp_path / "test.jsonl"
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return QuestionsTask(path=str(path), layout=layout, **changes).open(fraction, "refuse")

    return make


def sides(problems):
    count = len(problems.trained)
    return [problems.training(1, index) for index in range(count)], problems.heldout(1_000)


def again(row, layout):
    """Another question of the same layout."""
    if layout == "arc":
        return {**row, "question": {**row["question"], "stem": "Whose?"}}
    field = TEXT_FIELD.get(layout, "Question" if layout == "svamp" else "question")
    return {**row, field: "Whose?"}


@every_layout
def test_a_layout_is_read_as_its_data_set_has_it(write, layout):
    row, text, bin_name = ROWS[layout]
    trained, held = sides(write([row, again(row, layout)], layout))
    assert len(trained) == len(held) == 1
    (example,) = [example for example in trained + held if b"Whose?" not in example.text]
    (answer,) = example.answers
    assert example.text.decode() == text and answer.bin == bin_name
    assert example.text[: answer.start].endswith(b"\nA: ") and answer.end == len(example.text)


@every_layout
def test_a_line_without_its_fields_is_named(write, layout):
    row = ROWS[layout][0]
    for key in set(row) & NEEDED:
        broken = {name: value for name, value in row.items() if name != key}
        with pytest.raises(DataError, match=rf"Line 3 of .*test\.jsonl: the .*{key}"):
            write([row, again(row, layout), broken], layout)


MALFORMED = {
    "{not json": ("plain", "Line 2 of .* is not a JSON object"),
    "[1, 2]": ("plain", "Line 2 of .* is not a JSON object"),
    '{"question": 5, "answer": "x"}': ("plain", "Line 2 of .*: the field 'question' holds int, not text"),
    '{"question": "\\ud800", "answer": "x"}': ("plain", "Line 2 of .* half a surrogate pair"),
    '{"question": "x", "answer": "no mark"}': ("gsm8k", "Line 2 of .*: the answer does not end with ####"),
    '{"Body": "x", "Question": "y", "Equation": "", "Answer": "many"}': (
        "svamp",
        "Line 2 .*should be a number",
    ),
    '{"ctx": "x", "endings": ["a", "b"], "label": ""}': ("hellaswag", "Line 2 .*should be a whole number"),
    '{"ctx": "x", "endings": ["a", "b"], "label": 2}': (
        "hellaswag",
        "Line 2 .*is '2', which is none of A, B",
    ),
    '{"question": "x", "choices": {"text": ["a"], "label": ["A", "B"]}}': (
        "arc",
        "Line 2 .*1 choices have 2 labels",
    ),
    '{"goal": "x", "sol1": "a", "sol2": "b"}': (
        "piqa",
        "Line 2 of .*is missing, and there is no .*-labels.lst",
    ),
}


@pytest.mark.parametrize("line", MALFORMED)
def test_a_malformed_line_is_named_with_its_file(write, line):
    layout, why = MALFORMED[line]
    with pytest.raises(DataError, match=why):
        write([ROWS[layout][0], line], layout)


def test_labels_of_piqa_may_lie_beside_the_file(write, tmp_path):
    (tmp_path / "test-labels.lst").write_text("1\n0\n")
    rows = [{"goal": goal, "sol1": "a", "sol2": "b"} for goal in ("x", "y")]
    answers = {
        example.text[3:4]: example.text[-1:] for side in sides(write(rows, "piqa")) for example in side
    }
    assert answers == {b"x": b"B", b"y": b"A"}
    with pytest.raises(DataError, match=r"Line 3 .*has 2 labels"):
        write([*rows, {"goal": "z", "sol1": "a", "sol2": "b"}], "piqa")


def test_each_question_comes_once_an_epoch_and_equal_ones_stay_together(write):
    rows = [{"question": f"q{n // 2}", "answer": f"{n}"} for n in range(40)]
    problems = write(rows, fraction=0.25)
    count = len(problems.trained)
    epochs = [[problems.training(1, epoch * count + i).text for i in range(count)] for epoch in (0, 1)]
    assert (
        sorted(epochs[0]) == sorted(epochs[1]) == sorted(e.text for e in problems.trained)
        and epochs[0] != epochs[1]
    )
    questions = [{e.text.split(b"\n")[0] for e in side} for side in (problems.trained, problems.held)]
    assert not questions[0] & questions[1] and len(questions[1]) == 5 and count == 30


def test_long_texts_are_left_out_and_counted(write):
    rows = [{"question": "q" * size, "answer": "a"} for size in (*range(1, 20), 600)]
    problems = write(rows)
    assert problems.summary["left_out"] == 1 and problems.longest <= 512
    with pytest.raises(DataError, match="more than 16 bytes"):
        write([{"question": f"a long question {n}", "answer": "a"} for n in range(3)], most_bytes=16)


def test_what_is_missing_is_said(write, tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        QuestionsTask(path=str(tmp_path / "none.jsonl")).open(0.5, "refuse")
    with pytest.raises(DataError, match="1 different question"):
        write([{"question": "same", "answer": "a"}] * 3)


def test_the_content_stands_in_the_fingerprint(write, tmp_path):
    prints = set()
    for last in ("a", "b"):
        write([{"question": "x", "answer": "1"}, {"question": "y", "answer": last}])
        source = PuzzleSource(task=QuestionsTask(path=str(tmp_path / "test.jsonl")))
        prints.add(open_puzzles(source, 0.5, "refuse").fingerprint)
    assert len(prints) == 2
