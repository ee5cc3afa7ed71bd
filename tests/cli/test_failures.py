"""Every kind of failure has its exit code and its report; none shows a traceback unasked."""

import errno

import pytest
import torch

from ourospec import cli, errors
from ourospec.cli import failures


def fail_with(monkeypatch, error):
    def dispatch(arguments):
        raise error

    monkeypatch.setattr(cli, "dispatch", dispatch)


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.ConfigError, 2),
        (errors.DataError, 3),
        (errors.ResourceError, 4),
        (errors.DivergedError, 5),
        (errors.Interrupted, 130),
    ],
)
def test_exit_codes_and_both_halves_of_the_report(monkeypatch, capsys, kind, code):
    fail_with(monkeypatch, kind("It went wrong.", "Try this."))
    assert cli.main(["train"]) == code
    printed = capsys.readouterr()
    assert "It went wrong.\nTry this." in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"
        ),
    ],
)
def test_memory_running_out_is_a_resource_with_advice(monkeypatch, capsys, error):
    fail_with(monkeypatch, error)
    assert cli.main(["train"]) == 4
    advice = capsys.readouterr().err
    # Another micro-batch is another recipe, which the directory of this run would refuse.
    assert "--train.micro-batch-size" in advice and "new run (--run)" in advice


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_disks_that_are_full_or_closed_are_resources(monkeypatch, capsys, number):
    fail_with(monkeypatch, OSError(number, "what the system says", "some/file"))
    assert cli.main(["train"]) == 4
    assert "some/file" in capsys.readouterr().err


def test_an_interrupt_anywhere_ends_with_130(monkeypatch, capsys):
    fail_with(monkeypatch, KeyboardInterrupt())
    assert cli.main(["evaluate"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_defect_is_one_line_and_how_to_see_more(monkeypatch, capsys):
    fail_with(monkeypatch, ZeroDivisionError("division by zero"))
    assert cli.main(["plan", "a b"]) == failures.UNEXPECTED
    err = capsys.readouterr().err
    assert "ZeroDivisionError: division by zero" in err
    assert "plan 'a b' --debug" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), errors.DataError("x")])
def test_debug_shows_the_traceback_and_keeps_the_code(monkeypatch, capsys, error):
    fail_with(monkeypatch, error)
    code = cli.main(["plan"])
    capsys.readouterr()
    assert cli.main(["plan", "--debug"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_other_runtime_errors_are_not_taken_for_memory():
    assert failures.recognise(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
