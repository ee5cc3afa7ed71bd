"""What making puzzles costs beside training on them: a batch of 64 rows against a training step of a small model.

The step is that of a dense_lm 128 wide with 4 layers on the same 64 rows, without its optimiser; both in turn, on one
core. Held to a share that nobody would notice: for every task a tenth of the step at most.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from harness import Figure, finish, machine, spread

ROWS = 64
MOST = 0.1
"""Share of a step."""


def measure(rounds: int) -> list[Figure]:
    """The share for each task."""
    import torch

    from ourospec.contracts import Clock
    from ourospec.data.puzzles.arithmetic import AdditionTask, ModularTask
    from ourospec.data.puzzles.config import PuzzleSource
    from ourospec.data.puzzles.dataset import open_puzzles
    from ourospec.data.puzzles.lookup import CopyTask, NeedleTask, PointerTask, RecallTask
    from ourospec.data.puzzles.maze import MazeTask
    from ourospec.data.puzzles.stories import StoryTask
    from ourospec.data.puzzles.sudoku import SudokuTask
    from ourospec.families.dense_lm.presets import tiny

    torch.set_num_threads(1)
    recipe, figures = tiny(), []
    shape = recipe.model.model_copy(update={"width": 128, "mlp_hidden": 352, "max_length": 1024})
    recipe = recipe.model_copy(update={"model": shape})
    tasks = (
        *(PointerTask(), RecallTask(), NeedleTask(), CopyTask(), ModularTask(), AdditionTask(), StoryTask()),
        *(SudokuTask(size=4), SudokuTask(size=6), SudokuTask(size=9), MazeTask(), MazeTask(size=9)),
    )
    for task in tasks:
        dataset = open_puzzles(PuzzleSource(task=task, per_row=1), 0.05, "refuse")
        stream = dataset.stream(task.longest + 1, ROWS, ROWS, 0)
        model, objective = recipe.build_model(dataset.tokenizer), recipe.build_objective()
        shares = []
        # The first one compiles and warms up.
        for number in range(rounds + 1):
            start = time.process_time()
            batch: Any = stream.batches(number)[0]
            made = time.process_time()
            objective(model, batch, None, Clock(0, 1)).loss_sum.backward()
            shares.append((made - start) / (time.process_time() - made))
        figures.append(
            spread(f"{task.name}, {task.longest} bytes: share of a step", shares[1:], at_most=MOST)
        )
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="Fewer rounds.")
    parser.add_argument("--json", action="store_true", help="Print one JSON document.")
    options = parser.parse_args()
    return finish("puzzles", measure(3 if options.quick else 15), machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
