"""The red flags: a healthy run raises none, each illness raises its own, and no field is taken for granted.

They stand beside the generator of synthetic runs, which they share with the report.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.contracts import Event
from ourospec.telemetry.alarms import RULES, Finding, Setting, Watch
from ourospec.telemetry.averages import MovingMean
from ourospec.telemetry.reading import Reading

from .illnesses import ILLNESSES
from .synthetic_run import RECIPE, events

STEPS = 600
TOLD = {name: events(steps=STEPS, illness=name) for name in ("", *ILLNESSES)}
FIELDS = sorted({field for event in TOLD["useless"] if event.kind == "step" for field in event.data})


def found(told: Iterable[Event], recipe: dict | None = RECIPE) -> list[Finding]:
    watch = Watch(recipe)
    return [finding for event in told for finding in watch.take(*event)]


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.sampled_from([100, 250, 600, 1500]), dense=st.booleans())
def test_a_healthy_run_raises_no_alarm(seed: int, steps: int, dense: bool) -> None:
    assert found(events(steps=steps, seed=seed, dense=dense)) == []


@pytest.mark.parametrize("illness", ILLNESSES)
def test_each_illness_is_found_by_its_rule_and_told_once(illness: str) -> None:
    rule = ILLNESSES[illness][0]
    findings = found(TOLD[illness])
    names = [finding.rule for finding in findings]
    assert names.count(rule) == 1
    assert set(names) <= {rule, "closing_gates"}, (
        "and by no other, but that gates close before all are closed"
    )
    finding = next(finding for finding in findings if finding.rule == rule)
    assert 0 < finding.since <= finding.step <= STEPS
    assert any(character.isdigit() for character in finding.evidence)
    assert finding.title and finding.cause and not finding.title.endswith(".")
    for complete in (False, True):
        advice = finding.advice("runs/a b", complete=complete)
        assert advice.startswith("ouro ") and "RUN" not in advice and "NEW" not in advice
        assert "'runs/a b'" in advice or advice == "ouro doctor"


@pytest.mark.parametrize("illness", ["exploded", "slow", "useless", "apart"])
def test_an_illness_is_found_without_the_recipe_and_the_length_of_the_run(illness: str) -> None:
    told = [event for event in TOLD[illness] if event.kind != "start"]
    assert ILLNESSES[illness][0] in [finding.rule for finding in found(told, None)]


@settings(max_examples=30, deadline=None)
@given(
    illness=st.sampled_from(["", *ILLNESSES]),
    dropped=st.sets(st.sampled_from(FIELDS)),
    broken=st.dictionaries(
        st.sampled_from(FIELDS),
        st.sampled_from(
            [None, "x", True, [], [None], [[]], [[1.0], ["x"]], {}, float("nan"), 0, -1.0, [0.0]]
        ),
        max_size=6,
    ),
)
def test_no_rule_raises_whatever_is_missing_or_broken(
    illness: str, dropped: set[str], broken: dict[str, object]
) -> None:
    told = TOLD[illness][:: 2 if dropped else 1]
    for event in told:
        if event.kind == "step":
            kept = {name: value for name, value in event.data.items() if name not in dropped}
            event = event._replace(data=kept | broken)
        assert all(isinstance(finding, Finding) for finding in found([event]))
    changed = [
        event._replace(data={n: v for n, v in (event.data | broken).items() if n not in dropped})
        for event in told
    ]
    found(changed)


@pytest.mark.parametrize(
    "broken", [None, "x", True, [], [None], {}, float("nan"), 0, -1.0, [0.0], [[]], [[1.0], 2]]
)
def test_no_rule_raises_when_one_field_is_always_broken(broken: object) -> None:
    for name in FIELDS:
        found(event._replace(data={**event.data, name: broken}) for event in TOLD["collapsed"][:250:3])


def test_forced_steps_say_nothing_of_the_gates() -> None:
    forced = [event for event in TOLD["exploded"] if event.kind == "step"]
    told = [event._replace(data={**event.data, "step_kind": "forced"}) for event in forced]
    assert found(told) == []


def test_closed_gates_are_no_trouble_where_the_depth_is_met() -> None:
    told = [
        event._replace(data={**event.data, "near_floor": 0.8}) for event in TOLD[""] if event.kind == "step"
    ]
    assert found(told) == []


def test_a_price_that_rests_in_the_deadband_is_not_pinned() -> None:
    resting = {"price": 0.01, "price_next": 0.01, "deadband": True}
    told = [event._replace(data=event.data | resting) for event in TOLD["pinned"]]
    assert "price_pinned" not in [finding.rule for finding in found(told)]


def test_an_episode_that_ends_and_comes_again_is_told_again() -> None:
    steps = [event for event in TOLD[""] if event.kind == "step"]
    gap = {"expected_passes": 0.5}
    told = []
    for event in steps:
        ill = 150 < event.step < 250 or event.step > 400
        told.append(event._replace(data=event.data | gap) if ill else event)
    assert [finding.rule for finding in found(told)] == ["hard_soft_gap"] * 2


def test_a_spike_shorter_than_the_patience_is_no_finding() -> None:
    told = []
    for event in TOLD[""]:
        spike = (
            {"lm_loss": 99.0, "grad_norm": 900.0} if event.kind == "step" and event.step in (300, 301) else {}
        )
        told.append(event._replace(data=event.data | spike))
    assert "loss_spike" not in [finding.rule for finding in found(told)]


def test_a_slower_machine_after_a_resume_is_no_finding() -> None:
    told = []
    for event in TOLD[""]:
        if event.kind == "step" and event.step == 300:
            told.append(Event("start", 299, {"total_steps": STEPS, "resumed_from": 299}))
        late = event.kind == "step" and event.step >= 300
        told.append(event._replace(data=event.data | {"tokens_per_second": 100.0}) if late else event)
    assert "slow" not in [finding.rule for finding in found(told)]


def test_a_diverged_end_is_a_finding() -> None:
    assert [f.rule for f in found([Event("end", 9, {"status": "diverged"})])] == ["diverged"]
    assert found([Event("end", 9, {"status": "failed"})]) == []


def test_an_illness_that_another_explains_is_not_told_beside_it() -> None:
    flat = [[1.0, 0.99, 0.98, 0.97]] * 4
    told = [
        e._replace(data=e.data | {"layer_s_trace": flat}) if e.kind == "step" else e for e in TOLD["exploded"]
    ]
    names = [finding.rule for finding in found(told)]
    assert "explosion" in names
    assert "budget_missed" not in names


def test_the_names_of_the_rules_are_theirs_alone_and_explain_only_each_other() -> None:
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    for index, rule in enumerate(RULES):
        assert rule.explained_by <= set(names[:index]), "explanations are judged first"


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60), st.integers(1, 30))
def test_a_moving_mean_equals_its_slow_twin(numbers: list[float], steps: int) -> None:
    mean, weights = MovingMean(steps), np.zeros(0)
    for count, number in enumerate(numbers, start=1):
        mean.add(number)
        new = 1 / min(count, steps)
        weights = np.append(weights * (1 - new), new)
    expected = float(weights @ np.array(numbers))
    assert mean.mean == pytest.approx(expected, abs=1e-6)
    assert mean.variance == pytest.approx(float(weights @ (np.array(numbers) - expected) ** 2), abs=1e-3)


def test_a_reading_doubts_every_field() -> None:
    data = {
        "a": True,
        "b": 2,
        "c": [1, 2.5],
        "d": [1, "x"],
        "e": [[1], [2, 3]],
        "f": float("inf"),
        "g": [[1], 2],
    }
    reading = Reading("step", 1, data)
    assert [reading.number(name) for name in "abcfz"] == [None, 2.0, None, None, None]
    assert [reading.vector(name) for name in "bcdz"] == [None, [1.0, 2.5], None, None]
    assert [reading.matrix(name) for name in "cegz"] == [None, [[1.0], [2.0, 3.0]], None, None]
    assert (reading.flag("a"), reading.flag("b")) == (True, False)


def test_steps_are_scaled_with_the_run_and_bounded() -> None:
    assert [Setting({}, total).scaled(0.1, 10, 100) for total in (0, 50, 500, 5000)] == [32, 10, 50, 100]
    assert Setting({"a": {"b": 2}}).number("a", "b") == 2
    assert Setting({"a": {"b": 2}}).number("a", "b", "c") is None


def test_the_page_about_diagnosis_knows_every_rule() -> None:
    page = (Path(__file__).parents[2] / "docs" / "diagnose.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)`( \(severe\))? \|", page, re.M))
    for rule in RULES:
        assert rule.name in rows, rule.name
        assert bool(rows[rule.name]) == (rule.severity == "severe"), rule.name
