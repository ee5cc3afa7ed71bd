"""What the user sees when something goes wrong: one report, one exit code, no traceback."""

from __future__ import annotations

import errno
import os
import shlex
import sys

from ourospec.cli.program import as_typed, program
from ourospec.errors import Interrupted, OuroError, ResourceError

UNEXPECTED = 1


def report_failure(error: BaseException, command: list[str]) -> int:
    """Print what happened to stderr; returns the exit code.

    Args:
        error: what the verb raised.
        command: the arguments as typed, for the advice.
    """
    if isinstance(error, SystemExit):
        return exit_status(error)
    if isinstance(error, BrokenPipeError):
        # Whoever read us has gone (`ouro presets | head`): not a failure. What the interpreter would still
        # flush at its exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    known = error if isinstance(error, OuroError) else recognise(error)
    if known is None:
        again = shlex.join([program(), *command, "--debug"])
        say(f"{type(error).__name__}: {error}", "unexpected error")
        say(f"This is a defect of ouro. The traceback, for a report:  {again}")
        return UNEXPECTED
    say(as_typed(str(known)), "stopped" if isinstance(known, Interrupted) else "error")
    return known.exit_code


def exit_status(error: SystemExit) -> int:
    """The status that `sys.exit` was called with, a message printed."""
    if error.code is None or isinstance(error.code, int):
        return error.code or 0
    say(str(error.code))
    return UNEXPECTED


def recognise(error: BaseException) -> OuroError | None:
    """The user-level meaning of an exception from below, where it has one."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("Interrupted.")
    if out_of_memory(error):
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        return ResourceError(
            f"Out of memory: {first_line}",
            "Try a smaller --train.micro-batch-size (same result, less memory) or --train.window, in a new run (--run) "
            "if this one has begun; `ouro plan PRESET` shows what takes the memory.",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ResourceError(f"The disk is full: {error}", "Make room, or choose another disk: --run DIR")
    if isinstance(error, PermissionError) or (isinstance(error, OSError) and error.errno == errno.EROFS):
        return ResourceError(f"Not allowed: {error}", "Choose a place that you may write to with --run DIR.")
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, host's or device's. Torch's errors are known by name: it may not be loaded."""
    if isinstance(error, MemoryError) or any(c.__name__ == "OutOfMemoryError" for c in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(
        sign in str(error) for sign in ("can't allocate memory", "not enough memory", "CUDA out of memory")
    )


def say(text: str, label: str = "") -> None:
    """A line to stderr, its label in red where that is a terminal."""
    if label:
        red, plain = ("\033[1;31m", "\033[0m") if sys.stderr.isatty() else ("", "")
        text = f"{red}{label}:{plain} {text}"
    print(text, file=sys.stderr)
