"""Streaming gives exactly the text, never half a character, and ends exactly before a stop string."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourospec.errors import ConfigError
from ourospec.serve.text import Piece, TextStream


def stream(parts: list[bytes], stop: tuple[str, ...] = ()) -> tuple[TextStream, list[Piece]]:
    """Feed the parts as tokens 0, 1, ... until a stop string ends the text."""
    seen: list[Piece] = []
    made = TextStream(stop, seen.append)
    for token, part in enumerate(parts):
        made.feed(token, part, (token,))
        assert made.pieces == seen
        if made.stopped:
            break
    made.finish()
    return made, seen


def split(content: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(c % (len(content) + 1) for c in cuts), len(content)]
    return [content[a:b] for a, b in pairwise(edges)]


def cut(text: str, stops: tuple[str, ...]) -> str:
    """The text before the stop string that is complete first, found character by character."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)]
    return text


cuts = st.lists(st.integers(0, 200), max_size=30)


@given(st.text(), cuts)
def test_text_comes_out_whole_however_its_bytes_are_split(text: str, where: list[int]) -> None:
    content = text.encode("utf-8", "replace")
    parts = split(content, where)
    made, seen = stream(parts)
    assert made.text == content.decode()
    assert [piece.token for piece in seen] == list(range(len(parts)))
    assert all(piece.passes == (piece.token,) for piece in seen)
    for piece in seen:
        assert "�" not in piece.text or "�" in text


@given(st.binary(max_size=40), cuts)
def test_bytes_that_are_no_utf8_come_out_as_every_decoder_shows_them(
    content: bytes, where: list[int]
) -> None:
    made, _ = stream(split(content, where))
    assert made.text == content.decode("utf-8", "replace")


@given(
    st.text("abé\n", max_size=30),
    cuts,
    st.lists(st.text("abé\n", min_size=1, max_size=4), max_size=3).map(tuple),
)
def test_stop_strings_cut_exactly(text: str, where: list[int], stops: tuple[str, ...]) -> None:
    made, seen = stream(split(text.encode(), where), stops)
    assert made.text == cut(text, stops)
    assert made.stopped == any(stop in text for stop in stops)
    assert "".join(piece.text for piece in seen) == made.text


def test_the_stop_string_that_is_complete_first_wins_within_a_token_too() -> None:
    stops = ("abc", "b")
    assert stream([b"xabc"], stops)[0].text == stream([b"x", b"a", b"b", b"c"], stops)[0].text == "xa"


def test_text_is_given_as_soon_as_it_is_final() -> None:
    made = TextStream(("STOP",))
    made.feed(1, b"hello", (1,))
    assert made.text == "hello"
    made.feed(2, b" ST", (1,))
    assert made.text == "hello"
    made.feed(3, b"AY", (1,))
    assert made.text == "hello STAY"


def test_half_a_character_is_held_back() -> None:
    made = TextStream()
    euro = "€".encode()
    made.feed(1, b"a" + euro[:1], (1,))
    made.feed(2, euro[1:2], (1,))
    assert "�" not in made.text
    made.feed(3, euro[2:] + b"b", (1,))
    assert [piece.text for piece in made.pieces] == ["a", "", "€b"]


def test_a_character_that_is_never_completed_shows_at_the_end() -> None:
    made, seen = stream([b"a", "€".encode()[:2]])
    assert made.text == "a�"
    assert [piece.text for piece in seen] == ["a", "�"]


def test_tokens_behind_a_stop_string_are_given_without_text() -> None:
    made, seen = stream([b"x", b"yST", b"OP", b"never fed"], ("STOP",))
    assert [piece.text for piece in seen] == ["x", "y", ""]
    assert made.stopped


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ConfigError):
        TextStream(("\n", ""))
