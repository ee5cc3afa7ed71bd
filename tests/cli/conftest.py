"""A small corpus and one trained smoke run, shared by the tests of the verbs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ourospec import cli


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Models this small lose more to waiting for other threads than they gain, most of all on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> list[str]:
    """Options that train on a few small files instead of a real corpus."""
    folder = tmp_path_factory.mktemp("corpus")
    for number in range(40):
        body = "\n".join(f"def name_{number}_{line}(x):\n    return x + {line}\n" for line in range(12))
        (folder / f"module_{number}.py").write_text(body, encoding="utf-8")
    cache = tmp_path_factory.mktemp("cache")
    source = ["--data.source", "files", "--data.source.paths", str(folder), "--data.cache", str(cache)]
    return [*source, "--data.heldout-fraction", "0.2"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory, corpus) -> SimpleNamespace:
    """A finished run of adaptive_lm/smoke: its directory, and the command that made it."""
    run = tmp_path_factory.mktemp("runs") / "smoke"
    command = [
        "train",
        "adaptive_lm/smoke",
        "--run",
        str(run),
        "--train.steps",
        "12",
        "--prompts",
        "def ",
        *corpus,
    ]
    assert cli.main([*command, "--quiet"]) == 0
    return SimpleNamespace(run=str(run), path=Path(run), command=command)


@pytest.fixture(scope="session")
def short_puzzles() -> list[str]:
    """Options that train on a few puzzles for some steps."""
    parts = [{"task": {"kind": "pointer"}}, {"task": {"kind": "copy", "least": 1, "most": 6}}]
    options = {
        "--train.steps": "12",
        "--train.sample-every": "0",
        "--train.window": "48",
        "--data.tokenizer": "byte",
        "--data.source": "puzzle_mixture",
        "--data.source.parts": json.dumps(parts),
        "--data.source.heldout-examples": "20",
    }
    return [word for pair in options.items() for word in pair]


@pytest.fixture
def ouro(capsys):
    """Runs a command line; returns exit code, stdout and stderr."""

    def run(*arguments):
        capsys.readouterr()
        code = cli.main(list(arguments))
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return run
