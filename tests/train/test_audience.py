"""Observers can neither change nor break a run."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch

from ourospec.contracts import Event
from ourospec.train.audience import Audience


class Recorder:
    def __init__(self, react: Callable[[Event], None] = lambda event: None) -> None:
        self.events: list[Event] = []
        self.closed = 0
        self.react = react

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        self.react(event)

    def close(self) -> None:
        self.closed += 1


class Keeper(Recorder):
    cut: int | None = None

    def offset(self) -> int:
        return len(self.events)

    def truncate(self, offset: int) -> None:
        self.cut = offset


def broken(event: Event) -> None:
    raise OSError("no room")


def test_everyone_is_told_everything_in_order() -> None:
    first, second = Recorder(), Recorder()
    audience = Audience([first, second])
    audience.emit("start", 0, {"a": 1})
    audience.emit("step", 1, {"loss": 2.0})
    audience.close()
    assert first.events == second.events == [Event("start", 0, {"a": 1}), Event("step", 1, {"loss": 2.0})]
    assert (first.closed, second.closed) == (1, 1)


def test_one_that_fails_is_reported_once_and_dropped() -> None:
    good, bad = Recorder(), Recorder(broken)
    audience = Audience([bad, good])
    for step in range(3):
        audience.emit("step", step, {})
    assert len(bad.events) == 1 and bad.closed == 1
    assert [event.kind for event in good.events] == ["warning", "step", "step", "step"]
    assert "Recorder failed" in good.events[0].data["message"]
    assert "no room" in good.events[0].data["message"]


def test_the_last_one_to_fail_is_reported_by_a_python_warning() -> None:
    audience = Audience([Recorder(broken), Recorder(broken)])
    with pytest.warns(RuntimeWarning, match="no longer told"):
        audience.emit("step", 1, {})
    audience.emit("step", 2, {})


def test_two_that_fail_over_each_other_are_both_dropped() -> None:
    good, one, two = Recorder(), Recorder(broken), Recorder(broken)
    audience = Audience([one, two, good])
    audience.emit("step", 1, {})
    assert sorted(event.kind for event in good.events) == ["step", "warning", "warning"]


def test_draws_of_observers_are_put_back() -> None:
    def gamble(event: Event) -> None:
        random.random(), np.random.random(), torch.rand(5)

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = random.random(), np.random.random(), torch.rand(())
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    Audience([Recorder(gamble)]).emit("step", 1, {})
    assert (random.random(), np.random.random(), torch.rand(())) == expected


def test_a_failing_close_is_survived_and_the_rest_still_closed() -> None:
    class Stuck(Recorder):
        def close(self) -> None:
            raise ValueError("stuck")

    good = Recorder()
    audience = Audience([Stuck(), good])
    audience.close()
    assert good.closed == 1
    assert good.events[-1].kind == "warning"


def test_the_keeper_of_the_event_file_is_found() -> None:
    keeper = Keeper()
    audience = Audience([Recorder(), keeper])
    audience.emit("step", 1, {})
    assert audience.offset(7) == 1
    audience.truncate(0)
    assert keeper.cut == 0
    assert Audience([Recorder()]).offset(7) == 7


def test_a_keeper_that_cannot_cut_is_dropped() -> None:
    class Stiff(Keeper):
        def truncate(self, offset: int) -> None:
            raise OSError("read-only")

    good = Recorder()
    audience = Audience([Stiff(), good])
    audience.truncate(0)
    assert audience.offset(7) == 7
    assert "Stiff failed" in good.events[0].data["message"]
