"""docs/log-guide.md shows lines that the code writes, and explains all that is in them."""

from __future__ import annotations

import re

import pytest

from ourospec.telemetry.stats_file import LAYER_NAMES, NAMES

from . import write_log_guide
from .steps import audit, forced, policy
from .write_log_guide import GUIDE, log_example, recorded, with_examples


@pytest.fixture(scope="module")
def guide() -> str:
    return GUIDE.read_text(encoding="utf-8")


def test_the_examples_are_what_the_code_writes(guide: str) -> None:
    assert with_examples(guide) == guide, f"run: python {write_log_guide.__file__}"


def test_the_recorded_events_show_every_level_and_kind() -> None:
    kinds = {event.data.get("step_kind") for event in recorded()}
    assert kinds >= {"forced", "policy", "audit"}
    shown = log_example()
    for part in (
        "INIT | PARAMS",
        "STEP: ",
        "[FORCED]",
        "[AUDIT L",
        "\nL0: ",
        "L0 s_trace: ",
        "LR CHECK: (",
        "QUALITY",
    ):
        assert part in shown


def test_every_field_of_a_line_is_explained(guide: str) -> None:
    words = re.sub(r"^```.*?^```", "", guide, flags=re.M | re.S)
    explained = set(re.findall(r"`([^`\n]+)`", words))
    lines = [
        line
        for step in (policy(50), forced(50), audit(50))
        for line in write_log_guide.step_lines(step, False)
    ]
    names = set()
    for line in lines:
        if "DEADBAND" in line or line.startswith("==="):
            continue
        names |= set(re.findall(r"(?:^|[|(,:] ?)([^\W\d][\w./]*|≥\d)(?:: ?|=)", line))
        names |= set(re.findall(r"\[[A-Z][A-Z +-]*", line))
    names = {re.sub(r"^L\d$", "L0", name) for name in names}
    missing = {name for name in names if not any(word.startswith(name) for word in explained)}
    assert len(names) > 30
    assert not missing


@pytest.mark.parametrize("name", [*NAMES, *LAYER_NAMES, "baton_rat", "lam_mu"])
def test_every_name_of_the_stats_is_in_the_guide(guide: str, name: str) -> None:
    assert re.search(rf'[`"]{name}[`"]', guide)


def test_the_parts_of_the_recorded_losses_add_up() -> None:
    for event in recorded()[1:]:
        data = event.data
        parts = [data.get(name, 0.0) for name in ("lm_loss", "aux_loss", "ponder", "gate_loss")]
        assert data["loss"] == pytest.approx(sum(parts), rel=1e-4)
