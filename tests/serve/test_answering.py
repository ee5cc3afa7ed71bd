"""Puzzles answered pass by pass: what generation with so many forced passes writes, and right only if all of it is."""

import numpy as np
import pytest
import torch

from ourospec.contracts import Effort
from ourospec.data.puzzles.config import PuzzleSource
from ourospec.data.puzzles.dataset import PuzzleDocument, open_puzzles
from ourospec.data.puzzles.example import Answer
from ourospec.data.puzzles.lookup import PointerTask
from ourospec.data.tokenizers import ByteTokenizer
from ourospec.device import choose_device
from ourospec.errors import ConfigError
from ourospec.families import PRESETS
from ourospec.measure.answers import score_answers
from ourospec.serve.answering import pick_puzzle, solve
from ourospec.serve.generation import generate
from ourospec.serve.sampling import GREEDY

CPU = choose_device("cpu", "float32")
TOKENIZER = ByteTokenizer()
END = TOKENIZER.end_id
PASSES = {"recursive_lm/smoke": 3, "adaptive_lm/smoke": 3, "dense_lm/smoke": 1}


def build(name):
    """Untrained, and sure enough of itself that its passes disagree."""
    torch.manual_seed(3)
    made = PRESETS[name]().build_model(TOKENIZER).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made


def puzzle(text: bytes, *spans: tuple[int, int]) -> PuzzleDocument:
    tokens = np.frombuffer(text, np.uint8).astype(np.int64)
    answers = tuple(Answer(*span, 1.0, f"bin {number}") for number, span in enumerate(spans))
    return PuzzleDocument(tokens, len(text), "one", answers)


@pytest.mark.parametrize("name", PASSES)
def test_each_attempt_is_what_forced_generation_writes(name):
    model = build(name)
    text = b"ab=cd;ef=ghi"
    solved = solve(model, TOKENIZER, puzzle(text, (3, 5), (9, 12)), CPU)
    forced = [*range(1, PASSES[name] + 1), None] if PASSES[name] > 1 else [None]
    for solution, (start, size) in zip(solved.solutions, ((3, 2), (9, 4)), strict=True):
        assert [attempt.forced for attempt in solution.attempts] == forced
        for attempt in solution.attempts:
            effort = None if attempt.forced is None else Effort(forced_passes=attempt.forced)
            made = generate(
                model,
                TOKENIZER,
                text[:start].decode(),
                policy=CPU,
                max_new_tokens=size,
                sampling=GREEDY,
                effort=effort,
            )
            ended = [END] if made.finish == "end" else []
            assert list(attempt.tokens) == [*made.tokens, *ended]
            assert attempt.passes[: len(made.passes)] == pytest.approx([np.mean(p) for p in made.passes])
    assert [bytes(one.question) for one in solved.solutions] == [b"ab=", b";ef="]
    assert [one.wanted for one in solved.solutions] == [tuple(b"cd"), (*b"ghi", END)]
    if PASSES[name] > 1:
        said = {attempt.tokens for one in solved.solutions for attempt in one.attempts}
        assert len(said) > 2, "the passes have to disagree"


def test_right_is_all_of_the_answer_and_agrees_with_exact_match():
    model = build("recursive_lm/smoke")
    first = solve(model, TOKENIZER, puzzle(b"ab=cde;", (3, 6)), CPU).solutions[0].attempts[1]
    assert first.forced == 2 and END not in first.tokens
    good = puzzle(b"ab=" + bytes(first.tokens) + b";", (3, 6))
    bad = puzzle(b"ab=" + bytes([*first.tokens[:2], first.tokens[2] ^ 1]) + b";", (3, 6))
    for one, right in ((good, True), (bad, False)):
        attempts = solve(model, TOKENIZER, one, CPU).solutions[0].attempts
        assert attempts[1].right == right
        for attempt in attempts:
            effort = None if attempt.forced is None else Effort(forced_passes=attempt.forced)
            assert attempt.right == bool(score_answers(model, [one], END, CPU, 1, effort).right[0])


def test_bytes_that_are_no_text_are_asked_as_they_are():
    model = build("recursive_lm/smoke")
    plain, other = (solve(model, TOKENIZER, puzzle(text, (2, 3)), CPU) for text in (b"\x81=a", b"\x82=a"))
    assert plain.solutions[0].question == (0x81, ord("="))
    assert other.solutions[0].question != plain.solutions[0].question


def test_puzzles_are_picked_by_number_from_1():
    data = open_puzzles(PuzzleSource(task=PointerTask(), heldout_examples=5), 0.2, "refuse")
    assert pick_puzzle(data, 1) is data.heldout.document(0) and pick_puzzle(data, 5) is data.heldout.document(
        4
    )
    for number in (0, 6, -1):
        with pytest.raises(ConfigError, match="there are 5") as refused:
            pick_puzzle(data, number)
        assert "1 to 5" in refused.value.remedy
    with pytest.raises(ConfigError, match="plain text"):
        pick_puzzle(None, 1)
