"""The flag for a model that writes one thing over and over: raised by that alone, late enough, and once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourospec.contracts import Event
from ourospec.serve.samples import variety
from ourospec.telemetry.alarms import Finding, Watch
from ourospec.telemetry.console import in_a_line

from .steps import plain, start

TOTAL, EVERY = 2000, 200
CIRCLES = [
    "self.assertEqual(self.assertEqual",
    "import os\nimport sys\nimport os\n",
    "the other the other of",
    "# ---",
]


def of(texts: Sequence[str]) -> dict[str, Any]:
    return variety([text.encode()[:32] for text in texts])


COLLAPSED = of([":" * 32] * 4)
HEALTHY = of(CIRCLES)


def told(rounds: dict[int, dict[str, Any]], total: int = TOTAL) -> list[Finding]:
    """What is found in a run whose samples are these by step, and healthy elsewhere."""
    watch = Watch({"optim": {"lr": 2e-3}})
    opening = start()
    events = [opening._replace(data={**opening.data, "total_steps": total})]
    for step in range(EVERY, total + 1, EVERY):
        events += [plain(step), Event("sample", step, {"samples": [], **HEALTHY, **rounds.get(step, {})})]
    return [finding for event in events for finding in watch.take(*event) if finding.rule == "repetition"]


def always(data: dict[str, Any], since: int = 0) -> dict[int, dict[str, Any]]:
    return dict.fromkeys(range(max(since, EVERY), TOTAL + 1, EVERY), data)


def test_a_model_that_writes_colons_is_told_once_with_cause_and_command() -> None:
    (finding,) = told(always(COLLAPSED))
    assert (finding.since, finding.step) == (800, 1000), "after 30% of the run, and twice"
    assert "128 likeliest tokens" in finding.evidence and "100%" in finding.evidence
    assert finding.advice("runs/a") == "ouro train runs/a --run runs/a-2 --optim.lr 1.0e-3"
    assert "The model repeats itself" in in_a_line(finding, "runs/a")


def test_a_circle_of_two_tokens_that_is_the_same_everywhere_is_found() -> None:
    (finding,) = told(always(of(["ab" * 16] * 4), since=1200))
    assert finding.since == 1200


@pytest.mark.parametrize(
    "texts",
    [
        CIRCLES,
        ["-" * 32, *CIRCLES[:3]],
        [" " * 20 + "return x\n   ", *CIRCLES[:3]],
        [" the" * 8] * 4,
        ["DDRR", "DRDR", "RRDD", "DDDR"],
        ["DRUL" * 8] * 4,
        ["1234341223414123"] * 4,
        ["7"] * 4,
        [],
    ],
    ids=[
        "circles",
        "a line",
        "indented",
        "the the",
        "short ways",
        "long ways",
        "sudoku",
        "one answer",
        "nothing",
    ],
)
def test_circles_lines_and_answers_raise_nothing(texts: list[str]) -> None:
    assert told(always(of(texts))) == []


def test_the_beginning_and_a_single_round_raise_nothing() -> None:
    assert told(dict.fromkeys((200, 400, 600), COLLAPSED)) == []
    assert told({1000: COLLAPSED, 1400: COLLAPSED}) == []
    short = dict.fromkeys((200, 400), COLLAPSED)
    assert told(short, total=400) == [], "runs so short are beginnings altogether"


def test_it_is_told_again_when_it_comes_again() -> None:
    again = dict.fromkeys((800, 1000, 1200, 1800, 2000), COLLAPSED)
    assert [finding.since for finding in told(again)] == [800, 1800]


@given(st.lists(st.lists(st.integers(0, 9), max_size=40), max_size=5))
def test_variety_counts_like_its_slow_twin(texts: list[list[int]]) -> None:
    flat = [token for text in texts for token in text]
    found = variety(texts)
    assert found["greedy_tokens"] == len(flat)
    if not flat:
        assert found == {"greedy_tokens": 0}
        return
    assert found["distinct_token_ratio"] == pytest.approx(len(set(flat)) / len(flat))
    assert found["top_token_share"] == pytest.approx(max(flat.count(token) for token in flat) / len(flat))


@pytest.mark.parametrize("name", ["greedy_tokens", "distinct_token_ratio", "top_token_share"])
@pytest.mark.parametrize("broken", [None, "x", [], float("nan"), True])
def test_broken_fields_raise_nothing(name: str, broken: object) -> None:
    assert told(always({**COLLAPSED, name: broken})) == []
