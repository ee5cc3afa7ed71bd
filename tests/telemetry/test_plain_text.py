"""What a model writes can be shown without being obeyed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourospec.telemetry.plain_text import visible


@given(st.text())
def test_nothing_acts_and_nothing_is_lost(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    for before, after in zip(text, shown, strict=True):
        assert after in "\n\t" or after.isprintable() or after.isspace()
        if before.isprintable():
            assert after == before
    shown.encode("utf-8")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", "␛[31mred"),
        ("a\x00b\x7f", "a␀b␡"),
        ("\u202eturned", "\ufffdturned"),
        ("half \ud83d", "half \ufffd"),
        ("back\rforth", "back␍forth"),
        ("next line\x85", "next line\ufffd"),
        ("tab\tand\nline", "tab\tand\nline"),
        ("a\u00a0b\u3000c", "a\u00a0b\u3000c"),
        ("é猫", "é猫"),
    ],
)
def test_examples(text: str, shown: str) -> None:
    assert visible(text) == shown
