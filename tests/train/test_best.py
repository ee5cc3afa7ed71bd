"""The best weights: kept whole, never better than what is told, there after any kill, and without any effect."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ourospec.contracts import Clock, Probe
from ourospec.errors import ConfigError, Interrupted, ResourceError
from ourospec.runs import RunDirectory
from ourospec.train.checkpoint import list_bests, list_checkpoints
from ourospec.train.loop import fit
from ourospec.train.weights import load_weights

from .test_checkpoint import MINE, flip_bit, snapshot, store_of
from .test_resume import during, interrupt
from .toy import ToyModel, end_of, probe, scoring, toy_job

JOB = {"steps": 24, "save_every": 5}
Told = dict[int, float]


def best_job(path: Path, **changes: Any) -> Any:
    return toy_job(path, **{**JOB, "keep_best": True, **changes})


def evaluations(path: Path) -> tuple[Told, list[int]]:
    """Losses by step, and the steps that were told to be the best."""
    events = [event for event in RunDirectory(path).read_events() if event["kind"] == "eval"]
    return {event["step"]: event["loss"] for event in events}, [e["step"] for e in events if e.get("best")]


def kept(path: Path) -> tuple[int, float]:
    """The step of the best weights, and their loss, evaluated anew."""
    tensors, origin = load_weights(RunDirectory(path), "best")
    model = ToyModel()
    model.load_state_dict(tensors)
    with torch.no_grad():
        return origin.step, scoring(model, Clock(origin.step, JOB["steps"]))["loss"]


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("untouched")
    fit(best_job(path))
    return path


def test_the_weights_with_the_least_loss_are_kept_and_told(untouched: Path) -> None:
    losses, told = evaluations(untouched)
    best = min(losses, key=lambda step: losses[step])
    assert told == [step for step in losses if losses[step] == min(v for s, v in losses.items() if s <= step)]
    assert len(told) >= 2 and best < max(losses), "or the toy would show nothing"
    assert kept(untouched) == (best, pytest.approx(losses[best], rel=1e-6))
    *_, end = RunDirectory(untouched).read_events()
    assert (end["best_step"], end["best_loss"]) == (best, losses[best])
    newest = load_weights(RunDirectory(untouched))[1]
    assert (
        newest.step == JOB["steps"]
        and newest.digest != load_weights(RunDirectory(untouched), "best")[1].digest
    )


def test_keeping_them_changes_nothing_else(untouched: Path, tmp_path: Path) -> None:
    probes = [Probe("eval", 4, scoring), Probe("sample", 0, probe)]
    fit(toy_job(tmp_path / "without", **JOB, probes=probes))
    fit(best_job(tmp_path / "alone", observers=[], probes=probes))
    assert not list_bests(RunDirectory(tmp_path / "without"))
    with pytest.raises(ResourceError, match="keeps no best weights") as caught:
        load_weights(RunDirectory(tmp_path / "without"), "best")
    assert "--train.keep-best" in caught.value.remedy
    without, alone, whole = (end_of(tmp_path / "without"), end_of(tmp_path / "alone"), end_of(untouched))
    assert without.tensors == alone.tensors == whole.tensors
    assert without.record == whole.record
    assert without.events == [{k: v for k, v in e.items() if k != "best"} for e in whole.events]


@pytest.mark.parametrize("steps", [(3,), (7, 11), (8, 9, 15), (19, 23)])
def test_a_run_stopped_anywhere_keeps_the_same(
    untouched: Path, tmp_path: Path, steps: tuple[int, ...]
) -> None:
    for step in steps:
        with pytest.raises(Interrupted):
            fit(best_job(tmp_path, stream=during(step, interrupt(signal.SIGINT))))
    fit(best_job(tmp_path))
    assert end_of(tmp_path) == end_of(untouched)
    assert kept(tmp_path) == kept(untouched)


def sound(path: Path) -> None:
    """After a kill: what `best` gives was told, is the best of what was told until then, and has that loss."""
    losses, told = evaluations(path)
    try:
        step, loss = kept(path)
    except ResourceError as none:
        assert "keeps no best" in str(none) and len(told) <= 1, "the first may not have been written yet"
        return
    assert loss == pytest.approx(losses[step], rel=1e-6)
    assert step in told[-2:], "the newest that was told, or, while that is written, the one before"


def kill_everywhere(
    killable: Callable[..., Any], untouched: Path, folder: Path, start: int, stride: int
) -> int:
    """Kill the job before every stride-th change of its checkpoint folder; how often it was killed."""
    call, kills = start, 0
    while True:
        path = folder / str(call)
        if not killable(path, **JOB, keep_best=True, die_at_call=call)["killed"]:
            return kills
        kills += 1
        sound(path)
        if killable(path, **JOB, keep_best=True, die_at_call=1 + call % 7)["killed"]:
            sound(path)
        assert not killable(path, **JOB, keep_best=True)["killed"]
        assert end_of(path) == end_of(untouched) and kept(path) == kept(untouched), f"killed before {call}"
        assert not list((path / "checkpoints").glob(".*"))
        shutil.rmtree(path)
        call += stride


def test_kills_within_saves_of_the_best(killable: Any, untouched: Path, tmp_path: Path) -> None:
    assert kill_everywhere(killable, untouched, tmp_path, random.randrange(1, 12), stride=17) >= 4


@pytest.mark.slow
def test_kills_at_every_boundary(killable: Any, untouched: Path, tmp_path: Path) -> None:
    assert kill_everywhere(killable, untouched, tmp_path, 1, stride=1) >= 50


def test_weights_of_steps_that_are_yet_to_come_again_are_forgotten(
    killable: Any, untouched: Path, tmp_path: Path
) -> None:
    """Killed behind an evaluation, resumed before it, stopped before it: its weights are not told of any more."""
    # A checkpoint is taken before its own step is evaluated.
    between = [step for step in evaluations(untouched)[1] if step % JOB["save_every"] > 1]
    assert between
    for best in between:
        path, saved = tmp_path / str(best), best // JOB["save_every"] * JOB["save_every"]
        assert killable(path, **JOB, keep_best=True, die_at_step=best)["killed"]
        assert kept(path)[0] == best
        with pytest.raises(Interrupted):
            fit(best_job(path, stream=during(saved, interrupt(signal.SIGINT))))
        assert best not in evaluations(path)[1]
        sound(path)
        fit(best_job(path))
        assert end_of(path) == end_of(untouched) and kept(path) == kept(untouched)


def test_a_damaged_newest_checkpoint_still_finds_the_best_that_it_knew(
    untouched: Path, tmp_path: Path
) -> None:
    """The best of an older checkpoint stays for as long as that may be gone back to."""
    with pytest.raises(Interrupted):
        fit(best_job(tmp_path, stream=during(14, interrupt(signal.SIGINT))))
    newest = list_checkpoints(RunDirectory(tmp_path))[-1]
    flip_bit(newest / "state.safetensors", 3000)
    with pytest.raises(Interrupted):
        fit(best_job(tmp_path, stream=during(10, interrupt(signal.SIGINT))))
    sound(tmp_path)
    losses, _ = evaluations(tmp_path)
    assert kept(tmp_path)[0] == min(losses, key=lambda step: losses[step])
    fit(best_job(tmp_path))
    assert end_of(tmp_path) == end_of(untouched) and kept(tmp_path) == kept(untouched)


def telling(step: int, best: int | None) -> Any:
    taken = snapshot(step)
    return taken.__class__(
        step, taken.weights, taken.average, taken.state, {**taken.record, "best": best and [1.0, best]}
    )


def test_no_more_are_kept_than_checkpoints_tell_of(tmp_path: Path) -> None:
    store, run = store_of(tmp_path, keep=2), RunDirectory(tmp_path)

    def there() -> list[int]:
        return [int(folder.name[5:]) for folder in list_bests(run)]

    store.save_best(telling(4, 4))
    store.save(telling(5, 4))
    for step in (6, 7, 8):
        store.save_best(telling(step, step))
        assert there() == [4, step], "one checkpoint tells of the first"
    store.save(telling(10, 8))
    store.save_best(telling(12, 12))
    assert there() == [4, 8, 12]
    store.save(telling(15, 12))
    assert there() == [8, 12], "the checkpoint that told of the first is gone"
    store.forget_bests(after=8)
    assert there() == [8]


def test_best_weights_are_checked_like_checkpoints(tmp_path: Path) -> None:
    store, run = store_of(tmp_path), RunDirectory(tmp_path)
    store.save_best(telling(4, 4))
    store.save(telling(5, 4))
    store.save_best(telling(8, 8))
    before = (tmp_path / "checkpoints" / "best-00000008" / "weights.safetensors").stat().st_mtime_ns
    store.save_best(telling(8, 8))
    after = (tmp_path / "checkpoints" / "best-00000008" / "weights.safetensors").stat().st_mtime_ns
    assert before == after, "what is there and whole is not written again"
    tensors, origin = load_weights(run, "best")
    assert origin.step == 8 and origin.averaged and torch.equal(tensors["w"], snapshot(8).average["w"])
    assert torch.equal(tensors["tied"], tensors["w"])
    assert not load_file(tmp_path / "checkpoints" / "best-00000008" / "state.safetensors")
    flip_bit(tmp_path / "checkpoints" / "best-00000008" / "average.safetensors", 4000)
    _, origin = load_weights(run, "best")
    assert origin.step == 4 and "best-00000008: average.safetensors" in origin.skipped[0]
    store.save_best(telling(8, 8))
    assert load_weights(run, "best")[1].step == 8, "a damaged one is written anew"
    assert MINE and list_checkpoints(run)[-1].name == "step-00000005"


def test_a_directory_refuses_another_choice(untouched: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.keep_best: true there, (false|absent) here"):
        fit(toy_job(untouched, **JOB))
