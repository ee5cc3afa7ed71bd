"""What recursion and memory are worth on puzzles, beside models of the same parameters and of the same compute.

Parts, each a table of rows trained from scratch, `--seeds` times:

    pointer         chasing pointers, up to 4 hops: 5 loops, 1 loop, plain decoders. Held to: 98% and under 80%
    recall          8 pairs through a window of 8: delta memory, an average, none. Held to: 99%, under 40%, under 10%
    sudoku          6 x 6: after 8 steps and after the first. Held to: 15 points more
    halting         pointer and sudoku, halting by head beside all steps. Held to: time 0.7, 0.005 lost at most,
                    more steps for the hardest than for the easiest
    special         three specialisations on the same puzzles. Held to: depth speed < memory < reasoning
    optimisers      steps to 95% on modular addition: AdamW, Grokfast, Muon, MuGrokfast. No bound
    text            tiny_reasoning on the embedded corpus. Held to: below a bigram and a unigram table

Exact match of pointers is of lists with a single question, so that no answer stands in the text already.
Runs are kept in --runs: the same command goes on after a kill.

    python benchmarks/recursion.py [--quick] [--json] [--part NAME ...] [--seeds N] [--threads N] [--runs DIR]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import Figure, finish, machine, spread
from recursion_rows import OPTIMISERS, TEXT_TABLES, Row, optimiser_row, rows_of, special_rows, text_row

from ourospec import api
from ourospec.contracts import Effort
from ourospec.data.text import TextData, open_text
from ourospec.loaded_model import LoadedModel
from ourospec.measure.answers import score_answers
from ourospec.recipe import TextRecipe
from ourospec.runs import RunDirectory

ROUNDS = 3
SURE = {"pointer": None, "sudoku": Effort(threshold=0.001)}
"""When heads are believed: as they were trained, and surer, since a grid is right when all of its cells are."""
BATCH_ROWS = 256
MANY = 4_000
"""Puzzles where half a point is to be told from none; 1,000 elsewhere."""


class Bench:
    """Trains rows, each once, and asks them."""

    def __init__(self, runs: Path, seeds: int, quick: bool) -> None:
        self.runs, self.seeds, self.quick = runs, 1 if quick else seeds, quick

    def train(self, name: str, recipe: TextRecipe, seed: int) -> LoadedModel:
        """The trained model; a run that is there already goes on or is taken as it is."""
        if self.quick:
            few = {"steps": 8, "eval_every": 0, "sample_every": 0, "batch_size": 8, "micro_batch_size": 8}
            recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=few)})
        recipe = recipe.model_copy(update={"seed": seed})
        path = self.runs / f"{name}-{seed}".replace(" ", "_")
        began = time.perf_counter()
        api.train(recipe, path)
        print(f"# {path.name}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        return api.load(path)

    def exact(self, row: Row, *, effort: Effort | None = None) -> list[float]:
        """Exact match of each seed."""
        return [self.ask(row, seed, effort)["exact_match"] for seed in range(self.seeds)]

    def ask(self, row: Row, seed: int, effort: Effort | None = None) -> Mapping[str, Any]:
        """Figures on the row's questions."""
        return self.train(row.name, row.recipe, seed).evaluate(self.asked(row), effort=effort)

    def asked(self, row: Row, examples: int = 1_000) -> TextData:
        """What is asked; few puzzles where it has to be quick."""
        data = row.asked or row.recipe.data
        source = data.source.model_copy(update={"heldout_examples": 30 if self.quick else examples})
        return data.model_copy(update={"source": source})


def compare(bench: Bench, part: str) -> list[Figure]:
    """Exact match of every row of a part, over the seeds."""
    return [
        spread(f"{part}: {row.name}", bench.exact(row), at_least=row.at_least, at_most=row.at_most)
        for row in rows_of(part)
    ]


def sudoku(bench: Bench) -> list[Figure]:
    """Beside the rows, what the steps of one model come to."""
    first, *others = rows_of("sudoku")
    steps = first.recipe.model.recursion.steps  # pyright: ignore[reportAttributeAccessIssue]
    by_step = {k: bench.exact(first, effort=Effort(forced_passes=k)) for k in (1, 2, 4, steps)}
    figures = [spread(f"sudoku: {first.name}, after step {k}", values) for k, values in by_step.items()]
    gains = [last - one for last, one in zip(by_step[steps], by_step[1], strict=True)]
    figures.append(spread(f"sudoku: after step {steps} less after step 1", gains, at_least=0.15))
    return figures + [spread(f"sudoku: {row.name}", bench.exact(row)) for row in others]


