"""Curves: names that stay, numbers only."""

from __future__ import annotations

import math

import pytest

from ourospec.contracts import Event
from ourospec.telemetry.scalars import LONGEST, curves, scalars, validation

from .steps import audit, plain, policy, start


def test_the_names_of_curves_stay() -> None:
    found = scalars(policy(20))
    for name, value in {
        "train/loss": 3.265,
        "train/lm_loss": 3.25,
        "train/price": 2.1e-3,
        "train/deadband": 1.0,
        "train/grad_norm": 2.41,
        "depth/ran_1": 0.72,
        "depth/survival_2": 0.25,
        "depth/layer_0/k": 1.3,
        "depth/layer_1/avg_exec_token": 1.32,
        "depth/layer_1/passes": 1.32,
        "depth/layer_1/s_trace_3": 0.05,
    }.items():
        assert found[name] == pytest.approx(value), name


def test_an_evaluation_has_curves_of_its_own() -> None:
    data = {"split": "heldout", "loss": 3.3, "loss_se": 0.04, "passes_by_layer": [1.2, 1.4]}
    assert scalars(Event("eval", 5, data)) == {
        "eval/loss": 3.3,
        "eval/loss_se": 0.04,
        "eval/layer_0/passes": 1.2,
        "eval/layer_1/passes": 1.4,
    }


def test_layers_are_drawn_now_and_then() -> None:
    assert any(name.startswith("depth/layer_0/") for name in scalars(policy(30)))
    assert not any(name.startswith("depth/layer_0/") for name in scalars(policy(31)))
    assert "depth/ran_1" in scalars(policy(31))


def test_what_is_no_number_has_no_curve() -> None:
    odd = {"loss": math.nan, "lm_loss": None, "sizes": [1.0, 2.0], "layer_k": [1.0, None, math.inf]}
    found = scalars(audit(10, **odd))
    assert {"train/loss", "train/lm_loss", "train/step_kind", "train/lr_phase", "train/sizes"}.isdisjoint(
        found
    )
    assert "depth/layer_0/k" in found
    assert {"depth/layer_1/k", "depth/layer_2/k"}.isdisjoint(found)
    assert all(math.isfinite(value) for value in found.values())


def test_a_plain_model_has_no_curve_of_depth() -> None:
    assert all(name.startswith("train/") for name in scalars(plain(10)))
    assert scalars(start()) == {}


def test_fields_that_hold_several_numbers_have_a_curve_for_each() -> None:
    odd = {"sizes": [1.0, 2.0], "shares": {"a": 0.25, "b": [0.5, None, "x"]}, "many": [0.0] * (LONGEST + 1)}
    found = scalars(plain(10, **odd))
    assert {name: found[name] for name in found.keys() - scalars(plain(10)).keys()} == {
        "train/sizes_1": 1.0,
        "train/sizes_2": 2.0,
        "train/shares/a": 0.25,
        "train/shares/b_1": 0.5,
    }
    assert scalars(plain(11, **odd)).keys() == scalars(plain(11)).keys(), "now and then only"


def test_an_evaluation_has_the_names_by_which_runs_are_compared() -> None:
    puzzles = {
        "split": "heldout",
        "loss": 0.5,
        "perplexity": 1.65,
        "exact_match": 0.75,
        "tasks": [
            {"task": "pointer", "exact_match": 0.5, "bins": []},
            {"task": "plain a/b", "exact_match": 1.0, "bins": []},
            {"task": "broken", "exact_match": None},
        ],
    }
    event = Event("eval", 5, puzzles)
    assert validation(event) == {
        "val/loss": 0.5,
        "val/ppl": 1.65,
        "val/exact_match": 0.75,
        "val/pointer/exact_match": 0.5,
        "val/plain a_b/exact_match": 1.0,
    }
    assert curves(event) == {**scalars(event), **validation(event)}
    assert validation(Event("eval", 5, {"loss": math.nan})) == {}
    assert validation(plain(5)) == {} and curves(plain(5)) == scalars(plain(5))
