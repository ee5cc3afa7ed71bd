"""A claim of seconds on a few lines of text, and its findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FIXED = {
    "model.depth.halting": "fixed",
    "objective.schedule.forced_passes": 0,
    "objective.watched_share": 0.0,
}


def tiny_claim(folder: Path) -> dict[str, Any]:
    """A claim with every sort of arm; its text lies in the folder."""
    text = folder / "text"
    text.mkdir(parents=True, exist_ok=True)
    for number in range(12):
        lines = "".join(f"def name_{number}_{line}(x):\n    return x + {line}\n" for line in range(9))
        (text / f"{number}.py").write_text(lines)
    arms = [
        {"name": "adaptive", "preset": "adaptive_lm/smoke"},
        {"name": "two", "preset": "adaptive_lm/smoke", "set": {**FIXED, "model.depth.max_passes": 2}},
        {"name": "as_two", "of": "adaptive", "effort": {"kind": "matched", "to": "two"}},
        {"name": "one", "of": "adaptive", "effort": {"kind": "forced", "passes": 1}},
        {
            "name": "readout",
            "of": "adaptive",
            "effort": {"kind": "matched", "to": "two", "readout": "update"},
        },
        {"name": "shuffled", "of": "as_two", "effort": {"kind": "shuffled"}},
        {"name": "even", "of": "as_two", "effort": {"kind": "even"}},
        {"name": "oracle", "of": "as_two", "effort": {"kind": "oracle"}},
        {"name": "three", "of": "adaptive", "effort": {"kind": "forced", "passes": 3}},
        {"name": "mixture", "mix": ["one", "three"], "to": "as_two"},
        {"name": "beside", "mix": ["one", "two"], "to": "two"},
    ]
    return {
        "statement": {"better": "as_two", "than": ["two"], "axes": ["executed_flops"], "tolerance": 0.03},
        "seeds": [0, 1],
        "common": {
            "train.steps": 6,
            "train.batch_size": 4,
            "train.save_every": 2,
            "train.eval_every": 0,
            "train.sample_every": 0,
            "data.source": {"kind": "files", "paths": [str(text)]},
            "data.cache": str(folder / "cache"),
            "data.heldout_fraction": 0.4,
        },
        "tuning": {"learning_rates": [0.001, 0.003], "tokens": 300},
        "eval_tokens": 700,
        "curve": {"thresholds": [0.5], "max_passes": [1, 9]},
        "clock_rounds": 1,
        "arms": arms,
    }


@pytest.fixture(scope="session")
def claim_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The claim as a file."""
    folder = tmp_path_factory.mktemp("claim")
    path = folder / "tiny.json"
    path.write_text(json.dumps(tiny_claim(folder)))
    return path


@pytest.fixture(scope="session")
def puzzle_claim() -> dict[str, Any]:
    """A claim of seconds on puzzles of a question and a letter."""
    pointer = {"kind": "pointer", "nodes": 3, "most_hops": 2}
    arms = [
        {"name": "adaptive", "preset": "adaptive_lm/smoke"},
        {"name": "two", "preset": "adaptive_lm/smoke", "set": {**FIXED, "model.depth.max_passes": 2}},
        {"name": "one", "of": "adaptive", "effort": {"kind": "forced", "passes": 1}},
        {"name": "three", "of": "adaptive", "effort": {"kind": "forced", "passes": 3}},
        {"name": "as_two", "of": "adaptive", "effort": {"kind": "matched", "to": "two"}},
        {"name": "shuffled", "of": "as_two", "effort": {"kind": "shuffled"}},
        {"name": "oracle", "of": "as_two", "effort": {"kind": "oracle"}},
        {"name": "mixture", "mix": ["one", "three"], "to": "as_two"},
    ]
    return {
        "statement": {"better": "as_two", "than": ["mixture"], "axes": ["executed_flops"], "tolerance": 0.03},
        "seeds": [0, 1],
        "common": {
            "train.steps": 6,
            "train.batch_size": 4,
            "train.window": 14,
            "train.eval_every": 0,
            "train.sample_every": 0,
            "data.source": {"kind": "puzzle", "task": pointer, "heldout_examples": 60},
            "data.heldout_fraction": 0.5,
        },
        "tuning": {"learning_rates": [0.003], "tokens": 300},
        "eval_tokens": 700,
        "curve": {"thresholds": [0.5], "max_passes": []},
        "clock_rounds": 1,
        "arms": arms,
    }
