"""Whether a halting head knows when a token is done, and whether hard answers are thought about for longer.

Letters: K steps, n targets, A answers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ourospec.measure.oracle import by_document, with_error
from ourospec.measure.ranks import over_documents, spearman

BINS = 10
"""Bins of equal width in which what is said is held against what is true."""


def settled(right: np.ndarray) -> np.ndarray:
    """[K, n], whether an answer is done after a step: it is right, or no later step makes it right.

    Args:
        right: [K, n], whether it is right after each step.
    """
    later = np.cumsum(right[::-1], axis=0)[::-1] - right > 0
    return right | ~later


def judge_halting(logits: np.ndarray, right: np.ndarray, documents: np.ndarray) -> dict[str, Any]:
    """How often a token was done when its head said so with probability q.

    Every step was run by every token, also by those that would have halted before. The last step is left out: after it
    everything is done, and nobody is asked.

    Args:
        logits: of being done, after each step, [K − 1, n] or more.
        right: [K, n], whether the likeliest token is the target, after each step.
        documents: [n], whose token is whose.

    Returns:
        `said`, the mean of q, and `done`, the share that was done; `calibration_error` = Σ_bins (size / all) ·
        |mean q − share done|, the expected calibration error over bins of equal width (Guo et al. 2017, arXiv
        1706.04599); `brier`, the mean of (q − done)²; `bins`, a list of those that are not empty: `from`, `to`,
        `said`, `done`, `decisions`; `by_step`, a list of `step`, `said`, `done`, `brier` for steps 1 to K − 1.
        Errors are standard errors over documents under `<name>_se`.
    """
    steps = len(right) - 1
    q = 1 / (1 + np.exp(-logits[:steps].astype(np.float64)))
    done = settled(right)[:-1].astype(np.float64)
    owners = np.tile(documents, steps)

    def figures(said: np.ndarray, true: np.ndarray, whose: np.ndarray) -> dict[str, float]:
        return {
            **with_error("said", by_document(said, whose)),
            **with_error("done", by_document(true, whose)),
            **with_error("brier", by_document(np.square(said - true), whose)),
        }

    said, true = q.ravel(), done.ravel()
    bins = []
    number = np.minimum((said * BINS).astype(int), BINS - 1)
    for index in np.unique(number):
        mine = number == index
        bins.append(
            {
                "from": float(index / BINS),
                "to": float((index + 1) / BINS),
                "said": float(said[mine].mean()),
                **with_error("done", by_document(true[mine], owners[mine])),
                "decisions": int(mine.sum()),
            }
        )
    apart = sum(one["decisions"] * abs(one["said"] - one["done"]) for one in bins)
    return {
        **figures(said, true, owners),
        "calibration_error": apart / len(said),
        "bins": bins,
        "by_step": [{"step": step + 1, **figures(q[step], done[step], documents)} for step in range(steps)],
    }


def follow_difficulty(
    difficulty: np.ndarray, depth: np.ndarray, tasks: np.ndarray, documents: np.ndarray
) -> list[dict[str, Any]]:
    """Whether harder answers take more passes, task by task, since each counts its difficulty by itself.

    Args:
        difficulty, depth, tasks, documents: [A], depth being the mean passes of an answer's tokens.

    Returns:
        A list, for each task of more than one difficulty: `task`, `answers`, and `spearman`, the rank correlation, with
        its standard error over documents; NaN where all answers took the same passes.
    """
    found = []
    for task in dict.fromkeys(tasks.tolist()):
        mine = np.flatnonzero(tasks == task)
        hard, passes = difficulty[mine], depth[mine]
        if len(np.unique(hard)) < 2:
            continue
        value = over_documents(lambda of, x=hard, y=passes: spearman(x[of], y[of]), documents[mine])
        found.append({"task": task, "answers": len(mine), **with_error("spearman", value)})
    return found
