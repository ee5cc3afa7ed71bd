"""train.log: no step twice, no step waiting, whatever becomes of the process or the disk."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from ourospec.contracts import Event
from ourospec.runs import RunDirectory
from ourospec.telemetry.log_file import LogFile

from .steps import plain, policy, start


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def told(run: RunDirectory, events: Iterable[Event]) -> None:
    log = LogFile(run)
    for event in events:
        log.on_event(event)
    log.close()


def lines(run: RunDirectory) -> list[str]:
    return run.log.read_text(encoding="utf-8").splitlines()


def steps(run: RunDirectory) -> list[int]:
    return [int(line.split()[1]) for line in lines(run) if line.startswith("STEP: ")]


def test_a_run_from_its_start_to_its_end(run: RunDirectory) -> None:
    warning = Event("warning", 2, {"message": "something is odd"})
    told(run, [start(), plain(1), plain(2), warning, Event("end", 2, {"status": "complete"})])
    assert [line.split()[0] for line in lines(run)] == ["INIT", "STEP:", "STEP:", "WARNING:", "END"]


def test_what_comes_again_is_cut_off(run: RunDirectory) -> None:
    told(run, [start(), *(policy(n) for n in range(1, 26))])
    told(run, [start(20), *(policy(n) for n in range(21, 31))])
    assert steps(run) == list(range(1, 31))
    found = lines(run)
    at = found.index("RESUMED | at step 20")
    assert found[at - 1].startswith("L1:"), "everything of step 20 stays"
    assert found[at + 1].startswith("STEP: 21 ")


def test_a_run_stopped_at_its_checkpoint_keeps_all_of_its_log(run: RunDirectory) -> None:
    told(run, [start(), plain(1), plain(2), Event("end", 2, {"status": "interrupted"})])
    told(run, [start(2), plain(3)])
    assert [line.split()[0] for line in lines(run)] == ["INIT", "STEP:", "STEP:", "END", "RESUMED", "STEP:"]


def test_a_fresh_start_begins_the_log_afresh(run: RunDirectory) -> None:
    told(run, [start(), plain(1), plain(2)])
    told(run, [start(), plain(1)])
    assert steps(run) == [1]


def test_a_line_that_a_kill_tore_is_cut_off(run: RunDirectory) -> None:
    told(run, [start(), plain(1), plain(2)])
    with run.log.open("ab") as file:
        file.write("STEP: 3 | λ".encode()[:-1])
    told(run, [start(2), plain(3)])
    assert steps(run) == [1, 2, 3]
    assert all("�" not in line for line in lines(run))


def test_a_resumed_run_without_a_log_begins_one(run: RunDirectory) -> None:
    told(run, [start(7), plain(8)])
    assert lines(run)[0] == "RESUMED | at step 7"
    assert steps(run) == [8]


def test_the_deadband_is_announced_once_over_all_resumptions(run: RunDirectory) -> None:
    off = [policy(n, deadband=False) for n in range(1, 4)]
    told(run, [start(), *off, *(policy(n) for n in range(4, 9))])
    told(run, [start(6), *(policy(n) for n in range(7, 9)), policy(9, deadband=False)])
    told(run, [start(3), policy(4)])
    assert [line.split(" |")[0] for line in lines(run) if "DEADBAND" in line] == ["=== DEADBAND ENGAGED"]
    told(run, [start(4), policy(5, deadband=False)])
    assert sum("DEADBAND RELEASED" in line for line in lines(run)) == 1


def test_nothing_is_touched_before_the_first_event(run: RunDirectory) -> None:
    LogFile(run).close()
    assert not run.path.exists()


def test_a_disk_that_is_full_for_a_while_leaves_whole_lines(run: RunDirectory) -> None:
    resource = pytest.importorskip("resource")
    log = LogFile(run)
    for event in (start(), plain(1)):
        log.on_event(event)
    log.close()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    log = LogFile(run)
    resource.setrlimit(resource.RLIMIT_FSIZE, (run.log.stat().st_size + 70, limits[1]))
    try:
        with pytest.warns(RuntimeWarning, match="could not be written"):
            log.on_event(plain(2))
            log.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    log.on_event(plain(3))
    log.close()
    assert steps(run) == [1, 3]
    assert all(line.startswith(("INIT", "STEP: ")) for line in lines(run))


def test_a_disk_that_takes_nothing_costs_the_log_and_is_said_once(run: RunDirectory) -> None:
    run.log.mkdir(parents=True)
    with pytest.warns(RuntimeWarning, match=r"train\.log could not be written") as said:
        log = LogFile(run)
        for event in (start(), *(plain(n) for n in range(1, 20))):
            log.on_event(event)
        log.close()
    assert len(said) == 1
