"""Work on a thread: all of it, in order, never in the way, and never the reason that a run stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from ourospec.telemetry.background import Background


def test_everything_is_done_in_order_before_close_returns() -> None:
    done: list[int] = []

    def work(items: Sequence[int]) -> None:
        time.sleep(0.001)
        done.extend(items)

    background = Background(work, "log")
    for number in range(200):
        background.put(number)
    background.close()
    assert done == list(range(200))


def test_whoever_puts_does_not_wait() -> None:
    free = threading.Event()
    background = Background[int](lambda items: free.wait() and None, "log")
    began = time.perf_counter()
    for number in range(1000):
        background.put(number)
    assert time.perf_counter() - began < 1.0
    free.set()
    background.close()


def test_of_those_that_wait_only_the_latest_are_kept() -> None:
    done: list[int] = []
    entered, free = threading.Event(), threading.Event()

    def work(items: Sequence[int]) -> None:
        entered.set()
        free.wait()
        done.extend(items)

    background = Background(work, "stats", keep=1)
    background.put(0)
    entered.wait()
    for number in range(1, 50):
        background.put(number)
    free.set()
    background.close()
    assert done == [0, 49]


def test_a_failure_is_told_once_and_later_work_is_tried() -> None:
    done: list[int] = []

    def work(items: Sequence[int]) -> None:
        if min(items) < 3:
            raise OSError(28, "No space left on device")
        done.extend(items)

    background = Background(work, "train.log")
    with pytest.warns(RuntimeWarning, match=r"train\.log could not be written \(No space left") as told:
        for number in range(6):
            background.put(number)
            background.close()
    assert len(told) == 1
    assert done == [3, 4, 5]


def test_no_thread_before_the_first_item_and_none_after_the_end() -> None:
    before = threading.active_count()
    background = Background[int](lambda items: None, "log")
    assert threading.active_count() == before
    background.close()
    background.put(1)
    background.close()
    background.close()
    assert threading.active_count() == before
