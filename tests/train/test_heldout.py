"""The held-out loss: which evaluation is the best, when a run is out of patience, and that it ends there for good."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourospec.contracts import Probe
from ourospec.errors import Interrupted
from ourospec.runs import RunDirectory
from ourospec.train.config import TrainConfig
from ourospec.train.heldout import HeldOut
from ourospec.train.loop import fit

from .toy import end_of, toy_job

LOSSES = st.lists(st.integers(-40, 40).map(lambda n: n / 8), max_size=30)


@given(LOSSES, st.sampled_from([0.0, 0.125, 0.5, 3.0]))
def test_the_marks_equal_those_of_a_slow_twin(losses: list[float], least: float) -> None:
    heldout, counted, since = HeldOut(), math.inf, 0
    for step, loss in enumerate(losses, start=1):
        best = heldout.hear(loss, step, least)
        assert best == (loss < min(losses[: step - 1], default=math.inf))
        if loss < counted - least:
            counted, since = loss, step
        assert heldout.best_loss == min(losses[:step])
        assert heldout.best_step == 1 + losses.index(heldout.best_loss)
        assert (heldout.counted_loss, heldout.waited(step)) == (counted, step - since)
    assert heldout.waited(99) == (99 - since if losses else 0)


@given(LOSSES, LOSSES, st.sampled_from([0.0, 0.5]))
def test_it_goes_on_from_a_checkpoint_as_if_nothing_had_happened(
    before: list[float], after: list[float], least: float
) -> None:
    """The evaluation of the checkpoint's own step may come again."""
    whole = HeldOut()
    found = [whole.hear(loss, step, least) for step, loss in enumerate([*before, *after])]
    first = HeldOut()
    told = [first.hear(loss, step, least) for step, loss in enumerate(before)]
    resumed = HeldOut.from_record({**first.to_record()})
    told = told[:-1]
    again = max(0, len(before) - 1)
    told += [resumed.hear(loss, step, least) for step, loss in enumerate([*before, *after]) if step >= again]
    assert (resumed, told) == (whole, found)


def test_the_only_mark_of_older_checkpoints_serves_for_both() -> None:
    assert HeldOut.from_record({"best": [1.5, 40]}) == HeldOut(1.5, 40, 1.5, 40)
    assert HeldOut.from_record({"best": None}) == HeldOut.from_record({}) == HeldOut()


def patient(path: Path, losses: list[float], **settings: Any) -> Any:
    """A toy job that evaluates every second step with these losses, the last of them for ever."""

    def evaluate(model: Any, clock: Any) -> dict[str, float]:
        return {"loss": losses[min(clock.step // 2, len(losses)) - 1]}

    train = TrainConfig(steps=40, batch_size=4, micro_batch_size=2, window=7, save_every=3, **settings)
    return toy_job(path, train=train, probes=[Probe("eval", 2, evaluate)])


FALLING = [3.0, 2.0, 1.95, 1.92, 1.4, 1.41, 1.39]


@pytest.mark.parametrize(
    ("patience", "least", "end", "words"),
    [
        (4, 0.0, 18, "no held-out loss below 1.3900 nats since step 14"),
        (4, 0.1, 8, "no held-out loss below 1.9000 nats since step 4"),
        (6, 0.1, 16, "no held-out loss below 1.3000 nats since step 10"),
        (40, 0.0, 40, None),
    ],
)
def test_a_run_out_of_patience_ends_and_says_why(
    tmp_path: Path, patience: int, least: float, end: int, words: str | None
) -> None:
    job = patient(tmp_path, FALLING, patience=patience, min_improvement=least)
    assert fit(job).step == end
    *_, last = RunDirectory(tmp_path).read_events()
    assert (last["status"], last.get("stopped_early")) == ("complete", words)
    assert (
        fit(patient(tmp_path, FALLING, patience=patience, min_improvement=least)).status == "already complete"
    )


def test_patience_is_kept_over_an_interruption(tmp_path: Path) -> None:
    settings = {"patience": 6, "min_improvement": 0.1}
    fit(patient(tmp_path / "whole", FALLING, **settings))

    class Pausing:
        def on_event(self, event: Any) -> None:
            if event.kind == "step" and event.step == 11:
                (tmp_path / "stopped" / ".pause").touch()

        def close(self) -> None:
            """Nothing is held open."""

    job = patient(tmp_path / "stopped", FALLING, **settings)
    job.observers.append(Pausing())
    with pytest.raises(Interrupted, match="after step 11"):
        fit(job)
    fit(patient(tmp_path / "stopped", FALLING, **settings))
    assert end_of(tmp_path / "stopped") == end_of(tmp_path / "whole")
