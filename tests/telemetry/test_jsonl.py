"""The event file: whole lines only, cut back exactly, and never the reason that a run stops."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourospec.contracts import Event
from ourospec.runs import RunDirectory
from ourospec.telemetry.events import read_records
from ourospec.telemetry.jsonl import JsonlObserver


def step(number: int) -> Event:
    return Event("step", number, {"loss": 1 / number})


def steps_in(run: RunDirectory) -> list[int]:
    return [record.step for record in read_records(run)]


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def test_every_event_is_a_line_at_once(run: RunDirectory) -> None:
    observer = JsonlObserver(run)
    for number in (1, 2, 3):
        observer.on_event(step(number))
        assert steps_in(run) == list(range(1, number + 1)), "visible before the observer is closed"
    observer.close()


def test_a_killed_process_loses_nothing(run: RunDirectory) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from ourospec.contracts import Event; from ourospec.runs import RunDirectory\n"
        "from ourospec.telemetry.jsonl import JsonlObserver\n"
        "observer = JsonlObserver(RunDirectory(Path(sys.argv[1])))\n"
        "[observer.on_event(Event('step', n, {})) for n in range(1, 51)]\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(run.path)], check=False)
    assert done.returncode != 0
    assert steps_in(run) == list(range(1, 51))


def test_building_an_observer_touches_nothing(run: RunDirectory) -> None:
    run.path.mkdir()
    run.events.write_bytes(b'{"half')
    observer = JsonlObserver(run)
    assert observer.offset() == 6
    observer.close()
    assert run.events.read_bytes() == b'{"half'


def test_offset_is_the_size(run: RunDirectory) -> None:
    observer = JsonlObserver(run)
    assert observer.offset() == 0
    observer.on_event(Event("sample", 1, {"text": "é猫"}))
    assert observer.offset() == run.events.stat().st_size > 0


def test_a_resumed_run_goes_on_where_it_was_saved(run: RunDirectory) -> None:
    first = JsonlObserver(run)
    for number in (1, 2):
        first.on_event(step(number))
    saved = first.offset()
    for number in (3, 4):
        first.on_event(step(number))
    first.close()
    second = JsonlObserver(run)
    second.truncate(saved)
    assert second.offset() == saved
    second.on_event(step(30))
    assert steps_in(run) == [1, 2, 30]


@given(
    count=st.integers(0, 5),
    torn=st.binary(max_size=9).map(lambda some: some.replace(b"\n", b"")),
    offset=st.integers(0, 500),
)
def test_whatever_the_offset_whole_lines_remain(count: int, torn: bytes, offset: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run = RunDirectory(Path(folder))
        writer = JsonlObserver(run)
        ends = [0]
        for number in range(1, count + 1):
            writer.on_event(step(number))
            ends.append(writer.offset())
        writer.close()
        with run.events.open("ab") as file:
            file.write(torn)
        observer = JsonlObserver(run)
        observer.truncate(offset)
        kept = sum(end <= offset for end in ends) - 1
        assert run.events.stat().st_size == observer.offset() == ends[kept]
        observer.on_event(step(99))
        observer.close()
        assert steps_in(run) == [*range(1, kept + 1), 99]


def test_a_torn_line_longer_than_a_block_is_cut(run: RunDirectory) -> None:
    writer = JsonlObserver(run)
    writer.on_event(step(1))
    writer.close()
    with run.events.open("ab") as file:
        file.write(b"x" * 200_000)
    observer = JsonlObserver(run)
    observer.on_event(step(2))
    assert steps_in(run) == [1, 2]


def test_a_full_disk_costs_events_but_neither_run_nor_log(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    observer = JsonlObserver(run)
    observer.on_event(step(1))
    real = os.write

    def choked(file: int, data: bytes) -> int:
        if len(data) > 40:
            return real(file, data[:20])  # what still fits of a line
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", choked)
    with pytest.warns(RuntimeWarning, match="No space left") as told:
        observer.on_event(step(2))
        observer.on_event(step(3))
    assert len(told) == 1, "said once, not at every step"
    assert steps_in(run) == [1]
    assert observer.offset() == run.events.stat().st_size, "what fitted of a line was taken back"
    monkeypatch.setattr(os, "write", real)
    observer.on_event(step(4))
    records = list(read_records(run))
    assert [record.kind for record in records] == ["step", "warning", "step"]
    assert "2 events" in records[1].data["message"]


def test_close_twice(run: RunDirectory) -> None:
    observer = JsonlObserver(run)
    observer.on_event(step(1))
    observer.close()
    observer.close()
    assert steps_in(run) == [1]
