"""Which attention kernel is faster on this CPU: torch's SDPA, plain matrix products, or our own in machine code.

    python benchmarks/attention.py [--quick] [--json] [--rounds N]

One causal layer's attention, forward and backward as in training, and forward alone: 6 heads of 64 on 8,192 positions
in all, in float32 and bfloat16, at several lengths. The three take turns; a ratio above 1 means that the first is
faster. Then the same where only three tenths of the queries are left, drawn at random, as in the passes after the
first: our kernel takes them as they are, torch's get them padded to the longest row, with a mask.

Matrix products (nn/matmul_attention.py) stand in for SDPA on a CPU in half precision up to MATMUL_KEYS keys, and where
there are AMX tiles not in bfloat16 forward. Our own (nn/ragged) takes all from 64 queries a row on, or 8 that are left,
where it can be compiled. At 256 and 512 keys what is chosen is held to: it is at least as fast as what it stands for.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from harness import Figure, finish, machine, spread
from torch import Tensor

from ourospec.device import keep_freed_memory, matmul_attention_is_faster
from ourospec.nn.compaction import Packed
from ourospec.nn.matmul_attention import matmul_attention
from ourospec.nn.ragged import knows, ragged_attention
from ourospec.nn.visibility import Visibility

POSITIONS, HEADS, WIDTH = 8_192, 6, 64
HELD = (256, 512)
ALIVE = 0.3

Kernels = dict[str, Callable[[], Tensor]]


def time_of(kernel: Callable[[], Tensor], training: bool) -> float:
    """Seconds of one forward, and in training of the backward pass, too."""
    with torch.set_grad_enabled(training):
        begin = time.perf_counter()
        out = kernel()
        if training:
            out.backward(torch.ones_like(out))
        return time.perf_counter() - begin


def by_turns(kernels: Kernels, training: bool, rounds: int) -> dict[str, list[float]]:
    """Seconds of each, round by round."""
    times: dict[str, list[float]] = {name: [] for name in kernels}
    for turn in range(rounds + 1):
        for name, kernel in kernels.items():
            taken = time_of(kernel, training)
            if turn:  # the first round warms up
                times[name].append(taken)
    return times


class Case:
    """Queries, keys and values of one layer, heads first in memory, as the layers make them."""

    def __init__(self, dtype: torch.dtype, length: int) -> None:
        torch.manual_seed(0)
        self.length, self.rows = length, POSITIONS // length
        shape = HEADS, self.rows, length, WIDTH
        self.q, self.k, self.v = (
            torch.randn(shape, dtype=dtype, requires_grad=True).transpose(0, 1) for _ in range(3)
        )
        self.visibility = Visibility(length, self.q.device)

    def whole(self) -> Kernels:
        """All queries."""
        q, k, v, seen = self.q, self.k, self.v, self.visibility
        bias, blocks, spans = seen.bias(0, q.dtype), tuple(seen.blocks()), seen.spans(0, self.rows)
        flat = q.transpose(0, 1).flatten(1, 2)
        return {
            "SDPA": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
            "matmul": lambda: matmul_attention(q, k, v, bias, blocks),
            "ours": lambda: ragged_attention(flat, k, v, spans),
        }

    def left(self) -> Kernels:
        """Three tenths of them."""
        k, v = self.k, self.v
        alive = torch.rand(self.rows, self.length) < ALIVE
        packed = Packed(alive, int(alive.sum()), int(alive.sum(1).max()), self.visibility).visibility
        q = self.q.detach().transpose(0, 1).flatten(1, 2)[:, packed.tokens].requires_grad_()[None]
        bias, blocks, spans = packed.bias(0, q.dtype), tuple(packed.blocks()), packed.spans(0, self.rows)
        padded = packed.by_row
        return {
            "SDPA": lambda: packed.side_by_side(F.scaled_dot_product_attention(padded(q), k, v, bias)),
            "matmul": lambda: packed.side_by_side(matmul_attention(padded(q), k, v, bias, blocks)),
            "ours": lambda: ragged_attention(q[0], k, v, spans),
        }


def compare(dtype: torch.dtype, length: int, training: bool, rounds: int) -> list[Figure]:
    """How much faster each is than what it stands for."""
    case, figures = Case(dtype, length), []
    for what, kernels in (("all", case.whole()), (f"{ALIVE} left", case.left())):
        name = (
            f"{str(dtype).removeprefix('torch.')} T={length}, {'training' if training else 'forward'}, {what}"
        )
        if not knows(case.q, case.k):
            del kernels["ours"]
        times = by_turns(kernels, training, rounds)
        ratios = [sdpa / products for sdpa, products in zip(times["SDPA"], times["matmul"], strict=True)]
        held = length in HELD and what == "all" and dtype != torch.float32
        with torch.set_grad_enabled(training):
            chosen = matmul_attention_is_faster(case.q)
        bounds = ({"at_least": 1.0} if chosen else {"at_most": 1.0}) if held else {}
        figures.append(spread(f"{name}: matmul speed / SDPA", ratios, **bounds))
        if "ours" in times:
            best = [min(pair) for pair in zip(times["SDPA"], times["matmul"], strict=True)]
            ratios = [theirs / ours for theirs, ours in zip(best, times["ours"], strict=True)]
            bounds = {"at_least": 1.0} if length in HELD else {}
            figures.append(spread(f"{name}: our speed / the faster of both", ratios, **bounds))
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two lengths, few rounds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    keep_freed_memory()
    lengths, rounds = ([256, 512], 5) if options.quick else ([128, 256, 512, 1024, 2048], options.rounds)
    figures = [
        figure
        for training in (True, False)
        for dtype in (torch.float32, torch.bfloat16)
        for length in lengths
        for figure in compare(dtype, length, training, rounds)
    ]
    return finish("attention", figures, machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
