"""What watching costs: time per training step with every observer on, against none, and whether the weights are equal.

    python benchmarks/telemetry.py [--quick] [--json] [--preset adaptive_lm/tiny] [--turns N]

Two processes train the same preset from the same seed, without evaluations, samples and checkpoints. One has no
observer; the other writes events.jsonl, train.log, stats.json, TensorBoard and Weights & Biases (offline), and draws
the live console for nobody. They take turns of a few steps each, so that a slow spell of the machine meets both; the
ratio is taken turn by turn, over the same steps of the same run. The first turn, with the start in it, does not count.

Held to: at most 3% more time, and equal weights, bit for bit, at the end. Exits with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from harness import Figure, finish, machine, spread

MOST = 1.03
ARMS = ("none", "all")


class Turns:
    """A stream that lets the other process go first at the beginning of every turn, and tells how long one took."""

    def __init__(self, stream: Any, pipe: Connection, length: int) -> None:
        self.stream, self.pipe, self.length = stream, pipe, length
        self.began = 0.0

    @property
    def fingerprint(self) -> str:
        return self.stream.fingerprint

    def batches(self, step: int) -> Sequence[Any]:
        """The batches of a step; waits for its turn first."""
        if step % self.length == 0:
            self.pipe.send(time.perf_counter() - self.began)
            self.pipe.recv()
            self.began = time.perf_counter()
        return self.stream.batches(step)


class Terminal(io.TextIOBase):
    """A terminal that nobody looks at; what is drawn is drawn, and gone."""

    encoding = "utf-8"

    def write(self, s: str) -> int:
        return len(s)

    def isatty(self) -> bool:
        return True


def every_observer(run: Any) -> list[Any]:
    """All that `ouro train --tensorboard --wandb` tells of its steps."""
    from ourospec.telemetry.console import ConsoleObserver
    from ourospec.telemetry.jsonl import JsonlObserver
    from ourospec.telemetry.log_file import LogFile
    from ourospec.telemetry.stats_file import StatsFile
    from ourospec.telemetry.tensorboard import TensorBoardObserver
    from ourospec.telemetry.wandb import WandbObserver

    os.environ["TERM"] = "xterm-256color"  # or rich would not draw
    console: Any = Terminal()
    return [
        JsonlObserver(run),
        LogFile(run),
        StatsFile(run),
        TensorBoardObserver(run),
        WandbObserver(run, "offline"),
        ConsoleObserver(console),
    ]


def train_arm(pipe: Connection, arm: str, folder: str, preset: str, turns: int, length: int) -> None:
    """In the arm's own process: train, turn by turn, and at the end say what came out."""
    import torch

    from ourospec import api
    from ourospec.runs import RunDirectory
    from ourospec.train.loop import fit

    recipe = api.presets()[preset]()
    # One step more than the turns have, at whose beginning the last turn's time is told.
    steps = turns * length + 1
    train = recipe.train.model_copy(update={"steps": steps, "save_every": steps})
    recipe = recipe.model_copy(update={"train": train})
    run = RunDirectory(Path(folder) / arm)
    job = recipe.assemble(run, every_observer(run) if arm == "all" else [])
    fit(dataclasses.replace(job, probes=[], stream=Turns(job.stream, pipe, length)))
    digest = hashlib.sha256()
    for name, tensor in sorted(job.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    pipe.send(digest.hexdigest())


def measure(preset: str, turns: int, length: int) -> list[Figure]:
    """Both arms from start to end, taking turns."""
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for arm in ARMS:
            pipes[arm], theirs = context.Pipe()
            arguments = (theirs, arm, folder, preset, turns, length)
            context.Process(target=train_arm, args=arguments).start()
            theirs.close()
            pipes[arm].recv()  # it is ready: prepared the text, and built the model
        seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
        for turn in range(turns):
            # Who goes first changes, so that what one leaves behind for a moment does not always meet the other.
            for arm in ARMS if turn % 2 else reversed(ARMS):
                pipes[arm].send("go")
                seconds[arm].append(pipes[arm].recv() / length)
        for pipe in pipes.values():
            pipe.send("go")
        digests = {pipe.recv() for pipe in pipes.values()}
    counted = {arm: times[1:] for arm, times in seconds.items()}
    ratios = [watched / alone for alone, watched in zip(counted["none"], counted["all"], strict=True)]
    return [
        spread(f"{preset} ms/step, no observer", [1e3 * s for s in counted["none"]]),
        spread(f"{preset} ms/step, every observer", [1e3 * s for s in counted["all"]]),
        spread(f"{preset} time, every observer / none", ratios, at_most=MOST),
        spread("weights equal at the end (1: yes)", [float(len(digests) == 1)], at_least=1.0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few and short turns: about a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--preset", default="adaptive_lm/tiny")
    parser.add_argument("--turns", type=int, default=12)
    options = parser.parse_args()
    turns, length = (4, 5) if options.quick else (options.turns, 20)
    figures = measure(options.preset, turns, length)
    return finish("telemetry", figures, machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
