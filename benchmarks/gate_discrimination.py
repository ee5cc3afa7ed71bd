"""Whether gates tell easy from hard: mean depth on repeated lines and on fresh text, at one budget.

Each document alternates between spans of fresh lines (hard) and one line repeated (easy from its second occurrence
on). A small model is trained on such text with each way of teaching its gates and then held to the budget by its
threshold; the passes of held-out tokens are counted by the kind of span that the predicted token stands in.
"""

from __future__ import annotations

import random
import sysconfig
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

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


def train(folder: Path, run: Path, seed: int, overrides: dict[str, Any], steps: int) -> None:
    """Train the small model on the folder's texts."""
    import ourospec
    from ourospec.data.files import FilesSource
    from ourospec.data.tokenizers import BpeConfig
    from ourospec.families.adaptive_lm.presets import tiny

    base = tiny()
    recipe = base.model_copy(
        update={
            "seed": seed,
            "model": base.model.model_copy(
                update={"width": 128, "mlp_hidden": 352, **overrides.get("model", {})}
            ),
            "objective": base.objective.model_copy(update=overrides.get("objective", {})),
            "data": base.data.model_copy(
                update={"source": FilesSource(paths=(str(folder),)), "tokenizer": BpeConfig(vocab_size=1_024)}
            ),
            "train": base.train.model_copy(
                update={"steps": steps, "sample_every": 0, "eval_every": 0, "save_every": steps}
            ),
        }
    )
    ourospec.train(recipe, run)


def measure(run: Path, documents: list[list[Span]], budget: float) -> dict[str, Any]:
    """Depth on easy and hard tokens, by layer, at the threshold that meets the budget on these documents."""
    import torch

    import ourospec
    from ourospec.contracts import Effort

    loaded = ourospec.load(run)
    window = loaded.recipe.train.window
    rows, kinds = [], []
    for spans in documents:
        ids = loaded.tokenizer.encode("".join(span.text for span in spans))
        easy = np.concatenate([np.full(len(span.text.encode()), span.easy) for span in spans])
        ends = np.cumsum([len(loaded.tokenizer.token_bytes(token)) for token in ids])
        for start in range(0, len(ids) - window, window):
            rows.append(ids[start : start + window + 1])
            kinds.append(easy[ends[start : start + window] - 1 + 1])
    tokens, kind = torch.tensor(rows), np.stack(kinds)

    def run_with(threshold: float) -> tuple[np.ndarray, np.ndarray]:
        with loaded.policy.inference(loaded.model):
            outputs = [
                loaded.model(part[:, :-1], effort=Effort(threshold=threshold)) for part in tokens.split(16)
            ]
            passes = torch.cat([output.passes for output in outputs], dim=1)
            nll = [
                loaded.model.head.judge(output.states, part[:, 1:])[0]
                for output, part in zip(outputs, tokens.split(16), strict=True)
            ]
        return passes.numpy(), torch.cat(nll).float().numpy()

    low, high = 0.0, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if run_with(middle)[0].mean() > budget else (low, middle)
    passes, nll = run_with(high)
    trained = loaded.objective.effort(ourospec_clock(loaded))
    as_trained = run_with(
        trained.threshold if trained and trained.threshold else loaded.recipe.model.depth.threshold
    )
    by_layer = [(float(layer[kind].mean()), float(layer[~kind].mean())) for layer in passes]
    return {
        "easy": float(passes[:, kind].mean()),
        "hard": float(passes[:, ~kind].mean()),
        "by_layer": by_layer,
        "mean": float(passes.mean()),
        "loss_easy": float(nll[kind].mean()),
        "loss_hard": float(nll[~kind].mean()),
        "loss": float(nll.mean()),
        "as_trained": float(as_trained[0].mean()),
        "as_trained_gap": float(as_trained[0][:, ~kind].mean() - as_trained[0][:, kind].mean()),
    }


def ourospec_clock(loaded: Any) -> Any:
    from ourospec.contracts import Clock

    return Clock(loaded.origin.step, loaded.recipe.train.steps)
