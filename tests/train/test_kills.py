"""kill -9, anywhere and again: the end is that of a run that nobody touched, to the last bit."""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .toy import STEPS_PER_EPOCH, end_of

Killable = Callable[..., dict[str, Any]]

LONG = {"steps": 120, "save_every": 3}
SHORT = {"steps": 8, "save_every": 2}


@pytest.fixture(scope="module")
def untouched(killable: Killable, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """The end of the same job when nothing happens to it."""
    ends: dict[int, Any] = {}

    def run(**job: int) -> Any:
        if job["steps"] not in ends:
            path = tmp_path_factory.mktemp("untouched")
            assert killable(path, **job)["killed"] is False
            ends[job["steps"]] = end_of(path)
        return ends[job["steps"]]

    return run


def leftovers(path: Path) -> list[Path]:
    """What a save that did not come to its end leaves behind."""
    return [*path.glob("checkpoints/.unfinished-*"), *path.glob("checkpoints/.dropped-*")]


def test_twenty_kills_at_random_moments(killable: Killable, untouched: Any, tmp_path: Path) -> None:
    moments = random.Random()
    seed = moments.randrange(2**32)
    moments.seed(seed)
    kills = within_save = runs = 0
    while kills < 20:
        runs += 1
        path = tmp_path / f"run{runs}"
        while killable(path, **LONG, pace=0.004, delay=moments.uniform(0.02, 0.28))["killed"]:
            kills += 1
            within_save += bool(leftovers(path))
            if kills >= 20:
                killable(path, **LONG)
                break
        assert end_of(path) == untouched(**LONG), f"seed {seed}, {kills} kills"
        assert not leftovers(path)
    # Saves take about half of the time, so this fails once in a million runs if they leave traces.
    assert within_save >= 1, f"seed {seed}: none of the kills fell within a save"


def test_two_kills_in_one_epoch_and_one_at_its_end(
    killable: Killable, untouched: Any, tmp_path: Path
) -> None:
    for step in (STEPS_PER_EPOCH + 4, STEPS_PER_EPOCH + 8, 2 * STEPS_PER_EPOCH):
        assert killable(tmp_path, **LONG, die_at_step=step)["killed"]
    assert not killable(tmp_path, **LONG)["killed"]
    assert end_of(tmp_path) == untouched(**LONG)


def test_two_kills_without_a_save_between_them(killable: Killable, untouched: Any, tmp_path: Path) -> None:
    for step in (8, 7):
        assert killable(tmp_path, **LONG, die_at_step=step)["killed"]
    killable(tmp_path, **LONG)
    assert end_of(tmp_path) == untouched(**LONG)


def test_a_kill_before_the_first_save(killable: Killable, untouched: Any, tmp_path: Path) -> None:
    assert killable(tmp_path, **SHORT, die_at_step=1)["killed"]
    assert not list((tmp_path / "checkpoints").iterdir())
    assert not killable(tmp_path, **SHORT)["killed"]
    assert end_of(tmp_path) == untouched(**SHORT)


MUGROKFAST = {"lr": 0.03, "muon": {"lr": 0.05}, "grokfast": {"decay": 0.8}}


def test_kills_with_momentum_and_slow_gradients_in_the_state(killable: Killable, tmp_path: Path) -> None:
    """After a save, within one, and before the next: what Muon and Grokfast remember comes back with the rest."""
    job = {**SHORT, "optim": MUGROKFAST}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert not killable(whole, **job)["killed"]
    assert killable(killed, **job, die_at_step=3)["killed"]
    assert killable(killed, **job, die_at_call=4)["killed"]
    assert killable(killed, **job, die_at_step=5)["killed"]
    assert not killable(killed, **job)["killed"]
    end = end_of(killed)
    assert end == end_of(whole)
    kept = {name.rsplit("/", 1)[-1] for name in end.tensors}
    assert {"slow_gradient", "momentum_buffer", "exp_avg", "exp_avg_sq"} <= kept


def kill_at_calls(killable: Killable, expected: Any, folder: Path, start: int, stride: int) -> int:
    """Kill a job of four saves before every stride-th change that it makes to its checkpoints."""
    call, within_save = start, 0
    while True:
        path = folder / str(call)
        if not killable(path, **SHORT, die_at_call=call)["killed"]:
            break
        within_save += bool(leftovers(path))
        # The second attempt dies too, early in what follows: a crash while cleaning up after a crash.
        killable(path, **SHORT, die_at_call=1 + call % 7)
        killable(path, **SHORT)
        assert end_of(path) == expected, f"killed before change {call}"
        assert not leftovers(path)
        call += stride
    return within_save


def test_kills_at_the_boundaries_within_saves(killable: Killable, untouched: Any, tmp_path: Path) -> None:
    start = random.randrange(1, 6)
    assert kill_at_calls(killable, untouched(**SHORT), tmp_path, start, stride=5) >= 3


@pytest.mark.slow
def test_kills_at_every_boundary_within_saves(killable: Killable, untouched: Any, tmp_path: Path) -> None:
    assert kill_at_calls(killable, untouched(**SHORT), tmp_path, start=1, stride=1) >= 20


@pytest.mark.slow
def test_twenty_kills_of_whole_processes(untouched: Any, tmp_path: Path) -> None:
    """The same without forks: each attempt is an interpreter of its own, killed at any moment of its run."""
    script = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from toy import toy_job; from ourospec.train.loop import fit\n"
        f"fit(toy_job(Path({str(tmp_path)!r}), steps={LONG['steps']}, save_every={LONG['save_every']}))\n"
    )
    for _ in range(20):
        process = subprocess.Popen([sys.executable, "-c", script])
        ready = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < ready:
            with contextlib.suppress(OSError):
                if f'"pid": {process.pid},' in (tmp_path / ".lock").read_text():
                    break
            time.sleep(0.01)
        time.sleep(random.uniform(0.0, 1.5))  # the first optimiser takes a second
        process.kill()
        process.wait()
    subprocess.run([sys.executable, "-c", script], check=True)
    assert end_of(tmp_path) == untouched(**LONG)
