"""Which attention kernel is faster on this CPU: SDPA or plain matrix products (nn/matmul_attention.py).

    python benchmarks/attention.py [--quick] [--json] [--rounds N]

Forward and backward of one causal layer's attention, 6 heads of 64 on 8,192 positions in all, in float32 and
bfloat16, at several lengths. The two take turns; a ratio above 1 means that matrix products are faster. nn/attention
takes them on a CPU in half precision up to MATMUL_KEYS keys, so that is held to: at 256 and 512 keys in bfloat16 they
are at least as fast.
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

from ourospec.device import keep_freed_memory
from ourospec.nn.matmul_attention import matmul_attention
from ourospec.nn.visibility import Visibility

POSITIONS, HEADS, WIDTH = 8_192, 6, 64
HELD = {("bfloat16", 256): 1.0, ("bfloat16", 512): 1.0}


def time_of(kernel: Callable[[], Tensor]) -> float:
    """Seconds of one forward and backward."""
    begin = time.perf_counter()
    out = kernel()
    out.backward(torch.ones_like(out))
    return time.perf_counter() - begin


def compare(dtype: torch.dtype, length: int, rounds: int) -> Figure:
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
        kernel = time_of(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True))
        products = time_of(lambda: matmul_attention(q, k, v, bias, blocks))
        if turn:  # the first round warms up
            ratios.append(kernel / products)
    name = str(dtype).removeprefix("torch.")
    return spread(f"{name} T={length}: matmul speed / SDPA", ratios, at_least=HELD.get((name, length)))


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
    figures = [compare(dtype, length, rounds) for dtype in dtypes for length in lengths]
    return finish("attention", figures, machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
