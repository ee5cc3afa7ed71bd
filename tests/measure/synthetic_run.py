"""A run that never was, told as the trainer would tell it: python -m tests.measure.synthetic_run FOLDER [dense]"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ourospec.contracts import Event
from ourospec.runs import RunDirectory
from ourospec.telemetry.environment import write_environment
from ourospec.telemetry.events import encode

STEPS = 1000
LAYERS, PASSES = 4, 4
TOKENS = 4096
BEGAN = 1_790_000_000.0
BYTES_PER_TOKEN = 3.1

TEXTS = {
    "def ": (
        "_parse_header(self, line):\n"
        '    """Return the name and value of a header line."""\n'
        "    name, sep, value = line.partition(':')\n"
        "    if not sep:\n        raise ValueError('not a header: %r' % line)\n"
        "    return name.strip().lower(), value.strip()\n"
    ),
    "import ": "os\nimport sys\nimport errno\n\nfrom collections import deque\n\n__all__ = ['Queue']\n",
    "class ": (
        "Handler(object):\n    def __init__(self, <b>name</b>=None):\n        self.name = name\n"
        "        self._lock = threading.RLock()\n\n    def handle(self, record):\n"
        "        rv = self.filter(record)\n        if rv:\n            self.acquire()\n        return rv\n"
    ),
    "# ": "This module provides an interface to the \x1b[31mterminal</script>, é 猫 and so on.\n",
}
RECIPE: dict[str, Any] = {
    "family": "adaptive_lm",
    "name": "tiny",
    "seed": 0,
    "train": {"steps": STEPS, "batch_size": 16, "window": 256, "device": "auto"},
    "optim": {"lr": 0.003, "final_lr_fraction": 0.1, "weight_decay": 0.1, "clip_norm": 1.0},
    "data": {"source": {"kind": "stdlib"}, "tokenizer": {"kind": "bpe", "vocab_size": 4096}, "cache": ""},
    "prompts": list(TEXTS),
    "model": {
        "width": 256,
        "layers": LAYERS,
        "depth": {"max_passes": PASSES, "alpha": [1.0, 0.7, 0.5, 0.35]},
    },
}


def write_run(folder: Path, *, dense: bool = False, steps: int = STEPS) -> RunDirectory:
    """A whole run directory, as far as a report reads it."""
    run = RunDirectory(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {**RECIPE, "family": "dense_lm"} if dense else RECIPE
    run.recipe.write_text(json.dumps(recipe, indent=2), encoding="utf-8")
    write_environment(run, {"device": "cpu", "name": "cpu", "precision": "bfloat16"})
    lines = [encode(event, BEGAN + 0.55 * event.step) for event in events(dense=dense, steps=steps)]
    run.events.write_text("".join(lines), encoding="utf-8")
    return run


def events(*, dense: bool = False, steps: int = STEPS) -> list[Event]:
    """The events of a run from its start to its end."""
    random = np.random.default_rng(0)
    start = {
        "family": "dense_lm" if dense else "adaptive_lm", "name": "tiny", "parameters": 5_312_004, "device": "cpu",
        "precision": "bfloat16", "total_steps": steps, "tokens_per_step": TOKENS, "resumed_from": None,
    }  # fmt: skip
    told = [Event("start", 0, start)]
    for step in range(1, steps + 1):
        told.append(Event("step", step, _step(step, steps, dense, random)))
        if step % (steps // 10) == 0:
            told.append(
                Event(
                    "checkpoint",
                    step,
                    {"path": f"checkpoints/step-{step:08d}", "bytes": 64e6, "seconds": 0.4},
                )
            )
            told.append(Event("eval", step, _evaluation(step, steps, dense)))
        if step % (steps // 5) == 0:
            told.append(Event("sample", step, {"samples": _samples(step, steps, dense, random)}))
    told.append(Event("end", steps, {"status": "complete", "seconds": 0.52 * steps}))
    return told


def _loss(fraction: float) -> float:
    return 2.9 + 5.4 * math.exp(-14 * fraction) + 0.9 * math.exp(-2.5 * fraction)


def _survival(fraction: float) -> list[float]:
    if fraction <= 0.25:
        return [1.0, 1.0, 0.0, 0.0]
    settled = 1 - math.exp(-6 * (fraction - 0.25))
    return [1.0, 0.55 + 0.2 * settled, 0.3 * settled + 0.1, 0.12 * settled]


def _histogram(fraction: float) -> list[float]:
    entering = [*_survival(fraction), 0.0]
    return [entering[k] - entering[k + 1] for k in range(PASSES)]


def _step(step: int, steps: int, dense: bool, random: np.random.Generator) -> dict[str, Any]:
    fraction = step / steps
    loss = _loss(fraction) + 0.12 * random.normal()
    norm = float(0.5 + 3 * math.exp(-30 * fraction) + 0.25 * random.gamma(2))
    told: dict[str, Any] = {
        "loss": loss,
        "lm_loss": loss,
        "bits_per_byte": loss / math.log(2) / BYTES_PER_TOKEN,
        "lr": 0.003 * min(1, step / (0.05 * steps)) * (0.55 + 0.45 * math.cos(math.pi * fraction)),
        "grad_norm": norm,
        "grad_norm_clipped": min(norm, 1.0),
        "tokens": TOKENS * step,
        "tokens_per_second": 7900 + 300 * random.normal() - (0 if dense else 900 * (fraction > 0.25)),
        "seconds": 0.52 * step,
    }
    if not dense:
        histogram = _histogram(fraction)
        mean = sum((k + 1) * share for k, share in enumerate(histogram))
        told |= {
            "loss": loss + 0.01 * mean,
            "mean_passes": mean + 0.03 * random.normal() * (fraction > 0.25),
            "passes_by_layer": [1 + (mean - 1) * (0.6 + 0.27 * layer) for layer in range(LAYERS)],
            "depth_histogram": histogram,
            "survival": _survival(fraction),
            "gate": 0.4 + 0.2 * fraction,
            "price": 0.01,
        }
    return told


def _evaluation(step: int, steps: int, dense: bool) -> dict[str, Any]:
    loss = _loss(step / steps) + 0.07
    return {
        "split": "heldout", "loss": loss, "loss_se": 0.042, "perplexity": math.exp(loss),
        "bits_per_byte": loss / math.log(2) / BYTES_PER_TOKEN, "bits_per_byte_se": 0.019,
        "mean_passes": 1.0 if dense else 2.14, "mean_passes_se": 0.0 if dense else 0.03,
        "flops_per_token": 1.31e7, "flops_per_token_se": 1.2e5, "documents": 38, "tokens": 32768, "bytes": 101_000,
    }  # fmt: skip


def _samples(step: int, steps: int, dense: bool, random: np.random.Generator) -> list[dict[str, Any]]:
    samples = []
    for prompt, whole in TEXTS.items():
        text = whole[: max(20, len(whole) * step // steps)]
        pieces = re.findall(r"\n +|\s?\w{1,6}|\s?[^\w\s]+|\s+", text)
        passes = [1.0] * len(pieces)
        if not dense:
            passes = [
                min(4.0, 1 + round(8 * random.beta(1.4, 2.6) * len(p.strip() or "a") / 3) / 4) for p in pieces
            ]
        samples.append({"prompt": prompt, "text": "".join(pieces), "pieces": pieces, "passes": passes})
    return samples


if __name__ == "__main__":
    print(write_run(Path(sys.argv[1]), dense="dense" in sys.argv[2:]).path)
