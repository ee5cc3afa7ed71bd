"""Tokens by kind: every one has a kind, and a kind's mean is over its tokens alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourospec.measure.report.history import Moment
from ourospec.measure.report.token_classes import CLASSES, class_of, depth_by_class


@pytest.mark.parametrize(
    ("piece", "name"),
    [
        ("\n    ", "space"), ("", "space"), (" def", "keywords"), ("self", "keywords"), ("_parse", "words"),
        ("été", "words"), (" x1", "words"), ("42", "numbers"), ("3.14", "numbers"), ("1_000", "numbers"),
        ("...", "punctuation"), ("):\n", "punctuation"), ("_", "punctuation"), ("(self", "mixed"), ("'a'", "mixed"),
        ("0x1f", "numbers"), ("猫", "words"),
    ],
)  # fmt: skip
def test_tokens_are_told_apart_by_their_text(piece: str, name: str) -> None:
    assert class_of(piece) == name


@given(st.text(max_size=6))
def test_every_token_has_a_class(piece: str) -> None:
    assert class_of(piece) in CLASSES


def test_depth_by_class_is_a_mean_with_its_error() -> None:
    sample = {"pieces": ["a", "b", "c", "d", "e", "1", ""], "passes": [1.0, 2.0, 3.0, 2.0, 2.0, 9.0, 9.0]}
    cut_off = {"pieces": ["a"], "passes": []}
    rounds = [
        Moment(1, {"samples": [{"pieces": ["a"] * 9, "passes": [8.0] * 9}]}),
        Moment(2, {"samples": [sample, cut_off]}),
    ]
    (found,) = depth_by_class(rounds)
    assert (found.name, found.tokens, found.passes) == ("words", 5, 2.0)
    assert found.error == pytest.approx(np.std([1, 2, 3, 2, 2], ddof=1) / np.sqrt(5))
