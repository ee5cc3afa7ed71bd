"""What thinking buys: a sample read with 1, 2, ... K passes, as the model decides itself, and without its parts.

A model tells of itself by what it has: passes that can be forced (contracts.Effort), a trace with `halts` (after each
step the logit [B, T] of being done) or with `mixed` (a memory's gate: `share` [B, T, D] and `entropy` [B, T]), and
`ablations`, names of what `without(name)` takes from it for a while. What a model lacks is not reported.

Letters: B rows, T positions, D width, K passes at most, n targets, A answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ourospec.contracts import Effort, LanguageModel, Output
from ourospec.device import DevicePolicy
from ourospec.measure.answers import Puzzle, cut_puzzles
from ourospec.measure.halting import follow_difficulty, judge_halting
from ourospec.measure.oracle import by_document, with_error
from ourospec.measure.tokens import (
    IGNORED,
    Chunk,
    Grid,
    TokenScorer,
    cut,
    in_batches,
    lay_out,
)
from ourospec.nn.effort import most_passes

SAMPLE_TOKENS = 10_000
"""Tokens of the sample, about; it is read K + 1 times and once for each ablation."""


class Questions(NamedTuple):
    """The answers of the puzzles of a sample."""

    of_target: np.ndarray
    """[n], the number of the answer that each target is of."""
    documents: np.ndarray
    """[A], the puzzle of each answer."""
    tasks: np.ndarray
    """[A] names."""
    difficulty: np.ndarray
    """[A]."""


class Reading(NamedTuple):
    """What became of every target."""

    nats: np.ndarray
    """[n], −ln p."""
    right: np.ndarray
    """[n], whether it was the likeliest token."""
    passes: np.ndarray
    """[n], mean over layers."""
    seen: np.ndarray
    """[..., n], what else was looked at."""


@dataclass(frozen=True)
class ThinkingBench:
    """A sample laid out for a model, read again and again."""

    model: LanguageModel
    policy: DevicePolicy
    grids: list[Grid]
    documents: np.ndarray
    """[n], the number of the document of each target."""
    questions: Questions | None
    """None for plain text."""
    effort: Effort | None
    """How the model decides: as it is used."""
    tell: Callable[[str], None]

    def read(self, effort: Effort | None, look: Callable[[Output], Tensor] | None = None) -> Reading:
        """Every target once; `look` picks [..., B, T] from the model's output."""
        scorer = TokenScorer(self.model, self.policy)
        nats, right, passes, seen = [], [], [], []
        for grid in self.grids:
            found, picked = scorer.inspect(grid, effort, look or _nothing)
            mask = grid.scored
            nats.append(found.scored.nats[mask].numpy())
            right.append(found.right[mask].numpy())
            passes.append(found.scored.passes.double().mean(0)[mask].numpy())
            seen.append(picked.float().cpu()[..., mask].numpy())
        return Reading(*(np.concatenate(part, axis=-1) for part in (nats, right, passes, seen)))

    def figures(self, reading: Reading) -> dict[str, float]:
        """Of a reading, with standard errors over documents: loss, for puzzles exact_match, mean_passes."""
        found = with_error("loss", by_document(reading.nats, self.documents))
        if self.questions is not None:
            exact = by_document(self._exact(reading), self.questions.documents)
            found |= with_error("exact_match", exact)
        return found | with_error("mean_passes", by_document(reading.passes, self.documents))

    def difference(self, reading: Reading, whole: Reading) -> dict[str, float]:
        """By how much the figures of a reading lie above those of another, document by document."""
        apart = by_document(reading.nats - whole.nats, self.documents)
        found = with_error("loss_difference", apart)
        if self.questions is not None:
            change = self._exact(reading) - self._exact(whole)
            found |= with_error("exact_match_difference", by_document(change, self.questions.documents))
        return found

    def depth(self, reading: Reading) -> np.ndarray:
        """[A], mean passes of the tokens of each answer."""
        assert self.questions is not None
        number = self.questions.of_target
        return np.bincount(number, weights=reading.passes) / np.bincount(number)

    def _exact(self, reading: Reading) -> np.ndarray:
        """[A], 1 where every token of an answer is right."""
        assert self.questions is not None
        wrong = np.bincount(self.questions.of_target, weights=~reading.right)
        return (wrong == 0).astype(np.float64)


def lay_out_thinking(
    model: LanguageModel,
    documents: Iterable[Any],
    end_id: int,
    window: int,
    policy: DevicePolicy,
    rows: int,
    effort: Effort | None,
    *,
    asks: bool,
    tell: Callable[[str], None] | None = None,
) -> ThinkingBench:
    """Documents as grids of at most `rows` chunks, see measure.likelihood; of puzzles the answers are the targets.

    Args:
        asks: whether the documents are puzzles.
    """
    every = list(documents)
    if asks:
        chunks: Iterable[Chunk] = cut_puzzles(every, end_id)
    else:
        chunks = cut(every, end_id, min(window, model.max_length))
    batches = list(in_batches(chunks, rows))
    laid = [chunk for batch in batches for chunk in batch]
    owners = [np.full(int((chunk.targets != IGNORED).sum()), chunk.document) for chunk in laid]
    questions = _questions(every, laid) if asks else None
    grids = [lay_out(batch, end_id) for batch in batches]
    return ThinkingBench(
        model, policy, grids, np.concatenate(owners), questions, effort, tell or (lambda _: None)
    )


