"""What long-term memory costs (nn/memory): in chunks, token by token, and beside softmax attention.

    python benchmarks/memory.py [--quick] [--json] [--rounds N]

Each kind of memory at its default size on states of width 256, 2,048 positions in all, in float32, at lengths of 512
and 2,048. Within a round the three take turns, forward alone and with its backward pass: the memory in chunks, the same
memory called once for every token with its state handed on, and a module of causal attention of 4 heads without a
window. A ratio above 1 means that chunks are faster; it is of processor time on one thread, which other work on the
machine disturbs little. Held to: chunks are at least 5 times as fast as single tokens, and at a length of
2,048 faster than attention. The last figures say which size of chunk is the fastest for training (1 is the default).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
from harness import Figure, finish, machine, spread
from torch import Tensor, nn

from ourospec.device import keep_freed_memory
from ourospec.nn.attention import Attention, AttentionConfig
from ourospec.nn.init import initialise
from ourospec.nn.memory import (
    DeltaMemoryConfig,
    EmaMemoryConfig,
    MemoryConfig,
    TitansMemoryConfig,
    build_memory,
)
from ourospec.nn.visibility import Visibility

POSITIONS, WIDTH = 2_048, 256
KINDS: tuple[MemoryConfig, ...] = (EmaMemoryConfig(), DeltaMemoryConfig(), TitansMemoryConfig())
SIZES = (16, 64, 128)

Reader = Callable[[Tensor], Tensor]


def in_chunks(config: MemoryConfig) -> Reader:
    """Whole rows at once."""
    memory = build_memory(config, WIDTH)
    initialise(memory, 1)
    return lambda y: memory(y)[0]


def token_by_token(config: MemoryConfig) -> Reader:
    """The same, a call for every position."""
    memory = build_memory(config, WIDTH)
    initialise(memory, 1)

    def read(y: Tensor) -> Tensor:
        state, outputs = None, []
        for t in range(y.shape[1]):
            out, state = memory(y[:, t : t + 1], state)
            outputs.append(out)
        return torch.cat(outputs, dim=1)

    return read


def attention() -> Reader:
    """A module of the same width that sees everything before."""
    module = Attention(WIDTH, AttentionConfig(heads=4))
    initialise(nn.ModuleList([module]), 1)
    return lambda y: module(y, Visibility(y.shape[1], y.device))


def time_of(read: Reader, y: Tensor, training: bool) -> float:
    """Seconds of the processor for one forward pass, and for its backward pass."""
    begin = time.process_time()
    with torch.set_grad_enabled(training):
        out = read(y)
        if training:
            out.backward(torch.ones_like(out))
    return time.process_time() - begin


def ratios(readers: list[Reader], y: Tensor, training: bool, rounds: int) -> list[list[float]]:
    """By which the first is faster than each of the others, round by round."""
    found: list[list[float]] = [[] for _ in readers[1:]]
    for turn in range(rounds + 1):
        first, *others = (time_of(read, y, training) for read in readers)
        if turn:  # the first round warms up
            for ratio, other in zip(found, others, strict=True):
                ratio.append(other / first)
    return found


def compare(config: MemoryConfig, length: int, rounds: int) -> list[Figure]:
    """One kind at one length."""
    y = torch.randn(POSITIONS // length, length, WIDTH)
    readers = [in_chunks(config), token_by_token(config), attention()]
    figures = []
    for training in (False, True):
        name = f"{config.kind} T={length} {'training' if training else 'forward'}: chunks / "
        steps, softmax = ratios(readers, y, training, rounds)
        figures.append(spread(name + "token by token", steps, at_least=5.0))
        figures.append(spread(name + "attention", softmax, at_least=1.0 if length >= 2_048 else None))
    return figures


def compare_sizes(config: MemoryConfig, rounds: int) -> list[Figure]:
    """Other sizes of chunk beside the default, in training at a length of 512."""
    y = torch.randn(POSITIONS // 512, 512, WIDTH)
    readers = [in_chunks(config), *(in_chunks(config.model_copy(update={"chunk": size})) for size in SIZES)]
    found = ratios(readers, y, True, rounds)
    return [
        spread(
            f"{config.kind} T=512 training: {size} a chunk / {config.chunk}", [1 / ratio for ratio in each]
        )
        for size, each in zip(SIZES, found, strict=True)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one length, few rounds, the default chunks")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    keep_freed_memory()
    lengths, rounds = ((512,), 3) if options.quick else ((512, 2_048), options.rounds)
    figures = [figure for length in lengths for config in KINDS for figure in compare(config, length, rounds)]
    if not options.quick:
        figures += [figure for config in KINDS[1:] for figure in compare_sizes(config, rounds)]
    return finish("memory", figures, machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
