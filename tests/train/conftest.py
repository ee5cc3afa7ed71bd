"""Fixtures of the trainer's tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The models here are so small that a second thread only waits; and sums come out the same in every test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def killable() -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs a toy job in a process of its own that can be killed; see killable.py."""
    script = Path(__file__).with_name("killable.py")
    server = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None and server.stdout is not None

    def run(path: Path, **request: Any) -> dict[str, Any]:
        server.stdin.write(json.dumps({"path": str(path), **request}) + "\n")
        server.stdin.flush()
        answer = json.loads(server.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer

    yield run
    server.stdin.close()
    server.wait(timeout=30)
