"""One process per run, and how it is asked to stop."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ourospec.errors import ResourceError
from ourospec.runs import RunDirectory
from ourospec.train.control import StopRequest, hold_lock, process_began

HOST = socket.gethostname()

HOLDER = """
import sys
from pathlib import Path
from ourospec.runs import RunDirectory
from ourospec.train.control import hold_lock
with hold_lock(RunDirectory(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def start_holder(path: Path) -> subprocess.Popen:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None and holder.stdout.readline() == "held\n"
    return holder


def test_a_living_holder_keeps_others_out_and_a_killed_one_does_not(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    holder = start_holder(tmp_path)
    with pytest.raises(ResourceError, match=f"in use by process {holder.pid}") as caught, hold_lock(run):
        pytest.fail("entered a locked directory")
    assert str(run.pause) in caught.value.remedy
    assert json.loads(run.lock.read_text())["pid"] == holder.pid
    holder.kill()
    holder.wait()
    assert run.lock.exists()
    with hold_lock(run):
        assert json.loads(run.lock.read_text())["pid"] == os.getpid()
    assert not run.lock.exists()


def test_a_dead_holder_that_nobody_buried_is_dead(tmp_path: Path) -> None:
    holder = start_holder(tmp_path)
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # a zombie still has its process id
    with hold_lock(RunDirectory(tmp_path)):
        pass
    holder.wait()


def test_a_process_id_given_to_another_process_is_recognised(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    lock = {"host": HOST, "pid": os.getpid(), "began": "another time"}
    run.lock.write_text(json.dumps(lock))
    with hold_lock(run):
        pass


def test_the_same_process_cannot_hold_it_twice(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with hold_lock(run):
        with pytest.raises(ResourceError, match="in use"), hold_lock(run):
            pytest.fail("entered twice")
        assert run.lock.exists()


def test_a_holder_on_another_machine_is_believed(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.lock.write_text(json.dumps({"host": "elsewhere", "pid": 1, "began": "0"}))
    with pytest.raises(ResourceError, match="on the machine elsewhere") as caught, hold_lock(run):
        pytest.fail("entered a locked directory")
    assert f"remove {run.lock}" in caught.value.remedy


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"host": "%s", "pid": "x"}', '{"host": "%s"}'])
def test_a_garbled_lock_is_no_lock(tmp_path: Path, text: str) -> None:
    run = RunDirectory(tmp_path)
    run.lock.write_text(text.replace("%s", HOST))
    with hold_lock(run):
        pass


def test_the_lock_goes_when_the_inside_fails(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(ZeroDivisionError), hold_lock(run):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_of_many_that_come_at_once_over_a_stale_lock_one_gets_in(tmp_path: Path) -> None:
    """Taking a stale lock over is a look and a leap; nobody may leap between another's two."""
    run = RunDirectory(tmp_path)
    run.lock.write_text(json.dumps({"host": HOST, "pid": 2**22 + 1, "began": "0"}))
    script = HOLDER.replace("with hold_lock", "sys.stdin.readline()\nwith hold_lock")
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for rival in rivals:
        assert rival.stdin is not None
        rival.stdin.write("go\n")
        rival.stdin.flush()
    refused = 0
    for rival in rivals:
        assert rival.stdout is not None and rival.stderr is not None
        if rival.stdout.readline() != "held\n":
            refused += "is in use by process" in rival.stderr.read()
    assert refused == 3
    for rival in rivals:
        rival.communicate()


def test_a_directory_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    run = RunDirectory(tmp_path / "file" / "run")
    with pytest.raises(ResourceError, match="Taking the run's lock failed"), hold_lock(run):
        pytest.fail("entered a directory that does not exist")


def test_processes_are_told_apart() -> None:
    assert process_began(os.getpid()) == process_began(os.getpid()) is not None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as later:
        assert process_began(later.pid) != process_began(os.getpid())
    assert process_began(2**22 + 1) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_asks_and_a_second_interrupts(tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest(RunDirectory(tmp_path)) as stop:
        assert stop.reason() is None
        os.kill(os.getpid(), number)
        assert stop.reason() == number.name
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before


def test_the_pause_file_asks_and_goes_when_honoured(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.pause.touch()
    with StopRequest(run) as stop:
        assert stop.reason() is None, "a file from before this run is removed"
        run.pause.touch()
        assert stop.reason() == ".pause"
        stop.honoured()
        assert not run.pause.exists()


def test_outside_the_main_thread_signals_are_left_alone(tmp_path: Path) -> None:
    seen = []

    def work() -> None:
        with StopRequest(RunDirectory(tmp_path)) as stop:
            seen.append(stop.reason())

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None] and signal.getsignal(signal.SIGINT) is before
