"""TensorBoard's own reader finds what was written, once, however often the run was resumed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from ourospec.contracts import Event
from ourospec.errors import ResourceError
from ourospec.runs import RunDirectory
from ourospec.telemetry.tensorboard import TensorBoardObserver

from .steps import policy, start

pytest.importorskip("tensorboard")


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def told(run: RunDirectory, *events: Event) -> None:
    observer = TensorBoardObserver(run)
    for event in events:
        observer.on_event(event)
    observer.close()


def read(run: RunDirectory) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run.tensorboard))
    accumulator.Reload()
    return accumulator


def test_curves_and_the_histogram_of_passes(run: RunDirectory) -> None:
    told(run, start(), policy(9), policy(10), Event("eval", 10, {"loss": 3.5}))
    found = read(run)
    assert [point.step for point in found.Scalars("train/price")] == [9, 10]
    assert found.Scalars("train/price")[0].value == pytest.approx(2.1e-3)
    assert [point.step for point in found.Scalars("depth/layer_0/k")] == [10]
    assert found.Scalars("eval/loss")[0].value == pytest.approx(3.5)
    histogram = found.Histograms("depth/passes")[0].histogram_value
    assert histogram.bucket_limit == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert histogram.bucket == pytest.approx([0.0, 0.72, 0.24, 0.04, 0.0])


def test_steps_that_come_again_replace_the_old_ones(run: RunDirectory) -> None:
    told(run, start(), *(policy(n, lm_loss=1.0) for n in range(1, 8)))
    told(run, start(5), *(policy(n, lm_loss=2.0) for n in range(6, 10)))
    told(run, start(), *(policy(n, price=3.0) for n in range(1, 3)))
    found = read(run)
    assert [(p.step, p.value) for p in found.Scalars("train/price")] == [(1, 3.0), (2, 3.0)]
    told(run, start(2), *(policy(n, price=4.0) for n in range(3, 5)))
    assert [(p.step, p.value) for p in read(run).Scalars("train/price")] == [(1, 3), (2, 3), (3, 4), (4, 4)]
    assert len(list(run.tensorboard.iterdir())) == 4


def test_nothing_is_touched_before_the_start(run: RunDirectory) -> None:
    TensorBoardObserver(run).close()
    assert not run.path.exists()


def test_no_name_of_a_machine(run: RunDirectory) -> None:
    told(run, start())
    assert [path.name for path in run.tensorboard.iterdir()] == ["events.out.tfevents.0000000001"]


def test_a_full_disk_costs_the_curves_only(run: RunDirectory) -> None:
    run.path.mkdir()
    run.tensorboard.write_text("a file where the folder should be")
    with pytest.warns(RuntimeWarning, match="could not be written"):
        told(run, start(), policy(1))


def test_a_missing_package_is_named_with_the_remedy(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(ResourceError, match="pip install 'ourospec") as caught:
        TensorBoardObserver(run)
    assert "tensorboard" in caught.value.remedy
