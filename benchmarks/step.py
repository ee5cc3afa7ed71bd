"""How the compiled step's matrix products compare with torch's, by the number of rows that are decoded together.

    python benchmarks/step.py [--quick] [--json] [--rounds N]

One thread each, the four matrices of a layer 384 wide, in float32 and 8 bits. The two take turns; a ratio above 1 means
that the compiled product is faster. Processor time of the thread is taken, so that company on the machine counts less.
The stepper declines more than ROWS_AT_MOST rows, so up to there it is held to be at least as fast as torch in float32.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from harness import Figure, finish, machine, spread

from ourospec.nn.quantise import quantise_rows
from ourospec.nn.step.kernels import multiply
from ourospec.nn.step.stepper import ROWS_AT_MOST

SHAPES = ((1_152, 384), (384, 384), (2_048, 384), (384, 1_024))


def time_of(product: Callable[[], object], calls: int) -> float:
    """Seconds of one call."""
    begin = time.thread_time()
    for _ in range(calls):
        product()
    return (time.thread_time() - begin) / calls


def layer(rows: int, weights: str) -> tuple[Callable[[], object], Callable[[], object]]:
    """A layer's products for so many rows: compiled, and by torch in float32."""
    matrices = [torch.randn(shape) for shape in SHAPES]
    inputs = [torch.randn(rows, shape[1]) for shape in SHAPES]
    packed = []
    for matrix in matrices:
        codes, scales = quantise_rows(matrix)
        if weights == "float32":
            codes, scales = matrix, torch.ones(len(matrix))
        packed.append((codes.numpy(), scales.numpy(), np.empty((rows, len(matrix)), np.float32)))
    every = np.arange(rows)

    def compiled() -> None:
        for (matrix, scales, out), x in zip(packed, inputs, strict=True):
            multiply(matrix, scales, x.numpy(), every, rows, out)

    def plain() -> None:
        for matrix, x in zip(matrices, inputs, strict=True):
            F.linear(x, matrix)

    return compiled, plain


def compare(rows: int, weights: str, rounds: int) -> Figure:
    """How much faster the compiled products are, round by round."""
    compiled, plain = layer(rows, weights)
    ratios = []
    for turn in range(rounds + 1):
        ours, theirs = time_of(compiled, 20), time_of(plain, 20)
        if turn:  # the first round compiles
            ratios.append(theirs / ours)
    held = 1.0 if weights == "float32" and rows <= ROWS_AT_MOST else None
    return spread(f"{weights} {rows} rows: compiled speed / torch float32", ratios, at_least=held)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 5 if options.quick else options.rounds
    figures = [
        compare(rows, weights, rounds) for weights in ("float32", "int8") for rows in (1, 2, 3, 8, 32, 64)
    ]
    return finish("step", figures, machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
