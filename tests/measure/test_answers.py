"""Exact match: right means what greedy decoding would write, by task and bin, with errors over puzzles."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ourospec.contracts import Clock
from ourospec.data.puzzles.config import MixtureSource, Part
from ourospec.data.puzzles.dataset import PuzzleDocument, open_puzzles
from ourospec.data.puzzles.example import Answer
from ourospec.data.puzzles.lookup import CopyTask, PointerTask, RecallTask
from ourospec.data.tokenizers import ByteTokenizer
from ourospec.device import choose_device
from ourospec.errors import DataError
from ourospec.families import PRESETS
from ourospec.families.dense_lm.recipe import DenseRecipe
from ourospec.measure.answers import answer_probe, score_answers
from ourospec.serve.generation import generate
from ourospec.serve.sampling import Sampling

spec = importlib.util.spec_from_file_location(
    "reference_puzzles", Path(__file__).parents[1] / "reference" / "puzzles.py"
)
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

END = 256
CPU = choose_device("cpu", "float32")


def puzzle(text: str, *spans: tuple[int, int], task: str = "one", bins: str = "") -> PuzzleDocument:
    tokens = np.frombuffer(text.encode(), np.uint8).astype(np.int64)
    answers = tuple(Answer(*span, number, bins or f"bin {number}") for number, span in enumerate(spans))
    return PuzzleDocument(tokens, len(text), task, answers)


@pytest.fixture(scope="module")
def model():
    """Untrained, and sure enough of itself that some answers are right by what its bytes happen to be."""
    recipe = PRESETS["dense_lm/smoke"]()
    assert isinstance(recipe, DenseRecipe)
    torch.manual_seed(0)
    made = recipe.build_model(ByteTokenizer()).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made


def greedy(model, text: str, length: int) -> str:
    """What the model writes behind a text."""
    made = generate(
        model, ByteTokenizer(), text, policy=CPU, max_new_tokens=length, sampling=Sampling(temperature=0)
    )
    return made.text


def next_byte(model, text: str) -> int:
    with torch.no_grad():
        states = model(torch.tensor([[END, *text.encode()]])).states
        return int(model.logits(states)[0, -1].argmax())


def test_right_is_what_greedy_decoding_writes(model):
    """Answers made of what the model itself says next are right, and wrong as soon as one byte differs."""
    for question in ("ab|", "q=", "xyz=12"):
        text, size = question, len(question)
        while len(text) < size + 3 and next_byte(model, text) < 128:
            text += chr(next_byte(model, text))
        if len(text) == size:
            continue
        assert greedy(model, question, len(text) - size) == text[size:]
        # A further byte follows, so that the end is no part of the answer.
        good = puzzle(text + "#", (size, len(text)))
        bad = puzzle(text[:-1] + chr(ord(text[-1]) ^ 1) + "#", (size, len(text)))
        found = score_answers(model, [good, bad], END, CPU)
        assert found.right.tolist() == [True, False]
        return
    raise AssertionError("the model says no byte behind any of the questions")


def test_an_answer_at_the_end_needs_the_end(model):
    text = "ab|x"
    inside, ending = puzzle(text + "#", (3, 4)), puzzle(text, (3, 4))
    found = score_answers(model, [inside, ending], END, CPU)
    assert found.tokens.tolist() == [1, 2] and found.likelihood.tokens.tolist() == [1, 2]
    assert found.likelihood.bytes.tolist() == [1, 1]


def test_it_equals_the_plain_reading_of_every_puzzle_alone(model):
    tasks = (PointerTask(), RecallTask(pairs=4, length=30), CopyTask(least=1, most=3))
    source = MixtureSource(parts=tuple(Part(task=task) for task in tasks), heldout_examples=6)
    puzzles = list(open_puzzles(source, 0.2, "refuse").heldout.documents())
    found = score_answers(model, puzzles, END, CPU, batch_rows=5)
    at = 0
    for number, one in enumerate(puzzles):
        stream = torch.tensor([END, *one.tokens.tolist(), END])
        with torch.no_grad():
            logits = model.logits(model(stream[None, :-1]).states)[0].double()
        nats = 0.0
        for answer in one.answers:
            targets = torch.full((len(stream) - 1,), -100)
            span = slice(answer.start, answer.end + (answer.end == len(one.tokens)))
            targets[span] = stream[1:][span]
            assert found.right[at] == reference.exact_match(logits, targets)
            nats -= sum(logits.log_softmax(-1)[t, stream[t + 1]].item() for t in range(span.start, span.stop))
            assert (found.puzzle[at], found.task[at], found.bin[at]) == (number, one.task, answer.bin)
            at += 1
        assert math.isclose(found.likelihood.nats[number], nats, rel_tol=1e-4)
    assert at == len(found.right)
    batched = score_answers(model, puzzles, END, CPU, batch_rows=1)
    assert (batched.right == found.right).all() and np.allclose(
        batched.likelihood.nats, found.likelihood.nats, rtol=1e-4
    )


def test_the_table_counts_by_task_and_bin_easiest_first(model):
    puzzles = [
        puzzle("a=b", (2, 3), task="two", bins="hard"),
        puzzle("a=bc", (2, 3), (3, 4), task="one"),
        puzzle("a=cc", (2, 3), (3, 4), task="one"),
    ]
    found = score_answers(model, puzzles, END, CPU)
    found.right[:] = [True, True, False, True, True]
    table = found.summary()
    assert (table["answers"], table["exact_match"], table["documents"]) == (5, 0.8, 3)
    two, one = table["tasks"]
    assert (two["task"], two["answers"], two["exact_match"]) == ("two", 1, 1.0) and math.isnan(
        two["exact_match_se"]
    )
    assert (one["task"], one["answers"], one["exact_match"]) == ("one", 4, 0.75)
    assert [(b["bin"], b["difficulty"], b["answers"], b["exact_match"]) for b in one["bins"]] == [
        ("bin 0", 0.0, 2, 1.0),
        ("bin 1", 1.0, 2, 0.5),
    ]
    # Of 2 puzzles, one with 1 of 2 answers right and one with 2 of 2: ratio estimator by hand.
    assert one["exact_match_se"] == pytest.approx(math.sqrt(2 * (0.5**2 + 0.5**2)) / 4)
    assert one["mean_passes"] == 1.0


def test_the_probe_reads_no_more_than_it_may(model):
    source = MixtureSource(parts=(Part(task=PointerTask()), Part(task=CopyTask())), heldout_examples=20)
    heldout = open_puzzles(source, 0.2, "refuse").heldout
    probed = answer_probe(heldout, END, 64, 200, CPU)(model, Clock(0, 1))
    assert probed["split"] == "heldout" and 4 < probed["documents"] < 20
    assert [task["task"] for task in probed["tasks"]] == ["pointer", "copy"]


def test_what_cannot_be_scored_is_refused(model):
    with pytest.raises(DataError, match="no puzzles"):
        score_answers(model, [], END, CPU)
    with pytest.raises(DataError, match="101 positions is longer than the 64"):
        score_answers(model, [puzzle("x" * 100, (99, 100))], END, CPU)
