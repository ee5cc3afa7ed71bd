"""Replaying a run: what the diagnosis says of whole, cut off, plain and empty runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ourospec.contracts import Event
from ourospec.errors import DataError
from ourospec.runs import RunDirectory
from ourospec.telemetry.diagnosis import diagnose
from ourospec.telemetry.events import encode


def step(number: int, **more: object) -> Event:
    data = {"loss": 5 - 0.01 * number, "grad_norm": 1.0, "tokens_per_second": 9000.0, "lr_phase": "cosine"}
    return Event("step", number, data | more)


def policy(number: int, depth: float = 1.5, **more: object) -> Event:
    told = {
        "step_kind": "policy",
        "gate": 0.5,
        "wanted_passes": depth,
        "target_passes": 1.5,
        "price_next": 0.01,
    }
    return step(
        number, **(told | {"control_error": depth - 1.5, "deadband": True, "deadband_steps": number} | more)
    )


def told(folder: Path, *events: Event, recipe: str = "{}") -> RunDirectory:
    run = RunDirectory(folder)
    run.recipe.write_text(recipe, encoding="utf-8")
    run.events.write_text("".join(encode(event, 1.79e9) for event in events), encoding="utf-8")
    return run


def test_signs_are_means_over_the_last_fifth_of_the_policy_steps(tmp_path: Path) -> None:
    events = [step(n, step_kind="forced", gate=0.5, mean_passes=2.0) for n in range(1, 101)]
    events += [policy(n, 3.0, delta_ce=-1.0) for n in range(101, 181)]
    events += [
        policy(n, 1.4 + 0.2 * (n % 2), delta_ce=1.0 - n % 2 * 2, near_floor=0.25) for n in range(181, 201)
    ]
    found = diagnose(told(tmp_path, *events))
    signs = {sign.name: sign for sign in found.signs.signs()}
    assert found.signs.span() == (20, 181, 200)
    assert signs["depth"].number == pytest.approx(1.5)
    assert "target 1.500, +0.0%" in signs["depth"].words
    assert signs["swing"].number == pytest.approx(0.0, abs=1e-9), "single batches do not swing"
    assert signs["win rate"].number == 0.5
    assert signs["near_floor"].number == 0.25
    assert signs["deadband"].words == "engaged for 200 policy steps"
    assert signs["loss"].number == pytest.approx(5 - 0.01 * 180.5)


def test_audits_and_forced_steps_are_no_signs_of_the_depth(tmp_path: Path) -> None:
    audit = step(3, step_kind="audit", gate=0.5, wanted_passes=1.0, mean_passes=3.0, delta_ce=-9.0)
    found = diagnose(told(tmp_path, policy(1), policy(2), audit))
    signs = {sign.name: sign.number for sign in found.signs.signs()}
    assert signs["depth"] == 1.5
    assert "delta_ce" not in signs


def test_a_run_in_warm_up_says_that_the_gates_are_not_asked_yet(tmp_path: Path) -> None:
    found = diagnose(told(tmp_path, *(step(n, step_kind="forced", gate=0.1) for n in range(1, 9))))
    assert "forced" in found.stage()
    assert found.signs.span() is None
    assert found.status == "unfinished"
    assert found.episodes == []


def test_an_episode_that_is_over_says_when(tmp_path: Path) -> None:
    events = [Event("start", 0, {"total_steps": 400})]
    events += [step(n, tokens_per_second=900.0 if 100 < n < 200 else 9000.0) for n in range(1, 401)]
    (episode,) = diagnose(told(tmp_path, *events)).episodes
    assert episode.finding.rule == "slow"
    assert 100 < episode.finding.since < episode.finding.step < 200 < (episode.until or 0) < 260


@pytest.mark.parametrize("recipe", ["", "[1]", '{"optim": 3}'])
def test_a_damaged_recipe_does_not_hinder(tmp_path: Path, recipe: str) -> None:
    assert diagnose(told(tmp_path, policy(1), recipe=recipe)).episodes == []


def test_a_run_without_events_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no events yet") as caught:
        diagnose(told(tmp_path))
    assert "ouro train" in caught.value.remedy


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    run = told(tmp_path, policy(1), policy(2))
    run.events.write_text(run.events.read_text() + json.dumps({"v": 1, "kind": "step"})[:9])
    assert diagnose(run).step == 2
