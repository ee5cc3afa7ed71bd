"""Pace and smoothed numbers, on a clock that the test turns."""

from __future__ import annotations

import pytest

from ourospec.telemetry.progress import SMOOTHED_STEPS, Progress


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


def begun(clock: Clock, *, total: int, step: int = 0) -> Progress:
    progress = Progress(clock)
    progress.begin(step, {"total_steps": total})
    return progress


def test_time_left_at_an_even_pace() -> None:
    clock = Clock()
    progress = begun(clock, total=100)
    assert progress.seconds_left() is None
    for step in range(1, 41):
        clock.time += 2.0
        progress.advance(step, {"loss": 1.0})
    assert progress.seconds_left() == pytest.approx(120.0)


def test_a_resumed_run_does_not_count_the_steps_of_before() -> None:
    clock = Clock()
    progress = begun(clock, total=1000, step=900)
    clock.time += 5.0
    progress.advance(901, {"loss": 1.0})
    assert progress.seconds_left() == pytest.approx(99 * 5.0)


def test_the_pace_is_of_late() -> None:
    clock = Clock()
    progress = begun(clock, total=10_000)
    for step in range(1, 601):
        clock.time += 0.1 if step <= 300 else 1.0
        progress.advance(step, {"loss": 1.0})
    assert progress.seconds_left() == pytest.approx(9400 * 1.0, rel=0.02), "not the mean of fast and slow"


def test_numbers_are_means_of_the_last_steps() -> None:
    progress = begun(Clock(), total=100)
    for step in range(1, 51):
        progress.advance(step, {"loss": float(step), "lm_loss": 2.0 * step, "mean_passes": None})
    mean = sum(range(51 - SMOOTHED_STEPS, 51)) / SMOOTHED_STEPS
    assert progress.mean("loss") == pytest.approx(mean)
    assert progress.mean_loss() == pytest.approx(2 * mean), "of the text alone, where it is told"
    assert progress.mean("mean_passes") is None


def test_speed_is_tokens_by_time() -> None:
    progress = begun(Clock(), total=100)
    assert progress.tokens_per_second() is None
    progress.advance(1, {"loss": 1.0, "tokens_per_second": 1000.0})
    progress.advance(2, {"loss": 1.0, "tokens_per_second": 250.0})
    assert progress.tokens_per_second() == pytest.approx(2 * 500 / (0.5 + 2.0)), (
        "500 tokens in 0.5 s, then in 2 s"
    )
    progress.advance(3, {"loss": 1.0, "tokens_per_second": 0.0})
    assert progress.tokens_per_second() is None


def test_the_curve_stays_short_and_spans_the_run() -> None:
    progress = begun(Clock(), total=10_000)
    for step in range(1, 10_001):
        progress.advance(step, {"loss": 10_000.0 - step})
    assert 256 <= len(progress.losses) <= 1024
    assert progress.losses == sorted(progress.losses, reverse=True)
    assert progress.losses[0] > 9_900
    assert progress.losses[-1] < 100
