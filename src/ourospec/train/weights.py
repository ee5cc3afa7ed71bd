"""The weights of a run, for everyone who does not train it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from ourospec.errors import ResourceError
from ourospec.runs import RunDirectory
from ourospec.train.checkpoint import AVERAGE, RECORD, WEIGHTS, all_damaged, list_bests, list_checkpoints
from ourospec.train.manifest import Damaged, Manifest, check_files, read_manifest


class WeightsOrigin(NamedTuple):
    """Where weights come from."""

    path: Path
    step: int
    """Optimiser steps they have behind them."""
    tokens: int
    """Targets they were trained on."""
    seconds: float
    """Time spent in training steps."""
    averaged: bool
    """Whether these are the averaged weights."""
    data: str
    """Fingerprint of the training data and its order."""
    objective: Mapping[str, Any]
    """State of the objective: a price, say."""
    skipped: tuple[str, ...]
    """What was wrong with newer checkpoints, if anything."""
    digest: str
    """Of the files that the weights were read from: changes with any of them."""


Which = Literal["newest", "best"]
"""Weights of a run: those it came to, or those with the least held-out loss."""


def load_weights(run: RunDirectory, which: Which = "newest") -> tuple[dict[str, Tensor], WeightsOrigin]:
    """The weights to judge and to use: those of the newest whole checkpoint, averaged where it has an average.

    With `which` "best" the same of the weights that train.keep_best kept.

    Safe beside a running training: nothing is written, no lock is taken.

    Returns:
        A complete state dict on the CPU (a shared tensor under all its names), and where it comes from.

    Raises:
        ResourceError: there is no checkpoint yet, or none of the best, or all are damaged.
    """
    listed = list_bests if which == "best" else list_checkpoints
    folders = listed(run)
    skipped: list[str] = []
    for folder in reversed(folders):
        try:
            manifest = read_manifest(folder)
            check_files(folder, manifest, only=frozenset((WEIGHTS, AVERAGE, RECORD)))
            record = json.loads((folder / RECORD).read_text())
            tensors = load_file(folder / WEIGHTS)
            averaged = AVERAGE in manifest.files
            if averaged:
                tensors.update(load_file(folder / AVERAGE))
        except (Damaged, OSError) as reason:
            skipped.append(f"{folder.name}: {reason}")
            continue
        for alias, name in record["aliases"].items():
            tensors[alias] = tensors[name]
        origin = WeightsOrigin(
            folder,
            manifest.step,
            record["tokens"],
            record["seconds"],
            averaged,
            manifest.data,
            record["objective"],
            tuple(skipped),
            _digest(manifest, AVERAGE if averaged else WEIGHTS),
        )
        return tensors, origin
    if listed(run) != folders:
        # A training dropped the old ones while we read; the new ones are there now.
        return load_weights(run, which)
    if skipped:
        raise all_damaged(run, skipped)
    if which == "best":
        raise ResourceError(
            f"{run.path} keeps no best weights.",
            "Runs keep them with --train.keep-best true, from their first evaluation (train.eval_every) on.",
        )
    raise ResourceError(
        f"{run.path} has no checkpoint yet.",
        "Let the training come to its first save (train.save_every steps), or interrupt it with Ctrl-C: it saves.",
    )


def _digest(manifest: Manifest, name: str) -> str:
    # An average has what is averaged; the rest (buffers) comes from the weights.
    both = manifest.files[WEIGHTS].sha256 + manifest.files[name].sha256
    return hashlib.sha256(both.encode()).hexdigest()
