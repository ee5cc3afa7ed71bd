"""Whether gates tell easy from hard: mean depth on repeated lines and on fresh text, at one budget.

Each document alternates between spans of lines from the standard library (hard) and one line of a small pool, repeated
(easy). A small model is trained on such text with each way of teaching its gates and then held to the budget by its
threshold; the passes of held-out tokens are counted by the kind of span that the predicted token stands in.
About half an hour on 2 cores.
"""

from __future__ import annotations

import argparse
import random
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from harness import Figure, finish, machine, spread

if TYPE_CHECKING:
    from ourospec.families.adaptive_lm.recipe import AdaptiveRecipe

ARMS = ("gain", "no stake", "no credit")
"""adaptive_lm/tiny as it is; without a share of what is at stake; and with a price in the loss alone."""
BUDGET = 1.3
LEAST_GAP = 0.2
POOL = 16
"""Lines that are repeated, the same in all documents."""


class Span(NamedTuple):
    text: str
    easy: bool


def compose(lines: list[str], pool: list[str], rng: random.Random, spans: int = 12) -> list[Span]:
    """One document."""
    found: list[Span] = []
    for _ in range(spans):
        if rng.random() < 0.5:
            found.append(Span(rng.choice(pool) * rng.randint(4, 10), easy=True))
        else:
            start = rng.randrange(len(lines) - 12)
            found.append(Span("".join(lines[start : start + rng.randint(4, 10)]), easy=False))
    return found


def corpus(documents: int, seed: int) -> list[list[Span]]:
    """Documents made of the standard library's own lines, of 20 to 80 characters."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    lines: list[str] = []
    for path in sorted(folder.glob("*.py")):
        text = path.read_text(encoding="utf-8", errors="ignore")
        lines += [line + "\n" for line in text.splitlines() if len(line.strip()) >= 20 and len(line) <= 80]
    pool = random.Random(0).sample(lines, POOL)
    rng = random.Random(seed)
    return [compose(lines, pool, rng) for _ in range(documents)]


def recipe_for(arm: str, folder: Path, seed: int, steps: int) -> AdaptiveRecipe:
    """adaptive_lm/tiny at half its width, on the folder's texts, with the arm's way of teaching gates."""
    from ourospec.data.files import FilesSource
    from ourospec.data.tokenizers import BpeConfig
    from ourospec.families.adaptive_lm.credit import GainConfig, NoCreditConfig
    from ourospec.families.adaptive_lm.presets import tiny

    base = tiny()
    depth, objective = base.model.depth, base.objective
    if arm == "no stake":
        objective = objective.model_copy(update={"credit": GainConfig(stake=0.0)})
    elif arm == "no credit":
        objective = objective.model_copy(update={"credit": NoCreditConfig()})
        depth = depth.model_copy(update={"weight": "survival", "threshold": 0.1})
    model = base.model.model_copy(update={"width": 128, "mlp_hidden": 352, "depth": depth})
    tokenizer, source = BpeConfig(vocab_size=1_024), FilesSource(paths=(str(folder),))
    quiet = {"steps": steps, "sample_every": 0, "eval_every": 0, "save_every": steps}
    return base.model_copy(
        update={
            "seed": seed,
            "model": model,
            "objective": objective,
            "data": base.data.model_copy(update={"source": source, "tokenizer": tokenizer}),
            "train": base.train.model_copy(update=quiet),
        }
    )


class Reader:
    """A trained model over held-out documents, with the kind of each predicted token."""

    def __init__(self, run: Path, documents: list[list[Span]]) -> None:
        import torch

        import ourospec

        self.model = ourospec.load(run)
        window = self.model.recipe.train.window
        rows, kinds = [], []
        for spans in documents:
            ids = self.model.tokenizer.encode("".join(span.text for span in spans))
            easy = np.concatenate([np.full(len(span.text.encode()), span.easy) for span in spans])
            ends = np.cumsum([len(self.model.tokenizer.token_bytes(token)) for token in ids])
            for start in range(0, len(ids) - window, window):
                rows.append(ids[start : start + window + 1])
                # The first byte of a target comes where the token before it ends.
                kinds.append(easy[ends[start : start + window]])
        self.tokens, self.easy = torch.tensor(rows), np.stack(kinds)

    def read(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Passes [L, N, T] and nats [N, T] of every predicted token."""
        import torch

        from ourospec.contracts import Effort

        loaded, passes, nats = self.model, [], []
        for part in self.tokens.split(16):
            with loaded.policy.inference(loaded.model):
                output = loaded.model(part[:, :-1], effort=Effort(threshold=threshold))
                nats.append(loaded.model.head.judge(output.states, part[:, 1:])[0].float())
                passes.append(output.passes)
        return torch.cat(passes, dim=1).numpy(), torch.cat(nats).numpy()

    def at_budget(self, budget: float) -> tuple[np.ndarray, np.ndarray]:
        """The same at the threshold whose mean depth meets the budget on these documents."""
        low, high = 0.0, 1.0
        for _ in range(14):
            middle = (low + high) / 2
            low, high = (middle, high) if self.read(middle)[0].mean() > budget else (low, middle)
        return self.read(high)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--quick", action="store_true", help="one seed, few steps, held to nothing: under a minute"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each arm")
    parser.add_argument("--steps", type=int, default=500, help="optimiser steps of each run")
    parser.add_argument("--out", type=Path, help="keep the runs here, and go on with those that are there")
    options = parser.parse_args()
    import ourospec

    seeds, steps = (1, 20) if options.quick else (options.seeds, options.steps)
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.out or Path(scratch)).resolve()
        text = folder / "text"
        text.mkdir(parents=True, exist_ok=True)
        for number, spans in enumerate(corpus(100 if options.quick else 800, seed=0)):
            (text / f"{number:04d}.txt").write_text("".join(span.text for span in spans), encoding="utf-8")
        heldout = corpus(4 if options.quick else 24, seed=99)
        for arm in ARMS[:1] if options.quick else ARMS:
            found: dict[str, list[float]] = {}
            for seed in range(seeds):
                run = folder / f"{arm.replace(' ', '-')}-{seed}"
                ourospec.train(recipe_for(arm, text, seed, steps), run)
                reader = Reader(run, heldout)
                passes, nats = reader.at_budget(BUDGET)
                easy, hard = passes[:, reader.easy].mean(), passes[:, ~reader.easy].mean()
                values = {"easy depth": easy, "hard depth": hard, "hard - easy": hard - easy}
                values |= {"mean depth": passes.mean(), "loss": nats.mean()}
                values |= {"easy loss": nats[reader.easy].mean(), "hard loss": nats[~reader.easy].mean()}
                for name, value in values.items():
                    found.setdefault(name, []).append(float(value))
            held = arm == ARMS[0] and not options.quick
            least = {"hard - easy": LEAST_GAP} if held else {}
            figures += [spread(f"{arm}: {name}", v, at_least=least.get(name)) for name, v in found.items()]
    return finish("gate_discrimination", figures, machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
