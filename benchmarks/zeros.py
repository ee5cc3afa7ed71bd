"""How fast zeros of zeta are computed, beside python-flint and mpmath, and whether they are right.

    python benchmarks/zeros.py [--quick] [--json] [--runs N]

First the command as a user types it, `ouro zeros --count 2001052 --out FILE`, in a process of its own with an empty
cache: start, compilation, proofs and writing are in its seconds. "Compiled before" keeps numba's code and nothing else.
Then rates around zero number 1,000,000, in turns: ours on all cores and on one, python-flint (rigorous, one
core), mpmath (one core). At last 400 zeros at random against python-flint, and its count.

Held to: at most 45 s with compilation, differences of at most 2e-10, and the same count. Without python-flint or
mpmath their lines are left out. --quick: 200,000 zeros, one run, 40 compared.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from harness import Figure, finish, machine, spread

from ourospec.data.zeros import compute_zeros
from ourospec.data.zeros.compute import available_cores

ALL = 2_001_052
AROUND = 1_000_000
SAMPLES = {"ours, all cores": 50_000, "ours, one core": 25_000, "python-flint": 150, "mpmath": 3}
"""Zeros in a turn, so that each takes a moment."""


def command_seconds(count: int, folder: Path, code: Path) -> float:
    """Seconds of `ouro zeros` with an empty cache of zeros; `code` is where numba keeps what it compiles."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        words = [sys.executable, "-m", "ourospec.cli", "zeros", "--count", str(count), "--out"]
        environment = os.environ | {"NUMBA_CACHE_DIR": str(code), "XDG_CACHE_HOME": cache}
        begin = time.perf_counter()
        subprocess.run(
            [*words, str(folder / "zeros.npy")], env=environment, check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - begin


def contenders() -> dict[str, Callable[[int], Any]]:
    """Name -> a function that computes so many zeros from number AROUND on."""
    found: dict[str, Callable[[int], Any]] = {
        "ours, all cores": lambda count: compute_zeros(count, AROUND),
        "ours, one core": lambda count: compute_zeros(count, AROUND, workers=1),
    }
    flint, mpmath = installed("flint"), installed("mpmath")
    if flint:
        found["python-flint"] = lambda count: flint.acb.zeta_zeros(AROUND, count)
    if mpmath:
        found["mpmath"] = lambda count: [mpmath.zetazero(AROUND + k) for k in range(count)]
    return found


def installed(name: str) -> Any:
    """The module, or None."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def rates(turns: int) -> list[Figure]:
    """Zeros a second of each, and ours over the others', turn by turn."""
    pace: dict[str, list[float]] = {}
    for turn in range(turns + 1):
        for name, compute in contenders().items():
            begin = time.perf_counter()
            compute(SAMPLES[name])
            if turn:  # the first turn warms up
                pace.setdefault(name, []).append(SAMPLES[name] / (time.perf_counter() - begin))
    figures = [spread(f"zeros/s around number {AROUND:,}: {name}", values) for name, values in pace.items()]
    ours = pace["ours, one core"]
    for name in [name for name in ("python-flint", "mpmath") if name in pace]:
        ratios = [a / b for a, b in zip(ours, pace[name], strict=True)]
        figures.append(spread(f"ours, one core / {name}", ratios))
    return figures


def against_flint(heights: np.ndarray, number: int) -> list[Figure]:
    """Differences at random zeros, and the count below the last one."""
    if not installed("flint"):
        return []
    from ourospec.data.zeros.oracle import spot_check

    spots = spot_check(heights, 1, number)
    return [
        spread(
            f"largest of {spots.zeros} differences, 1e-10", [spots.largest_difference / 1e-10], at_most=2.0
        ),
        spread("python-flint counts as many (1: yes)", [float(spots.count_agrees)], at_least=1.0),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer zeros, one run")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    count, runs = (200_000, 1) if options.quick else (ALL, options.runs)
    cold, warm = [], []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for run in range(runs):
            code = folder / f"code-{run}"
            cold.append(command_seconds(count, folder, code))
            warm.append(command_seconds(count, folder, code))
        heights = np.load(folder / "zeros.npy")
    figures = [
        spread(f"seconds for {count:,} zeros, with compilation", cold, at_most=45.0),
        spread(f"seconds for {count:,} zeros, compiled before", warm),
        *rates(2 if options.quick else 5),
        *against_flint(heights, 40 if options.quick else 400),
    ]
    return finish("zeros", figures, machine() | {"used cores": available_cores()}, as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