def halting(bench: Bench) -> list[Figure]:
    """Halting by head beside running every step: time, exact match, and whether hard ones take longer."""
    figures = []
    for part, sure in SURE.items():
        row = rows_of(part)[0]
        steps = row.recipe.model.recursion.steps  # pyright: ignore[reportAttributeAccessIssue]
        times, lost, slopes, depths = [], [], [], []
        # Made once: a grid with one solution takes longer to make than to solve.
        puzzles = list(open_text(bench.asked(row, MANY)).heldout.documents())
        for seed in range(bench.seeds):
            model = bench.train(row.name, row.recipe, seed)
            (free, full), (short, long) = _solve(model, puzzles, [sure, Effort(forced_passes=steps)])
            times.append(short / long)
            lost.append(full["exact_match"] - free["exact_match"])
            depths.append(free["mean_passes"])
            bins = free["tasks"][0]["bins"]
            slopes.append(bins[-1]["mean_passes"] - bins[0]["mean_passes"])
        figures += [
            spread(f"halting: {part}, time / time of {steps} steps", times, at_most=0.7),
            spread(f"halting: {part}, exact match lost", lost, at_most=0.005),
            spread(f"halting: {part}, steps of an answer", depths),
            spread(f"halting: {part}, steps of the hardest less of the easiest", slopes, at_least=0.0),
        ]
    return figures


def _solve(
    model: LoadedModel, puzzles: Sequence[Any], efforts: Sequence[Effort | None]
) -> tuple[list[Mapping[str, Any]], list[float]]:
    """By effort what became of the puzzles, and the least of some rounds' times in seconds, taken in turns."""
    found: list[Mapping[str, Any]] = [{} for _ in efforts]
    times = [float("inf") for _ in efforts]
    for index, effort in list(enumerate(efforts)) * ROUNDS:
        began = time.perf_counter()
        scores = score_answers(model.model, puzzles, model.tokenizer.end_id, model.policy, BATCH_ROWS, effort)
        times[index] = min(times[index], time.perf_counter() - began)
        found[index] = scores.summary()
    return found, times


def special(bench: Bench) -> list[Figure]:
    """Mean steps of the three specialisations on the same puzzles."""
    depths: dict[str, list[float]] = {}
    figures = []
    for row in special_rows():
        found = [bench.ask(row, seed) for seed in range(bench.seeds)]
        depths[row.name] = [figures["mean_passes"] for figures in found]
        figures.append(spread(f"special: {row.name}, exact match", [f["exact_match"] for f in found]))
        figures.append(spread(f"special: {row.name}, steps of an answer", depths[row.name]))
    for shorter, longer in (("speed", "memory"), ("memory", "reasoning")):
        more = [b - a for a, b in zip(depths[shorter], depths[longer], strict=True)]
        figures.append(spread(f"special: steps of {longer} less of {shorter}", more, at_least=0.01))
    return figures


def optimisers(bench: Bench) -> list[Figure]:
    """Optimiser steps until 95% of held-out sums are right; the length of the run where they never are."""
    figures = []
    for name in OPTIMISERS:
        row, found = optimiser_row(name), []
        for seed in range(bench.seeds):
            model = bench.train(row.name, row.recipe, seed)
            found.append(_steps_to(model.run, 0.95, model.recipe.train.steps))
        figures.append(spread(f"optimisers: {name}, steps to 95%", found))
        figures.append(spread(f"optimisers: {name}, exact match at the end", bench.exact(row)))
    return figures


def _steps_to(run: RunDirectory, share: float, never: int) -> int:
    reached = [
        event["step"]
        for event in run.read_events()
        if event["kind"] == "eval" and event["exact_match"] >= share
    ]
    return min(reached, default=never)


def text(bench: Bench) -> list[Figure]:
    """Held-out bits per byte of the embedded corpus, beside tables of the same training text."""
    row = text_row()
    tokens = 2_000 if bench.quick else 60_000
    found = [
        bench.train(row.name, row.recipe, seed).evaluate(most_tokens=tokens)["bits_per_byte"]
        for seed in range(bench.seeds)
    ]
    figures = []
    for name, table in TEXT_TABLES.items():
        bits = table(row.recipe.data, tokens)
        figures.append(spread(f"text: {name} table, bits per byte", [bits]))
        figures.append(
            spread(f"text: tiny_reasoning / {name} table", [own / bits for own in found], at_most=1.0)
        )
    return [spread("text: tiny_reasoning, bits per byte", found), *figures]


PARTS: dict[str, Callable[[Bench], Sequence[Figure]]] = {
    "pointer": lambda bench: compare(bench, "pointer"),
    "recall": lambda bench: compare(bench, "recall"),
    "sudoku": sudoku,
    "halting": halting,
    "special": special,
    "optimisers": optimisers,
    "text": text,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="eight steps a row: to see that everything runs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="only these; may be given several times"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=Path, default=None, help="[runs/recursion, runs/recursion-quick]")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = options.runs or Path("runs") / ("recursion-quick" if options.quick else "recursion")
    bench = Bench(runs, options.seeds, options.quick)
    figures: list[Figure] = []
    for part in options.part or PARTS:
        figures += PARTS[part](bench)
    code = finish("recursion", figures, machine(), as_json=options.json)
    return 0 if options.quick else code


if __name__ == "__main__":
    sys.exit(main())
