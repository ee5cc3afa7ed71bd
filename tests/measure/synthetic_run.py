"""A run that never was, told as the trainer would tell it.

python -m tests.measure.synthetic_run FOLDER [dense | ILLNESS]    (an illness of illnesses.py; none: healthy)
"""

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

from .illnesses import ILLNESSES, LAYERS, PASSES, set_depth

STEPS = 1000
TOKENS = 4096
BEGAN = 1_790_000_000.0
BYTES_PER_TOKEN = 3.1
FORCED_SHARE, PRICE_SHARE = 0.1, 0.15
"""Of the run: until when passes are forced, and from when on they cost."""
TARGET = 1.5

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
        "moe": {"experts": 8, "balance": 0.01},
    },
}


def write_run(folder: Path, *, dense: bool = False, steps: int = STEPS, illness: str = "") -> RunDirectory:
    """A whole run directory, as far as a report reads it."""
    run = RunDirectory(folder)
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {**RECIPE, "family": "dense_lm"} if dense else RECIPE
    run.recipe.write_text(json.dumps(recipe, indent=2), encoding="utf-8")
    write_environment(run, {"device": "cpu", "name": "cpu", "precision": "bfloat16"})
    told = events(dense=dense, steps=steps, illness=illness)
    lines = [encode(event, BEGAN + 0.55 * event.step) for event in told]
    run.events.write_text("".join(lines), encoding="utf-8")
    return run


def events(*, dense: bool = False, steps: int = STEPS, illness: str = "", seed: int = 0) -> list[Event]:
    """The events of a run from its start to its end."""
    random = np.random.default_rng(seed)
    start = {
        "family": "dense_lm" if dense else "adaptive_lm", "name": "tiny", "parameters": 5_312_004, "device": "cpu",
        "precision": "bfloat16", "total_steps": steps, "tokens_per_step": TOKENS, "resumed_from": None,
    }  # fmt: skip
    told = [Event("start", 0, start)]
    state = {"price": 1e-3, "deadband_steps": 0.0}
    for step in range(1, steps + 1):
        fields = _step(step, steps, random)
        if not dense:
            fields |= _adaptive(step, steps, random, state)
            policy = step - FORCED_SHARE * steps
            if illness and policy > 0:
                ILLNESSES[illness][1](fields, round(policy), steps, random)
        told.append(Event("step", step, fields))
        if step % (steps // 10) == 0:
            saved = {"path": f"checkpoints/step-{step:08d}", "bytes": 64e6, "seconds": 0.4}
            told.append(Event("checkpoint", step, saved))
            told.append(Event("eval", step, _evaluation(step, steps, dense)))
        if step % (steps // 5) == 0:
            told.append(Event("sample", step, {"samples": _samples(step, steps, dense, random)}))
    told.append(Event("end", steps, {"status": "complete", "seconds": 0.52 * steps}))
    return told


def _loss(fraction: float) -> float:
    return 2.9 + 5.4 * math.exp(-14 * fraction) + 0.9 * math.exp(-2.5 * fraction)


def _step(step: int, steps: int, random: np.random.Generator) -> dict[str, Any]:
    fraction = step / steps
    loss = _loss(fraction) + 0.12 * random.normal()
    norm = float(0.5 + 3 * math.exp(-30 * fraction) + 0.25 * random.gamma(2))
    return {
        "loss": loss,
        "lm_loss": loss,
        "bits_per_byte": loss / math.log(2) / BYTES_PER_TOKEN,
        "lr": 0.003 * min(1, step / (0.05 * steps)) * (0.55 + 0.45 * math.cos(math.pi * fraction)),
        "lr_phase": "warmup" if fraction < 0.05 else "cosine",
        "grad_norm": norm,
        "grad_norm_clipped": min(norm, 1.0),
        "tokens": TOKENS * step,
        "tokens_per_second": 7900 + 300 * random.normal(),
        "seconds": 0.52 * step,
        "step_seconds": 0.52,
    }


def _adaptive(step: int, steps: int, random: np.random.Generator, state: dict[str, float]) -> dict[str, Any]:
    """What a model with gates adds; `state` is the controller's."""
    fraction = step / steps
    fields: dict[str, Any] = {
        "step_kind": "forced",
        "aux_loss": 0.01,
        "aux_per_call": 0.01,
        "target_passes": TARGET,
    }
    if fraction <= FORCED_SHARE:
        set_depth(fields, 2.0)
        two = [0.0, 1.0, 0.0, 0.0]
        fields |= {"mean_passes": 2.0, "depth_histogram": two, "passes_by_layer": [2.0] * LAYERS}
        fields |= {"survival": [1.0, 1.0, 0.0, 0.0]}
        for name in ("target_passes", "wanted_passes", "control_error", "layer_wanted"):
            del fields[name]
        return fields
    priced = fraction > PRICE_SHARE
    since = max(0.0, fraction - PRICE_SHARE)
    away = 0.5 * math.exp(-since / 0.05) * math.cos(since / 0.04)
    set_depth(fields, max(1.02, TARGET * (1 + away + 0.012 * random.normal())))
    fields |= {
        "step_kind": "policy",
        "near_floor": 0.45 + 0.02 * random.normal(),
        "gate": 0.3,
        "baton_ratio": 0.4,
    }
    if not priced:
        del fields["control_error"]
        return fields
    calm = abs(away) < 0.04
    state["deadband_steps"] = state["deadband_steps"] + 1 if calm else 0.0
    fields |= {"price": state["price"]}
    state["price"] *= 1.0 if state["deadband_steps"] > 0 else 1 + 0.02 * away + 0.003 * (0.5 - since)
    gain = 0.05 * fraction + 0.01 * random.normal()
    fields |= {
        "price_next": state["price"],
        "deadband": calm,
        "deadband_steps": state["deadband_steps"],
        "delta_ce": gain,
        "delta_h": -0.5 * gain + 0.01 * random.normal(),
        "ponder": state["price"] * (fields["mean_passes"] - 1),
    }
    if step % 20 == 0:
        fields |= {"step_kind": "audit", "audit_layer": step // 20 % LAYERS}
        fields["mean_passes"] += 1 / LAYERS
        del fields["control_error"]
    return fields


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
    kind = sys.argv[2] if len(sys.argv) > 2 else ""
    print(write_run(Path(sys.argv[1]), dense=kind == "dense", illness="" if kind == "dense" else kind).path)
