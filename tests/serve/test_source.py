"""A session can read several positions at once and take them back; a source computes what it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ourospec.contracts import Effort
from ourospec.serve.generation import generate
from ourospec.serve.receipt import Machinery
from ourospec.serve.sampling import GREEDY
from ourospec.serve.session import DecodingSession
from ourospec.serve.source import Chosen, Draw, Plain

CLOSE = {"rtol": 1e-4, "atol": 1e-4}
TOKENS = list(b"some tokens to read")


def test_reading_at_once_says_what_reading_one_by_one_says(model: Any, policy: Any) -> None:
    alone, together = (DecodingSession(model, policy, len(TOKENS)) for _ in range(2))
    one_by_one = [alone.feed([token]) for token in TOKENS]
    together.feed(TOKENS[:4])
    at_once = together.read(TOKENS[4:])
    for single, reading in zip(one_by_one[4:], at_once, strict=True):
        assert reading.passes == single.passes
        torch.testing.assert_close(reading.logits, single.logits, **CLOSE)
    assert together.window == TOKENS


def test_another_effort_holds_for_one_call(policy: Any) -> None:
    from .conftest import build

    session = DecodingSession(build("adaptive_lm"), policy, 48)
    session.feed(TOKENS)
    assert session.read(list(b"ab"), Effort(forced_passes=1))[1].passes == (1, 1)
    assert session.read(list(b"ab"), Effort(forced_passes=3))[1].passes == (3, 3)
    assert session.effort is None


def test_what_slides_cannot_be_read_at_once_nor_kept(model: Any, policy: Any) -> None:
    session = DecodingSession(model, policy, 10_000)
    session.feed(TOKENS)
    assert session.room == model.max_length - len(TOKENS)
    with pytest.raises(ValueError, match="have room"):
        session.read([1] * (session.room + 1))
    for length in (0, len(TOKENS) + 1):
        with pytest.raises(ValueError, match="cannot be kept"):
            session.rewind(length)


def test_a_plain_source_reads_no_token_before_it_is_asked_for_the_next(model: Any, policy: Any) -> None:
    session = DecodingSession(model, policy, 48)
    draw = Draw(GREEDY, torch.Generator(), 257, 8)
    source = Plain(session, session.feed(TOKENS), draw)
    first = next(source)
    assert session.window == TOKENS
    second = next(source)
    assert session.window == [*TOKENS, first.token]
    logits, passes = DecodingSession(model, policy, 48).feed([*TOKENS, first.token])
    assert second == Chosen(int(logits[:257].argmax()), passes)


def test_any_source_can_write_a_text(model: Any, policy: Any, vocabulary: Any) -> None:
    class Alphabet:
        def __init__(self, session: DecodingSession, reading: Any, draw: Draw) -> None:
            assert session.window == [256, *b"spam"]
            assert draw.most == 5
            self.token = 96

        def __next__(self) -> Chosen:
            self.token += 1
            return Chosen(self.token, (self.token - 96,))

    made = generate(
        model, vocabulary, "spam", policy=policy, max_new_tokens=5, machinery=Machinery(open_source=Alphabet)
    )
    assert (made.text, made.passes) == ("abcde", [[1], [2], [3], [4], [5]])
