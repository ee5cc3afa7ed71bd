"""How often a model's answers are right: exact match, by task and difficulty.

An answer is right when every token of it is the likeliest one after the question and the right tokens before it. Then,
and only then, greedy decoding would write exactly this answer; so one forward pass settles it.

Letters: B rows, T positions, L layers, N puzzles, A answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ourospec.contracts import Clock, Effort
from ourospec.device import DevicePolicy
from ourospec.errors import DataError
from ourospec.measure.cost import CostedModel
from ourospec.measure.likelihood import PROBE_POSITIONS, Likelihood, choose_documents, ratio
from ourospec.measure.tokens import IGNORED, Chunk, Guessed, ScoredDocument, TokenScorer, in_batches, lay_out
from ourospec.nn.cost import FlopTable


class Span(Protocol):
    """A stretch of a text that is an answer; see data/puzzles/example.py."""

    @property
    def start(self) -> int: ...

    @property
    def end(self) -> int: ...

    @property
    def difficulty(self) -> float: ...

    @property
    def bin(self) -> str: ...

    def targets(self, size: int) -> slice: ...


class Puzzle(ScoredDocument, Protocol):
    """A text with answers, its tokens being bytes; see data/puzzles/dataset.py."""

    @property
    def task(self) -> str: ...

    @property
    def answers(self) -> Sequence[Span]: ...


class PuzzleCorpus(Protocol):
    """What an evaluation needs of held-out puzzles."""

    def documents(self) -> Iterable[Puzzle]: ...


class Exactness(NamedTuple):
    """How many answers were right."""

    right: np.ndarray
    """[N] by puzzle."""
    answers: np.ndarray
    """[N] by puzzle."""
    bins: dict[str, tuple[int, int]]
    """Right ones and all, by task and bin, easiest first."""


@dataclass(frozen=True)
class AnswerScores:
    """What became of the answers of some puzzles."""

    likelihood: Likelihood
    """Of the answers alone, by puzzle; its costs are of the positions that foretold them."""
    whole: Likelihood
    """The same losses, but the costs of all that was read: the question, the answers and the end in front."""
    puzzle: np.ndarray
    """[A] int64, the puzzle that each answer is of."""
    task: np.ndarray
    """[A] names."""
    bin: np.ndarray
    """[A] names."""
    difficulty: np.ndarray
    """[A] float64."""
    right: np.ndarray
    """[A] bool."""
    tokens: np.ndarray
    """[A] int64, an end that belongs to the answer included."""
    passes: np.ndarray
    """[A] float64, passes per layer, added up over the tokens."""

    def exactness(self) -> Exactness:
        """Right answers and all, by puzzle and by bin."""
        names = np.array([f"{task} {name}".strip() for task, name in zip(self.task, self.bin, strict=True)])
        each = {name: names == name for name in sorted(set(names.tolist()))}
        easiest_first = sorted(each, key=lambda name: self.difficulty[each[name]].mean())
        return Exactness(
            np.bincount(self.puzzle, weights=self.right),
            np.bincount(self.puzzle),
            {name: (int(self.right[each[name]].sum()), int(each[name].sum())) for name in easiest_first},
        )

    def summary(self) -> dict[str, Any]:
        """Likelihood.summary of the answers, and: exact_match with exact_match_se (over puzzles), answers, and tasks, a
        list of {task, answers, exact_match, exact_match_se, mean_passes, bins}, bins being a list of the same by
        difficulty, easiest first, each with its name as `bin` and its mean `difficulty`."""
        tasks = []
        for task in dict.fromkeys(self.task.tolist()):
            mine = self.task == task
            hardness = {
                name: self.difficulty[mine & (self.bin == name)].mean() for name in set(self.bin[mine])
            }
            bins = [
                {
                    "bin": str(name),
                    "difficulty": float(hardness[name]),
                    **self._figures(mine & (self.bin == name)),
                }
                for name in sorted(hardness, key=hardness.__getitem__)
            ]
            tasks.append({"task": str(task), **self._figures(mine), "bins": bins})
        return {**self._figures(np.ones(len(self.right), bool)), **self.likelihood.summary(), "tasks": tasks}

    def _figures(self, chosen: np.ndarray) -> dict[str, Any]:
        units, inverse = np.unique(self.puzzle[chosen], return_inverse=True)
        right = np.bincount(inverse, weights=self.right[chosen], minlength=len(units))
        exact = ratio(right, np.bincount(inverse, minlength=len(units)))
        return {
            "answers": int(chosen.sum()),
            "exact_match": exact.value,
            "exact_match_se": exact.error,
            "mean_passes": float(self.passes[chosen].sum() / self.tokens[chosen].sum()),
        }


def score_answers(
    model: CostedModel,
    puzzles: Iterable[Puzzle],
    end_id: int,
    policy: DevicePolicy,
    batch_rows: int = 8,
    effort: Effort | None = None,
) -> AnswerScores:
    """Score every answer of each puzzle, read as END p END from an empty context.

    Args:
        batch_rows: puzzles per forward pass; changes speed and memory only.
        effort: how long the model may think; None leaves it as trained.

    Raises:
        DataError: there are no puzzles, or one is longer than the model reads at once.
    """
    every = list(puzzles)
    if not every:
        raise DataError("There are no puzzles to score.", "Hold some out: --data.source.heldout-examples 500")
    longest = 1 + max(len(puzzle.tokens) for puzzle in every)
    if longest > model.max_length:
        raise DataError(
            f"A puzzle of {longest} positions is longer than the {model.max_length} that the model reads at once.",
            "Ask smaller puzzles, or train a model with a larger --model.max-length.",
        )
    scorer, flops, tally = TokenScorer(model, policy), FlopTable(model.cost), _Tally(every)
    for chunks in in_batches(cut_puzzles(every, end_id), batch_rows):
        found = scorer.guess(lay_out(chunks, end_id), effort)
        tally.add(chunks, found, flops.of(found.scored.passes))
    return tally.result()


def answer_probe(
    heldout: PuzzleCorpus,
    end_id: int,
    window: int,
    most_tokens: int,
    policy: DevicePolicy,
    effort: Callable[[Clock], Effort | None] = lambda _: None,
) -> Callable[[Any, Clock], Mapping[str, Any]]:
    """The `run` of an "eval" contracts.Probe: `AnswerScores.summary` of always the same held-out puzzles.

    Args:
        window: positions of a training row, none of whose puzzles is longer.
        most_tokens: puzzles are taken from the front up to so many tokens.
        effort: how long the model may think at a point of the run.
    """
    puzzles: list[Any] = choose_documents(heldout.documents(), most_tokens)
    rows = max(1, PROBE_POSITIONS // window)

    def run(model: Any, clock: Clock) -> Mapping[str, Any]:
        return {
            "split": "heldout",
            **score_answers(model, puzzles, end_id, policy, rows, effort(clock)).summary(),
        }

    return run


def cut_puzzles(puzzles: Iterable[Puzzle], end_id: int) -> Iterator[Chunk]:
    """Each puzzle whole, its answers the only targets."""
    for number, puzzle in enumerate(puzzles):
        stream = np.concatenate(([end_id], puzzle.tokens, [end_id])).astype(np.int64)
        targets = np.full(len(stream) - 1, IGNORED)
        for answer in puzzle.answers:
            span = answer.targets(len(puzzle.tokens))
            targets[span] = stream[1:][span]
        yield Chunk(number, stream[:-1], targets)


class _Spent:
    """Costs of some positions, by puzzle."""

    def __init__(self, count: int) -> None:
        self.flops, self.positions = np.zeros(count), np.zeros(count, np.int64)
        self.passes: list[np.ndarray | None] = [None] * count

    def add(self, number: int, passes: np.ndarray, flops: np.ndarray) -> None:
        """Take down a puzzle: passes [L, n] and FLOPs [n] of its positions."""
        self.positions[number], self.flops[number] = len(flops), flops.sum()
        self.passes[number] = passes.sum(1)

    def stacked(self) -> np.ndarray:
        """[N, L] passes."""
        return np.stack([one for one in self.passes if one is not None])


class _Tally:
    """Takes down what was found, by puzzle and by answer."""

    def __init__(self, puzzles: Sequence[Puzzle]) -> None:
        self.puzzles = puzzles
        self.nats = np.zeros(len(puzzles))
        self.asked, self.whole = _Spent(len(puzzles)), _Spent(len(puzzles))
        self.found: list[list[tuple[bool, int, float]]] = [[] for _ in puzzles]

    def add(self, chunks: Sequence[Chunk], found: Guessed, flops: Tensor) -> None:
        nats, right, passes = found.scored.nats.numpy(), found.right.numpy(), found.scored.passes.numpy()
        spent = flops.numpy()
        for row, chunk in enumerate(chunks):
            number, puzzle = chunk.document, self.puzzles[chunk.document]
            asked, size = np.flatnonzero(chunk.targets != IGNORED), len(chunk.inputs)
            self.nats[number] = nats[row, asked].sum()
            self.asked.add(number, passes[:, row, asked], spent[row, asked])
            # What pads the row behind the puzzle is no part of it.
            self.whole.add(number, passes[:, row, :size], spent[row, :size])
            for answer in puzzle.answers:
                span = answer.targets(len(puzzle.tokens))
                taken = passes[:, row, span]
                self.found[number].append(
                    (bool(right[row, span].all()), taken.shape[1], float(taken.mean(0).sum()))
                )

    def result(self) -> AnswerScores:
        """In the order of the puzzles."""
        flat = [
            (number, puzzle.task, answer.bin, answer.difficulty, *found)
            for number, puzzle in enumerate(self.puzzles)
            for answer, found in zip(puzzle.answers, self.found[number], strict=True)
        ]
        number, task, bins, difficulty, right, tokens, passes = zip(*flat, strict=True)
        puzzle = np.array(number)
        by_puzzle = np.bincount(puzzle, weights=tokens, minlength=len(self.puzzles)).astype(np.int64)
        # Bytes of an answer are its tokens, but for an end.
        size = [sum(answer.end - answer.start for answer in one.answers) for one in self.puzzles]
        asked, whole = (
            Likelihood(self.nats, by_puzzle, of.positions, np.array(size), of.stacked(), of.flops)
            for of in (self.asked, self.whole)
        )
        return AnswerScores(
            asked,
            whole,
            puzzle,
            np.array(task),
            np.array(bins),
            np.array(difficulty, np.float64),
            np.array(right),
            np.array(tokens),
            np.array(passes),
        )