def thinking_quality(bench: ThinkingBench) -> dict[str, Any]:
    """What passes, halting, memory and its gate are worth on the sample.

    Returns:
        Nothing where there is nothing to tell, or else `documents`, `tokens`, and `as_used`, the figures of the model
        as it decides itself; `each_pass`, a list of the figures with `passes` 1 to K forced; `halting`, see
        halting.judge_halting; `difficulty`, see halting.follow_difficulty; `memory_gate`: `mean` of g,
        `open_share` of coordinates with g > 1/2, `entropy` in nats; `ablations`, a list of the figures by `name` with
        `loss_difference` and `exact_match_difference` to the whole model. Each but counts has its standard
        error over documents under `<name>_se`.
    """
    most = most_passes(bench.model, bench.policy)
    names: tuple[str, ...] = tuple(getattr(bench.model, "ablations", ()))
    if most < 2 and not names:
        return {}
    bench.tell("reading the sample as the model decides itself")
    used = bench.read(bench.effort, _gate)
    found: dict[str, Any] = {
        "documents": len(np.unique(bench.documents)),
        "tokens": len(bench.documents),
        "as_used": bench.figures(used),
    }
    if most > 1:
        found |= _each_pass(bench, most)
        if bench.questions is not None:
            of = bench.questions
            found["difficulty"] = follow_difficulty(of.difficulty, bench.depth(used), of.tasks, of.documents)
    if len(used.seen):
        parts = zip(("mean", "open_share", "entropy"), used.seen, strict=True)
        found["memory_gate"] = {
            name: value
            for part, values in parts
            for name, value in with_error(part, by_document(values, bench.documents)).items()
        }
    if names:
        found["ablations"] = [_ablate(bench, name, used) for name in names]
    return found


def _each_pass(bench: ThinkingBench, most: int) -> dict[str, Any]:
    """Every token forced to 1 to K passes, and what the halting head says of it where there is one."""
    readings = []
    for passes in range(1, most + 1):
        bench.tell(f"reading the sample with {passes} of {most} passes")
        readings.append(bench.read(Effort(forced_passes=passes), _halts))
    figures = [{"passes": number, **bench.figures(one)} for number, one in enumerate(readings, start=1)]
    said = readings[-1].seen
    if len(said) < most - 1:
        return {"each_pass": figures}
    right = np.stack([one.right for one in readings])
    return {"each_pass": figures, "halting": judge_halting(said, right, bench.documents)}


def _ablate(bench: ThinkingBench, name: str, whole: Reading) -> dict[str, Any]:
    model: Any = bench.model
    bench.tell(f"reading the sample with {name}")
    with model.without(name):
        left = bench.read(bench.effort)
    return {"name": name, **bench.figures(left), **bench.difference(left, whole)}


def _questions(puzzles: Sequence[Puzzle], laid: Sequence[Chunk]) -> Questions:
    """The answers of the puzzles, and whose each target is, in the order in which chunks are laid out."""
    owners: list[np.ndarray] = []
    about: list[tuple[int, str, float]] = []
    for chunk in laid:
        puzzle = puzzles[chunk.document]
        for answer in sorted(puzzle.answers, key=lambda one: one.start):
            span = answer.targets(len(puzzle.tokens))
            owners.append(np.full(span.stop - span.start, len(about)))
            about.append((chunk.document, puzzle.task, answer.difficulty))
    documents, tasks, difficulty = zip(*about, strict=True)
    return Questions(
        np.concatenate(owners), np.array(documents), np.array(tasks), np.array(difficulty, np.float64)
    )


def _nothing(output: Output) -> Tensor:
    """[0, B, T]."""
    return output.states.new_zeros((0, *output.states.shape[:2]))


def _halts(output: Output) -> Tensor:
    """[K, B, T], the logits of being done, or nothing."""
    halts = getattr(output.trace, "halts", ())
    return torch.stack(tuple(halts)) if len(halts) else _nothing(output)


def _gate(output: Output) -> Tensor:
    """[3, B, T], of the memory's gate: mean, share of open coordinates, entropy; or nothing."""
    mixed = getattr(output.trace, "mixed", None)
    if mixed is None:
        return _nothing(output)
    share = mixed.share
    return torch.stack([share.mean(-1), (share > 0.5).to(share.dtype).mean(-1), mixed.entropy])
