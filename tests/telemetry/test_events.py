"""The event format: what is written can be read, whatever an objective reports."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ourospec.contracts import Event
from ourospec.errors import DataError
from ourospec.runs import EVENTS_VERSION, RunDirectory
from ourospec.telemetry.events import decode, encode, plain, read_records

names = st.text(min_size=1).filter(lambda name: name not in ("v", "kind", "step", "time"))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def without_infinities(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [without_infinities(item) for item in value]
    if isinstance(value, dict):
        return {key: without_infinities(item) for key, item in value.items()}
    return value


@given(kind=st.text(min_size=1), step=st.integers(0), data=st.dictionaries(names, values, max_size=5))
def test_what_is_written_is_read(kind: str, step: int, data: dict) -> None:
    line = encode(Event(kind, step, data), time=12.5)
    assert line.endswith("\n")
    assert "\n" not in line[:-1], "an event takes one line"
    record = decode(json.loads(line, parse_constant=refuse))
    assert (record.kind, record.step, record.time) == (kind, step, 12.5)
    assert record.data == without_infinities(data)


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_an_event_tells_its_version() -> None:
    assert json.loads(encode(Event("end", 3, {}), time=1.0)) == {
        "v": EVENTS_VERSION,
        "kind": "end",
        "step": 3,
        "time": 1.0,
    }


def test_arrays_become_lists() -> None:
    said = plain(
        {"t": torch.tensor([1.0, math.nan]), "n": np.float32(0.5), "i": np.arange(2), "p": Path("a/b")}
    )
    assert said == {"t": [1.0, None], "n": 0.5, "i": [0, 1], "p": str(Path("a/b"))}


def test_what_json_cannot_say_does_not_cost_the_log() -> None:
    assert plain({"odd": 1j, 3: {"set"}}) == {"odd": "1j", "3": ["set"]}


@pytest.mark.parametrize("name", ["v", "kind", "step", "time"])
def test_data_cannot_take_the_place_of_the_envelope(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        encode(Event("step", 1, {name: 5}), time=0.0)


def test_records_of_a_run(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    whole = encode(Event("step", 1, {"loss": 2.0}), 1.0) + encode(Event("end", 1, {}), 2.0)
    run.events.write_text(whole + '{"v": 1, "kind": "st', encoding="utf-8")
    assert [record.kind for record in read_records(run)] == ["step", "end"]


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"v": 1, "kind": "step", "step": "x", "time": 0}', "7"])
def test_a_broken_line_is_named(tmp_path: Path, broken: str) -> None:
    run = RunDirectory(tmp_path)
    run.events.write_text(encode(Event("start", 0, {}), 0.0) + broken + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"events\.jsonl, line 2 ") as caught:
        list(read_records(run))
    assert caught.value.remedy


def test_events_of_a_newer_version_are_refused(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.events.write_text(json.dumps({"v": EVENTS_VERSION + 1, "kind": "x", "step": 0, "time": 0}) + "\n")
    with pytest.raises(DataError, match="version 2"):
        list(read_records(run))
