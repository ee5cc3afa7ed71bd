"""Sample files, the environment record, and files that are replaced as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ourospec.contracts import Event
from ourospec.errors import ResourceError
from ourospec.runs import RunDirectory
from ourospec.telemetry import environment
from ourospec.telemetry.environment import write_environment
from ourospec.telemetry.files import write_whole
from ourospec.telemetry.samples import SampleFiles


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def test_a_round_of_samples_is_a_file(run: RunDirectory) -> None:
    observer = SampleFiles(run)
    observer.on_event(Event("step", 199, {"loss": 1.0}))
    assert not run.samples.exists()
    samples = [
        {
            "prompt": "def ",
            "text": "f():\n    pass",
            "pieces": ["f", "():", "\n    pass"],
            "passes": [1.0, 2.5, 1.0],
        },
        {"prompt": "", "text": "\x1b[2J", "pieces": [], "passes": []},
    ]
    observer.on_event(Event("sample", 200, {"samples": samples}))
    observer.close()
    text = (run.samples / "step-00000200.txt").read_text(encoding="utf-8")
    assert "--- prompt 'def ', 1.50 passes a token ---\ndef f():\n    pass\n" in text
    assert "--- no prompt ---\n␛[2J\n" in text


def test_every_start_is_recorded(run: RunDirectory) -> None:
    write_environment(run, {"device": "cpu"})
    write_environment(run, {"device": "cuda:0"})
    found = json.loads(run.environment.read_text(encoding="utf-8"))
    assert found["v"] == 1
    assert [start["device"]["device"] for start in found["starts"]] == ["cpu", "cuda:0"]
    start = found["starts"][0]
    assert start["packages"]["torch"]
    assert start["memory"] > 1 << 20
    assert 1 <= start["usable_threads"] <= start["threads"]
    assert [path.name for path in run.path.iterdir()] == ["environment.json"], "nothing is left lying about"


def test_the_command_tells_nothing_of_where_it_was_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/someone/.venv/bin/ouro", "train", "adaptive_lm/tiny"])
    assert environment.describe_environment()["command"] == ["ouro", "train", "adaptive_lm/tiny"]


def test_a_record_that_cannot_be_read_is_begun_anew(run: RunDirectory) -> None:
    run.path.mkdir()
    run.environment.write_text('{"starts": ')
    write_environment(run)
    assert len(json.loads(run.environment.read_text())["starts"]) == 1


def test_the_source_is_the_commit_of_this_package_only(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository = tmp_path / "others"
    (repository / "site-packages").mkdir(parents=True)
    stranger = repository / "site-packages" / "environment.py"
    stranger.write_text("")
    git = ["git", "-C", str(repository), "-c", "user.name=n", "-c", "user.email=e@x"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "theirs"], check=True)
    monkeypatch.setattr(environment, "__file__", str(stranger))
    assert environment.describe_environment()["source"] is None, "not tracked there: not its commit"
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "tracked"], check=True)
    commit = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert environment.describe_environment()["source"] == commit
    stranger.write_text("changed")
    assert environment.describe_environment()["source"] == f"{commit}-dirty"


def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(ResourceError, match=r"report\.html could not be written") as caught:
        write_whole(tmp_path / "report.html", "new")
    assert caught.value.remedy
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_telemetry_and_reports_do_without_torch() -> None:
    code = (
        "import sys; import ourospec.telemetry.console, ourospec.telemetry.live_view, ourospec.telemetry.samples\n"
        "import ourospec.telemetry.environment, ourospec.telemetry.jsonl, ourospec.measure.report\n"
        "import ourospec.telemetry.log_file, ourospec.telemetry.stats_file\n"
        "import ourospec.telemetry.tensorboard, ourospec.telemetry.wandb\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
