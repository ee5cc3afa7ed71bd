"""Halting against verdicts worked out by hand: what is settled, whether what is said is true, who thinks longer."""

import math

import numpy as np
import pytest

from ourospec.measure.halting import follow_difficulty, judge_halting, settled

# Rows are steps, columns are tokens: always right, right from step 2 on, never right, right and lost again.
RIGHT = np.array(
    [
        [1, 0, 0, 1],
        [1, 1, 0, 0],
        [1, 1, 0, 0],
    ],
    dtype=bool,
)


def logit(q):
    q = np.asarray(q, dtype=np.float64)
    return np.log(q / (1 - q))


def test_settled_is_right_or_never_right_later():
    assert settled(RIGHT).tolist() == [[True, False, True, True], [True] * 4, [True] * 4]


def test_a_head_that_says_what_is_true_is_calibrated():
    q = np.clip(settled(RIGHT), 1e-9, 1 - 1e-9).astype(float)
    found = judge_halting(logit(q), RIGHT, np.arange(4))
    assert found["calibration_error"] < 1e-6 and found["brier"] < 1e-6
    wrong = judge_halting(-logit(q), RIGHT, np.arange(4))
    assert wrong["calibration_error"] == pytest.approx(1) and wrong["brier"] == pytest.approx(1)


def test_figures_by_hand():
    # After step 1 one of four is not done; after step 2 all are. The last step's logits must count for nothing.
    q = [[0.85, 0.85, 0.85, 0.25], [0.95, 0.95, 0.95, 0.95], [0.5, 0.5, 0.5, 0.5]]
    found = judge_halting(logit(q), RIGHT, np.array([0, 0, 1, 1]))
    assert judge_halting(logit(q[:2]), RIGHT, np.array([0, 0, 1, 1])) == found
    assert [(one["from"], one["decisions"]) for one in found["bins"]] == [(0.2, 1), (0.8, 3), (0.9, 4)]
    assert [one["done"] for one in found["bins"]] == pytest.approx([1, 2 / 3, 1])
    assert [one["said"] for one in found["bins"]] == pytest.approx([0.25, 0.85, 0.95])
    assert found["calibration_error"] == pytest.approx((0.75 + 3 * (0.85 - 2 / 3) + 4 * 0.05) / 8)
    brier = [0.15**2, 0.85**2, 0.15**2, 0.75**2, *[0.05**2] * 4]
    assert found["brier"] == pytest.approx(sum(brier) / 8)
    by_document = np.array([sum(brier[:2]) + 2 * 0.05**2, sum(brier[2:4]) + 2 * 0.05**2])
    spread = np.square(by_document - 4 * found["brier"]).sum()
    assert found["brier_se"] == pytest.approx(math.sqrt(2 * spread) / 8)
    assert (found["said"], found["done"]) == (pytest.approx((2.8 + 3.8) / 8), pytest.approx(7 / 8))
    assert [(one["step"], one["done"]) for one in found["by_step"]] == [(1, 0.75), (2, 1.0)]


def test_difficulty_is_followed_task_by_task():
    difficulty = np.array([1, 2, 3, 4, 10, 20, 30, 5, 5], dtype=float)
    depth = np.array([1, 1.5, 2, 3, 3, 2, 1, 1, 2], dtype=float)
    tasks = np.array(["up"] * 4 + ["down"] * 3 + ["same"] * 2)
    found = follow_difficulty(difficulty, depth, tasks, np.arange(9))
    assert [(one["task"], one["answers"], one["spearman"]) for one in found] == [
        ("up", 4, pytest.approx(1)),
        ("down", 3, pytest.approx(-1)),
    ]
