"""stats.json: always whole, always JSON, always the names of the dashboards."""

from __future__ import annotations

import json
import math
import threading
from pathlib import Path
from typing import Any

import pytest

from ourospec import storage
from ourospec.contracts import Event
from ourospec.runs import RunDirectory
from ourospec.telemetry.stats_file import StatsFile, snapshot

from .steps import audit, plain, policy, start

SEEDED = {
    "step", "lm_loss", "mtp_loss", "aux_loss", "total_ponder", "delta_ce", "delta_h", "deadband_active",
    "deadband_steps_since_trigger", "layers", "v", "step_kind", "price", "price_next",
}  # fmt: skip
SEEDED_LAYER = {
    "k", "ent", "p_loss", "k_exec", "s_final", "s_trace", "p_mean", "p_std", "d_rel", "ponder_signal",
    "avg_exec_token", "p95_exec_token", "frac_ge2", "frac_ge3", "frac_ge4", "h_diff", "p_diff", "p_near_clamp",
    "wasted_compute",
}  # fmt: skip


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def read(run: RunDirectory) -> dict[str, Any]:
    return json.loads(run.stats.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def test_the_names_that_dashboards_know() -> None:
    for event in (policy(5), audit(5), plain(5), Event("step", 5, {})):
        found = snapshot(event)
        assert found.keys() >= SEEDED
        assert all(layer.keys() >= SEEDED_LAYER for layer in found["layers"])


def test_the_numbers_of_a_step() -> None:
    found = snapshot(policy(1500))
    assert (found["v"], found["step"], found["step_kind"]) == (1, 1500, "policy")
    assert (found["total_ponder"], found["delta_ce"], found["delta_h"]) == (0.001, 0.0423, -0.0312)
    assert (found["deadband_active"], found["deadband_steps_since_trigger"]) == (True, 42)
    assert (found["price"], found["price_next"]) == (2.1e-3, 2.2e-3)
    first, second = found["layers"]
    assert first["s_trace"] == [1.0, 0.25, 0.05, 0.0]
    assert (first["k"], first["k_exec"], first["ent"]) == (1.3, 3, None)
    assert first["histogram"] == [0.72, 0.24, 0.04, 0.0], "what the step says besides"
    assert (first["baton_rat"], first["lam_mu"]) == (0.123, 0.456)
    assert "baton_rat" not in second


def test_a_plain_model_has_no_layers_to_tell_of() -> None:
    found = snapshot(plain(3))
    assert found["layers"] == []
    assert found["price"] is None and found["loss"] == 3.25


def test_what_is_no_number_is_null(run: RunDirectory) -> None:
    stats = StatsFile(run)
    stats.on_event(policy(1, lm_loss=math.nan, delta_ce=math.inf, layer_k=[math.nan, 1.0]))
    stats.close()
    found = read(run)
    assert found["lm_loss"] is None and found["delta_ce"] is None and found["layers"][0]["k"] is None


def test_a_reader_never_sees_half_a_file(run: RunDirectory) -> None:
    stats = StatsFile(run)
    stats.on_event(policy(1))
    stats.close()
    seen, over = [], threading.Event()

    def poll() -> None:
        while not over.is_set():
            seen.append(read(run))

    reader = threading.Thread(target=poll)
    reader.start()
    for step in range(2, 1500):
        stats.on_event(policy(step, layer_p_mean=[1 / step] * 2))
    stats.close()
    over.set()
    reader.join()
    numbers = [found["step"] for found in seen]
    assert len(numbers) > 3 and numbers == sorted(numbers)
    assert all(found["layers"][0]["p_mean"] == 1 / found["step"] for found in seen if found["step"] > 1)
    assert read(run)["step"] == 1499, "the last step is there when the run ends"
    assert [path.name for path in run.path.iterdir()] == ["stats.json"]


def test_a_slow_disk_is_waited_for_at_the_end_only(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    free, writes = threading.Event(), []
    real = storage.write_whole

    def slow(path: Path, content: bytes) -> None:
        free.wait()
        writes.append(path)
        real(path, content)

    monkeypatch.setattr(storage, "write_whole", slow)
    stats = StatsFile(run)
    for step in range(1, 500):
        stats.on_event(policy(step))
    free.set()
    stats.close()
    assert read(run)["step"] == 499
    assert len(writes) <= 2


def test_a_full_disk_is_said_once_and_survived(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    real = storage.write_whole

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "write_whole", full)
    stats = StatsFile(run)
    with pytest.warns(RuntimeWarning, match="No space left") as said:
        for step in range(1, 5):
            stats.on_event(policy(step))
            stats.close()
    assert len(said) == 1
    monkeypatch.setattr(storage, "write_whole", real)
    stats.on_event(policy(9))
    stats.close()
    assert read(run)["step"] == 9


def test_what_a_kill_left_of_a_replacement_is_removed(run: RunDirectory) -> None:
    run.path.mkdir()
    (run.path / ".stats.json.4711").write_text("{")
    stats = StatsFile(run)
    stats.on_event(start())
    stats.close()
    assert list(run.path.iterdir()) == []
