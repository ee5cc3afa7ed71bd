"""Runs toy jobs in processes of their own, to be killed with SIGKILL. Started by the `killable` fixture.

PyTorch takes seconds to import, so it is imported once, here; each job runs in a fork made before this
process has computed anything. One JSON request a line on standard input, one JSON answer a line on standard
output. A request has `path`, `steps`, `save_every`, and may have
  delay: seconds after which the job is killed, from outside, wherever it is;
  optim: settings of the optimiser, in place of the toy's own;
  keep_best: the job keeps the weights of the least held-out loss;
  die_at_step: the job kills itself when it asks for the data of that step;
  die_at_call: the job kills itself just before its n-th call that changes the checkpoints on the disk;
  pace: seconds added to every step and to every fsync, so that both take their share of the time as they
    do on larger models and slower disks.
The answer has `killed`, and `calls`: how many such calls the job made, if it came to its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # the first optimiser of a process imports it: a second that every job would spend anew
from toy import ToyStream, toy_job

from ourospec.optim.config import OptimConfig
from ourospec.train.loop import fit

CHANGES = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove"}


class Fuse:
    """Counts what changes the checkpoint folder, and kills the process before a given change."""

    def __init__(self, folder: Path, die_at_call: int) -> None:
        self.calls, self.folder, self.die_at_call = 0, str(folder), die_at_call
        os.fsync = self.sync
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        # Deletions inside a folder come with a bare name and a descriptor.
        if event in CHANGES and (self.folder in str(arguments[0]) or event in ("os.rmdir", "os.remove")):
            self.burn()

    def sync(self, descriptor: int) -> None:
        """Takes the place of fsync, which only costs time here: a killed process takes no page cache along."""
        del descriptor
        self.burn()

    def burn(self) -> None:
        self.calls += 1
        if self.calls == self.die_at_call:
            os.kill(os.getpid(), signal.SIGKILL)


def slow_down_fsync(pace: float) -> None:
    """Give every fsync the time that it takes on a slower disk."""
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        time.sleep(pace)
        fsync(descriptor)

    os.fsync = slow


def work(request: dict[str, Any], answer: int) -> None:
    """In the fork: one call of fit."""
    torch.set_num_threads(1)
    path = Path(request["path"])
    fuse = Fuse(path / "checkpoints", request["die_at_call"]) if "die_at_call" in request else None
    pace = request.get("pace", 0.0)
    if pace:
        slow_down_fsync(pace)
    stream = ToyStream()

    def before_step(step: int) -> None:
        time.sleep(pace)
        if step == request.get("die_at_step"):
            os.kill(os.getpid(), signal.SIGKILL)

    stream.before_step = before_step
    changes: dict[str, Any] = {"optim": OptimConfig(**request["optim"])} if "optim" in request else {}
    changes["keep_best"] = request.get("keep_best", False)
    fit(toy_job(path, steps=request["steps"], save_every=request["save_every"], stream=stream, **changes))
    os.write(answer, json.dumps(0 if fuse is None else fuse.calls).encode())


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Fork, kill if asked to, and say what became of it."""
    hear, say = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work(request, say)
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    os.close(say)
    if "delay" in request:
        time.sleep(request["delay"])
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    with os.fdopen(hear) as answer:
        calls = answer.read()
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0:
        return {"error": f"the job ended with exit status {os.WEXITSTATUS(status)}"}
    return {"killed": os.WIFSIGNALED(status), "calls": int(calls or 0)}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(serve(json.loads(line))), flush=True)
