"""Weights & Biases offline: everything in the run directory, nothing on the network or the screen."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ourospec.errors import ResourceError
from ourospec.runs import RunDirectory
from ourospec.telemetry.wandb import WandbObserver

pytest.importorskip("wandb")

CODE = """
import sys
from pathlib import Path
from tests.telemetry.steps import policy, start
from ourospec.contracts import Event
from ourospec.runs import RunDirectory
from ourospec.telemetry.wandb import WandbObserver
resumed = int(sys.argv[2])
observer = WandbObserver(RunDirectory(Path(sys.argv[1])))
observer.on_event(start(resumed or None))
for step in range(resumed + 1, resumed + 4):
    observer.on_event(policy(step, sizes=[1.0, 2.0]))
task = {"task": "pointer", "exact_match": 0.5, "bins": []}
observer.on_event(Event("eval", resumed + 3, {"loss": 1.0, "exact_match": 0.5, "tasks": [task]}))
observer.close()
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.recipe.write_text('{"family": "toy", "seed": 3}')
    return run


def trained(run: RunDirectory, resumed: int, **environment: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own, since the package keeps a service for the life of one."""
    return subprocess.run(
        [sys.executable, "-c", CODE, str(run.path), str(resumed)],
        cwd=Path(__file__).parents[2],
        env={**_without_settings(), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def _without_settings() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}


def test_offline_it_is_silent_and_goes_on_under_its_id(run: RunDirectory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        proxy.settimeout(0.2)
        address = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address)
        for resumed in (0, 2):
            done = trained(run, resumed, HOME=str(run.path), **proxies)
            assert (done.stdout, done.stderr) == ("", "")
            time.sleep(1.0)  # the package names folders by the second, and would number a second one
        with pytest.raises(TimeoutError):
            proxy.accept()
    identity = (run.wandb / "id.txt").read_text().strip()
    kept = [path.name for path in run.wandb.glob("offline-run-*")]
    assert kept and all(name.endswith(identity) for name in kept)
    logged = b"".join(path.read_bytes() for path in run.wandb.glob("offline-run-*/*.wandb"))
    assert b"train/price" in logged and b"family" in logged
    for name in (b"val/loss", b"val/exact_match", b"val/pointer/exact_match"):
        assert name in logged
    machine = socket.gethostname().encode()
    assert not re.search(rb"(?<!\w)" + re.escape(machine) + rb"(?!\w)", logged), "the machine is not named"


def test_online_without_a_key_is_refused_and_nobody_is_asked(run: RunDirectory, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from ourospec.runs import RunDirectory\n"
        "from ourospec.errors import ConfigError; from ourospec.telemetry.wandb import WandbObserver\n"
        "try: WandbObserver(RunDirectory(Path(sys.argv[1])), 'online')\n"
        "except ConfigError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path)],
        env={**_without_settings(), "HOME": str(tmp_path), "NETRC": str(tmp_path / "none")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "wandb login" in done.stdout and "--wandb offline" in done.stdout
    assert not run.wandb.exists()


def test_a_missing_package_is_named_with_the_remedy(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(ResourceError, match="wandb") as caught:
        WandbObserver(run)
    assert "pip install 'ourospec[wandb]'" in caught.value.remedy
