"""The lines of train.log, to the letter."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from ourospec.contracts import Event
from ourospec.telemetry.log_lines import (
    deadband_lines,
    end_line,
    quality_line,
    start_lines,
    step_line,
    step_lines,
    warning_line,
)

from .steps import audit, forced, plain, policy, start

COMMON_END = " | dt:  420.00ms | tok/sec:   4876.19"


def test_a_policy_step() -> None:
    assert step_line(policy(1500)) == (
        "STEP: 1500 | TOT: 3.2650 | LM: 3.2500 | PONDER: 0.001000 (RAW: 0.001500, RWD: 0.000500) | GATE: 0.0020"
        " | LR: 2.8000e-03 | GRAD: 2.4100>1.0000 | λ_p: 2.20e-03[DB] | CTRL_ERR: +0.010 | P_NR: 3.2%"
        " | BATON: 0.123 (lam=0.456) | AUX: 0.0030 (SUM: 0.0120) | PL/LM: 0.03%"
        " | AVGS: exec=3.00, k=1.30, gap=1.70, avg=1.32" + COMMON_END
    )


def test_a_forced_step_has_no_word_on_what_nobody_asked_the_gates() -> None:
    assert step_line(forced(7)) == (
        "STEP: 7 [FORCED] | TOT: 3.2500 | LM: 3.2500 | PONDER: 0.000000 (RAW: 0.000000, RWD: 0.000000)"
        " | LR: 2.8000e-03 | GRAD: 2.4100>1.0000 | λ_p: – | CTRL_ERR: – | P_NR: – | PL/LM: 0.00%"
        " | AVGS: exec=2.00, k=2.00, gap=0.00, avg=2.00" + COMMON_END
    )


def test_a_model_that_reads_no_text_tells_its_likelihood_and_its_unit() -> None:
    facts = {"total_steps": 9, "tokens_per_step": 132, "unit": "spacing"}
    assert start_lines(Event("start", 0, facts)) == ["INIT | PARAMS – | 9 steps of 132 spacings"]
    assert step_line(Event("step", 1, {"loss": 0.5, "nll": 0.25})).startswith(
        "STEP: 1 | TOT: 0.5000 | NLL: 0.2500 |"
    )
    early = {"status": "complete", "stopped_early": "no held-out loss below 1.0"}
    assert end_line(Event("end", 8, early)) == "END | complete after step 8 | no held-out loss below 1.0"


def test_an_audit_names_its_layer_and_has_no_error_of_control() -> None:
    line = step_line(audit(1501, layer=1))
    assert line.startswith("STEP: 1501 [AUDIT L1] | TOT: ")
    assert "| CTRL_ERR: – |" in line


def test_a_plain_model_is_not_told_of_depth() -> None:
    assert step_line(plain(3)) == (
        "STEP: 3 | TOT: 3.2500 | LM: 3.2500 | LR: 2.8000e-03 | GRAD: 2.4100>1.0000" + COMMON_END
    )
    assert step_lines(plain(3), False) == [step_line(plain(3))]
    assert step_lines(plain(50), False)[1:] == ["LR CHECK: (50, 2.80e-03, phase=cosine)"]


def test_the_parts_of_the_loss_add_up_to_the_total() -> None:
    found = {
        name: float(number) for name, number in re.findall(r"[ (]([A-Z]+): (\d+\.\d+)", step_line(policy(1)))
    }
    assert found["TOT"] == pytest.approx(found["LM"] + found["PONDER"] + found["GATE"] + found["SUM"])


def test_other_losses_have_their_fields() -> None:
    assert " | MTP: 3.1200 | " in step_line(plain(1, mtp_loss=3.12))
    assert " | AUX: – (SUM: 0.0200) | " in step_line(plain(1, aux_loss=0.02))


def test_every_level_has_its_interval() -> None:
    def levels(step: int) -> list[str]:
        return [
            re.split(r"[ :]", line.replace(" s_trace", "_trace"))[0]
            for line in step_lines(policy(step), True)
        ]

    assert levels(7) == ["STEP", "RECURRENCE"]
    assert levels(20) == ["STEP", "RECURRENCE", "L0", "L1"]
    assert levels(100) == ["STEP", "RECURRENCE", "L0", "L1", "L0_trace", "L1_trace", "LR"]
    assert [line.split()[0] for line in step_lines(forced(7), False)] == ["STEP:"]


def test_layers_and_traces() -> None:
    lines = step_lines(policy(50), True)
    assert lines[3] == (
        "L1: k_exec=3, expected_k=1.30, s_fin=0.042 | tok: avg=1.32, p95=2.00"
        " | tail: ≥2:28.00%, ≥3:4.00%, ≥4:0.00% | ent=– | p_mu=0.25, p_std=0.120, d_rel=0.043"
        " | Δh=0.031, Δp=-0.05 | ponder=0.100, p_loss=0.000210, λ_p=2.10e-03"
    )
    assert lines[4:] == [
        "L0 s_trace: [1.00, 0.25, 0.05, 0.00]",
        "L1 s_trace: [1.00, 0.25, 0.05, 0.00]",
        "LR CHECK: (50, 2.80e-03, phase=cosine)",
    ]


def test_a_deepest_pass_that_is_a_mean_says_so() -> None:
    assert "L0: k_exec=2.50," in step_lines(policy(10, layer_k_exec=[2.5, 2.0]), True)[2]
    assert "ent=0.4321" in step_lines(policy(10, layer_ent=[0.4321, 0.5]), True)[2]


@pytest.mark.parametrize(
    ("kind", "gain", "entropy", "labels"),
    [
        ("policy", 0.04, -0.03, " [ECONOMIC WIN] [CONFIDENCE+]"),
        ("policy", 0.04, 0.03, " [ECONOMIC WIN]"),
        ("policy", 0.04, 0.0, " [ECONOMIC WIN]"),
        ("policy", 0.0, -0.03, " [TAX ONLY]"),
        ("policy", -0.04, -0.03, " [TAX ONLY]"),
        ("audit", 0.04, -0.03, " [AUDIT-POS]"),
        ("audit", 0.0, -0.03, " [AUDIT-NEG]"),
        ("audit", -0.04, 0.03, " [AUDIT-NEG]"),
        ("policy", math.nan, -0.03, ""),
        ("policy", 0.04, None, " [ECONOMIC WIN]"),
    ],
)
def test_labels_of_quality(kind: str, gain: float, entropy: float | None, labels: str) -> None:
    data = {"step_kind": kind, "delta_ce": gain, "delta_h": entropy, "ponder_reward": 0.0005}
    assert quality_line(data).partition("COUPON: 0.000500")[2] == labels


def test_the_numbers_of_quality_are_not_cut_off() -> None:
    line = quality_line({"step_kind": "policy", "delta_ce": -0.0423, "delta_h": 0.0312})
    assert line == "RECURRENCE QUALITY: ΔCE=-0.042300 | ΔH=0.0312 | COUPON: – [TAX ONLY]"


def test_the_deadband_is_announced_when_it_changes() -> None:
    on = {"deadband": True, "price_next": 0.0022, "target_passes": 1.3}
    off = on | {"deadband": False}
    engaged = deadband_lines(on, False)
    assert len(engaged) == 2
    assert engaged[0] == "=== DEADBAND ENGAGED | λ_p: 2.20e-03 | target depth 1.30 passes ==="
    assert deadband_lines(off, True) == ["=== DEADBAND RELEASED | λ_p: 2.20e-03 ==="]
    for quiet in (deadband_lines(on, True), deadband_lines(off, False), deadband_lines(on, None)):
        assert quiet == []
    assert deadband_lines({}, True) == []
    assert step_lines(policy(7), False)[1:3] == engaged


def test_beginnings_and_ends() -> None:
    assert start_lines(start()) == [
        "INIT | PARAMS 5,312,004 | adaptive_lm | tiny | cpu in bfloat16 | 1,000 steps of 2,048 tokens"
    ]
    assert start_lines(Event("start", 0, {})) == ["INIT | PARAMS –"]
    assert start_lines(start(500)) == ["RESUMED | at step 500"]
    assert end_line(Event("end", 9, {"status": "diverged"})) == "END | diverged after step 9"
    assert warning_line(Event("warning", 9, {"message": "a\n  \x1b[2Jb"})) == "WARNING: a ␛[2Jb"


def _ruined(event: Event, value: Any) -> Event:
    return Event("step", event.step, dict.fromkeys(event.data, value))


@pytest.mark.parametrize("value", [None, math.nan, math.inf, "x", [], [None], [[None]], True])
def test_numbers_that_are_none_are_dashes_and_no_crash(value: Any) -> None:
    for line in step_lines(_ruined(policy(50), value), True):
        assert "nan" not in line and "inf" not in line


@pytest.mark.parametrize("missing", sorted(policy(50).data))
def test_any_field_may_be_missing(missing: str) -> None:
    event = policy(50)
    kept = {name: value for name, value in event.data.items() if name != missing}
    assert step_lines(Event("step", 50, kept), False)[0].startswith("STEP: 50")
