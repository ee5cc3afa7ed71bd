"""What leaving early saves: passes after the first, masked (all computed, the gone ignored) against compacted.

One layer with four passes. A share of the tokens, drawn at random, runs all of them, the rest only the first; gates are
asked after each pass but the last, and weigh. Time of the passes after the first = time of the layer − time of the
layer when all leave after one pass and its gate.
"masked" is what one has without us: all tokens computed, attention by torch's fastest kernel. "masked here" computes
them with our kernel, where there is one (nn/ragged): beside it stands what is gained by leaving alone. "auto" is what
the model does unless told otherwise: a cost model chooses by pass. Held to: at 0.3 alive, 2.8 times masked in float32
and 2.4 in bfloat16 forward, 2.7 in training; with everyone alive at most 5% slower than masked here; what autograd
keeps at 0.3 alive is less than masked.

    python benchmarks/compaction.py [--quick | --held] [--json] [--tokens N] [--threads N] [--rounds N]

Small batches gain less where arithmetic is fast: a matrix product of a few hundred rows runs at half its speed (AMX).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import time
from collections.abc import Callable

import torch
from harness import Figure, finish, machine, spread

from ourospec.contracts import Effort
from ourospec.device import keep_freed_memory
from ourospec.measure.cost import SavedBytes
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.compaction import Execution, execute
from ourospec.nn.depth import AdaptiveLayer, DepthConfig
from ourospec.nn.init import initialise
from ourospec.nn.ragged import torch_only
from ourospec.nn.visibility import Visibility

PASSES = 4
TOKENS = 8_192
"""In a batch: 32 x 256 or 16 x 512."""
HELD = {("float32", "forward"): 2.8, ("bfloat16", "forward"): 2.4}
HELD_TRAINING = 2.7
WAYS: dict[str, tuple[Execution, bool]] = {
    "masked": ("masked", True),
    "masked here": ("masked", False),
    "compacted": ("compacted", False),
    "auto": ("auto", False),
}
"""Name -> how passes are computed, and whether by torch's kernels only."""


class Case:
    """One layer at one size, in one type, forward alone or with its backward pass."""

    def __init__(self, width: int, length: int, dtype: str, direction: str, tokens: int) -> None:
        torch.manual_seed(0)
        self.direction, self.dtype = direction, getattr(torch, dtype)
        scales = (1.0,) * PASSES
        depth = DepthConfig(max_passes=PASSES, scales=scales, threshold=0.5, learned_passes=True)
        self.layer = AdaptiveLayer(width, AttentionConfig(heads=width // 64), width * 8 // 3, "swiglu", depth)
        initialise(self.layer, residual_branches=8)
        self.h = torch.randn(tokens // length, length, width)
        self.name = f"{width} wide, T {length}, {dtype}, {direction}"

    def run(self, alive: float) -> Callable[[], None]:
        """A call with this share of the tokens running all passes; 0 for one pass everywhere."""
        chosen = torch.rand(self.h.shape[:2], generator=torch.Generator().manual_seed(1)) < alive
        effort = Effort(plan=1 + (PASSES - 1) * chosen)

        def call() -> None:
            training = self.direction == "training"
            with (
                torch.set_grad_enabled(training),
                torch.autocast("cpu", torch.bfloat16, self.dtype == torch.bfloat16),
            ):
                # Made anew in each call: the mask belongs to a batch.
                y = self.layer(self.h, Visibility(self.h.shape[1], self.h.device), effort)[0]
            if training:
                y.sum().backward()

        return call

    def compare(self, alive: float, rounds: int) -> list[Figure]:
        """Speeds of the later passes."""
        one, all_passes = self.run(0), self.run(alive)
        later: dict[str, list[float]] = {name: [] for name in WAYS}
        names = list(WAYS)
        for number in range(rounds + 1):
            firsts = {}
            for plain in (True, False):
                with torch_only() if plain else contextlib.nullcontext():
                    firsts[plain] = seconds(one)
            # In turns, since what came before is felt in the caches and in the memory that lies ready.
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                how, plain = WAYS[name]
                with execute(self.layer, how), torch_only() if plain else contextlib.nullcontext():
                    taken = seconds(all_passes) - firsts[plain]
                if number:  # the first round warms up
                    later[name].append(max(taken, 1e-9))

        def speed(name: str, other: str, bound: float | None = None) -> Figure:
            ratios = [theirs / ours for ours, theirs in zip(later[name], later[other], strict=True)]
            return spread(f"{self.name}, alive {alive}: {name} / {other}", ratios, at_least=bound)

        return [
            speed("auto", "masked", self.bound() if alive == 0.3 else None),
            speed("auto", "masked here", 1 / 1.05 if alive == 1.0 else None),
            speed("compacted", "masked here"),
        ]

    def kept(self, alive: float, how: Execution) -> int:
        """Bytes that autograd keeps for the backward pass."""
        with execute(self.layer, how), SavedBytes(self.layer) as saved:
            self.run(alive)()
        return saved.total

    def bound(self) -> float:
        """What auto is held to at 0.3."""
        return (
            HELD_TRAINING
            if self.direction == "training"
            else HELD[str(self.dtype).removeprefix("torch."), "forward"]
        )


def seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one size, one share: under a minute")
    parser.add_argument("--held", action="store_true", help="all sizes, but only the shares that are held")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--tokens", type=int, default=TOKENS, help=f"in a batch; default {TOKENS}")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0: as many as it takes by itself")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    keep_freed_memory()
    sizes = [(384, 256)] if options.quick else list(itertools.product((384, 768), (256, 512)))
    held = (0.3,) if options.quick else (1.0, 0.3)
    shares = held if options.quick or options.held else (1.0, 0.75, 0.5, 0.3, 0.15, 0.05)
    rounds = 2 if options.quick else options.rounds
    figures: list[Figure] = []
    for (width, length), dtype, direction in itertools.product(
        sizes, ("float32", "bfloat16"), ("forward", "training")
    ):
        case = Case(width, length, dtype, direction, options.tokens)
        for alive in shares:
            # With everyone alive two runs of one code are told apart from 5%: that takes more of them.
            figures += case.compare(alive, 2 * rounds + 1 if alive == 1.0 else rounds)
        if direction == "training":
            share = case.kept(0.3, "auto") / case.kept(0.3, "masked")
            figures.append(spread(f"{case.name}, alive 0.3: memory kept / masked", [share], at_most=1.0))
    return finish("compaction: speed of the passes after the first", figures, machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
