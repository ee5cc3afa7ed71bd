"""Which attention kernel is faster on this CPU: SDPA or plain matrix products (nn/matmul_attention.py).

    python benchmarks/attention.py [--quick] [--json] [--rounds N]

One causal layer's attention, forward and backward as in training, and forward alone: 6 heads of 64 on 8,192 positions
in all, in float32 and bfloat16, at several lengths. The two take turns; a ratio above 1 means that matrix products are
faster. nn/attention takes them on a CPU in half precision up to MATMUL_KEYS keys, and where there are AMX tiles not in
bfloat16 forward. What it chooses is held to at 256 and 512 keys: it is at least as fast as the other.
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
from ourospec.nn.matmul_attention import matmul_attention
from ourospec.nn.visibility import Visibility

POSITIONS, HEADS, WIDTH = 8_192, 6, 64
HELD = (256, 512)


def time_of(kernel: Callable[[], Tensor], training: bool) -> float:
    """Seconds of one forward, and in training of the backward pass, too."""
    with torch.set_grad_enabled(training):
        begin = time.perf_counter()
        out = kernel()
        if training:
            out.backward(torch.ones_like(out))
        return time.perf_counter() - begin


def compare(dtype: torch.dtype, length: int, training: bool, rounds: int) -> Figure:
    """How much faster matrix products are, round by round."""
    rows = POSITIONS // length
    # Heads first in memory, as the layers make them.
    q, k, v = (
        torch.randn(HEADS, rows, length, WIDTH, dtype=dtype, requires_grad=True).transpose(0, 1)
        for _ in range(3)
    )
    visibility = Visibility(length, q.device)
    bias, blocks = visibility.bias(0, dtype), tuple(visibility.blocks())
    ratios = []
    for turn in range(rounds + 1):
        kernel = time_of(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), training)
        products = time_of(lambda: matmul_attention(q, k, v, bias, blocks), training)
        if turn:  # the first round warms up
            ratios.append(kernel / products)
    name = f"{str(dtype).removeprefix('torch.')} T={length}, {'training' if training else 'forward'}"
    if dtype == torch.float32 or length not in HELD:
        return spread(f"{name}: matmul speed / SDPA", ratios)
    with torch.set_grad_enabled(training):
        products_chosen = matmul_attention_is_faster(q)
    bounds = {"at_least": 1.0} if products_chosen else {"at_most": 1.0}
    return spread(f"{name}: matmul speed / SDPA", ratios, **bounds)


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
    dtypes = (torch.float32, torch.bfloat16)
    figures = [
        compare(dtype, length, training, rounds)
        for training in (True, False)
        for dtype in dtypes
        for length in lengths
    ]
    return finish("attention", figures, machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
