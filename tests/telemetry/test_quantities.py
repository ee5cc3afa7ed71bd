"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourospec.telemetry import quantities


def test_one_is_singular() -> None:
    assert [quantities.counted(number, "document") for number in (0, 1, 1250)] == [
        "0 documents",
        "1 document",
        "1,250 documents",
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7.25, "7.25"),
        (950, "950"),
        (999.4, "999"),
        (999.6, "1.00 k"),
        (1234, "1.23 k"),
        (12_345, "12.3 k"),
        (999_600, "1.00 M"),
        (5_312_004, "5.31 M"),
        (2e9, "2.00 G"),
        (3.5e12, "3.50 T"),
        (math.inf, "–"),
        (None, "–"),
    ],
)
def test_count(number: float | None, text: str) -> None:
    assert quantities.count(number) == text


@given(st.floats(1e-3, 1e14))
def test_count_is_right_to_three_digits(number: float) -> None:
    text = quantities.count(number)
    value, _, prefix = text.partition(" ")
    scale = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}[prefix]
    assert float(value) * scale == pytest.approx(number, rel=6e-3, abs=6e-3)
    assert float(value) < 1000 or prefix == "T"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.42, "0.4 s"),
        (9.97, "10 s"),
        (59.6, "1 min"),
        (580, "9 min 40 s"),
        (3599.7, "1 h"),
        (11_130, "3 h 5 min"),
        (190_000, "2 d 4 h"),
        (math.nan, "–"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert quantities.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(4, "0:04"), (59.7, "1:00"), (580, "9:40"), (11_100, "3:05:00")]
)
def test_clock(seconds: float, text: str) -> None:
    assert quantities.clock(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(512, "512 bytes"), (40_370_176, "38.5 MiB"), (1 << 40, "1.0 TiB")]
)
def test_size(number: float, text: str) -> None:
    assert quantities.size(number) == text


def test_scientific() -> None:
    assert [quantities.scientific(x) for x in (0.0029, 3e-10, 0, 12.0)] == ["2.9e-3", "3.0e-10", "0", "1.2e1"]


def test_an_error_that_is_not_known_is_not_made_up() -> None:
    assert quantities.with_error(1.5, 0.02) == "1.500 ± 0.020"
    assert quantities.with_error(1.5, None) == "1.500"
    assert quantities.with_error(1.5, math.nan) == "1.500"
    assert quantities.with_error(None, 0.02) == "–"
