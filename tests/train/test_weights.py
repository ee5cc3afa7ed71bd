"""Weights are known by a digest: what was measured on some says nothing of others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ourospec.runs import RunDirectory
from ourospec.train.weights import load_weights

from .test_checkpoint import snapshot, store_of


def test_the_digest_of_weights_changes_with_the_weights_and_the_average_alone(tmp_path: Path) -> None:
    def digest(name: str, **changes: Any) -> str:
        store_of(tmp_path / name).save(replace(snapshot(5), **changes))
        return load_weights(RunDirectory(tmp_path / name))[1].digest

    other = {"w": torch.ones(20, 30)}
    same = digest("same")
    assert digest("again") == same
    assert digest("optimiser", state={"optimizer/0": torch.ones(1)}) == same
    assert digest("average", average=other) != same
    assert digest("weights", weights={**snapshot(5).weights, "count": torch.tensor(6)}) != same
    assert digest("plain", average={}) != same
