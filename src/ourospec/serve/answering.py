"""What a model answers to a puzzle after each number of passes, and when it decides by itself.

Letters: L layers, K passes at most, n tokens of an answer.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from ourospec.contracts import Effort, LanguageModel
from ourospec.data.puzzles.dataset import PuzzleDataset, PuzzleDocument
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.nn.effort import most_passes
from ourospec.serve.generation import Vocabulary
from ourospec.serve.sampling import GREEDY
from ourospec.serve.session import DecodingSession
from ourospec.serve.source import Draw


class Attempt(NamedTuple):
    """An answer of the model."""

    forced: int | None
    """Passes that every token was forced to; None where the model decided."""
    tokens: tuple[int, ...]
    """As many as the right answer has, fewer where it ended the text; the end token included."""
    passes: tuple[float, ...]
    """[n], mean over layers, run at the position that chose each token."""
    right: bool


class Solution(NamedTuple):
    """An answer of a puzzle, and what the model says in its place."""

    question: tuple[int, ...]
    """What stands between the answer before, or the beginning, and this one."""
    wanted: tuple[int, ...]
    """The right answer; the end token included where the text ends with it."""
    bin: str
    """Its difficulty."""
    attempts: tuple[Attempt, ...]
    """With 1 to K passes forced where K is more than 1, and last as the model decides."""


class Solved(NamedTuple):
    """A puzzle with everything that was answered."""

    task: str
    solutions: tuple[Solution, ...]


def pick_puzzle(data: object, number: int) -> PuzzleDocument:
    """Held-out puzzle of that number, from 1.

    Args:
        data: what a run learns from.

    Raises:
        ConfigError: these are no puzzles, or there is none of that number.
    """
    if not isinstance(data, PuzzleDataset):
        raise ConfigError(
            "This run learns from plain text, which asks nothing.",
            "Name a run on puzzles (docs/puzzles.md), or continue a text: ouro generate RUN --prompt TEXT",
        )
    count = data.heldout.num_documents
    if not 1 <= number <= count:
        raise ConfigError(
            f"There is no held-out puzzle number {number}: there are {count:,}.",
            f"Name a number from 1 to {count}.",
        )
    return data.heldout.document(number - 1)


def solve(
    model: LanguageModel,
    tokenizer: Vocabulary,
    puzzle: PuzzleDocument,
    policy: DevicePolicy,
    effort: Effort | None = None,
) -> Solved:
    """Have a puzzle answered, always with the likeliest token. Each answer is asked given the right text before it.

    The model itself decodes, in its own precision, as it does when exact match is measured.

    Args:
        effort: how the model decides; None leaves it as trained.
    """
    text, most = puzzle.tokens.tolist(), most_passes(model, policy)
    efforts = [(k, Effort(forced_passes=k)) for k in range(1, most + 1)] if most > 1 else []
    solutions, behind = [], 0
    for answer in sorted(puzzle.answers, key=lambda one: one.start):
        start = [tokenizer.end_id, *text[: answer.start]]
        wanted = [*text, tokenizer.end_id][answer.targets(len(text))]
        attempts = []
        for forced, one in [*efforts, (None, effort)]:
            tokens, passes = answer_greedily(model, tokenizer, start, len(wanted), policy, one)
            attempts.append(Attempt(forced, tokens, passes, list(tokens) == wanted))
        question = tuple(text[behind : answer.start])
        solutions.append(Solution(question, tuple(wanted), answer.bin, tuple(attempts)))
        behind = answer.end
    return Solved(puzzle.task, tuple(solutions))


def answer_greedily(
    model: LanguageModel,
    tokenizer: Vocabulary,
    start: list[int],
    most: int,
    policy: DevicePolicy,
    effort: Effort | None,
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The likeliest tokens behind `start`, up to `most` or to the end of the text, and the mean passes of each."""
    session = DecodingSession(model, policy, len(start) + most - 1, effort)
    draw = Draw(GREEDY, torch.Generator(), tokenizer.vocab_size, most)
    tokens: list[int] = []
    passes: list[float] = []
    reading = session.feed(start)
    while True:
        chosen = draw.choose(reading)
        tokens.append(chosen.token)
        passes.append(sum(chosen.passes) / len(chosen.passes))
        if chosen.token == tokenizer.end_id or len(tokens) == most:
            return tuple(tokens), tuple(passes)
        reading = session.feed([chosen.token])
