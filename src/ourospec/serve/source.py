"""Where the tokens of a text come from, one after the other. Letters: L layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch

from ourospec.serve.sampling import Sampling, choose
from ourospec.serve.session import DecodingSession, Reading


class Chosen(NamedTuple):
    """A token of the text."""

    token: int
    passes: tuple[int, ...]
    """[L], passes that each layer ran at the position that chose it."""


class TokenSource(Protocol):
    """Gives the tokens of a text in order, for as long as it is asked; the end token is one of them.

    Nobody asks further once the text has ended, so that a source computes a position when it is asked, not before.
    """

    def __next__(self) -> Chosen: ...


class Draw(NamedTuple):
    """How the tokens of one text are drawn."""

    sampling: Sampling
    generator: torch.Generator
    """The text's own, on the CPU."""
    vocab_size: int
    """Tokens that can be drawn: a head may be padded to a round size, and the rows behind stand for nothing."""
    most: int
    """Tokens that will be asked for at most."""

    def choose(self, reading: Reading) -> Chosen:
        """Draw what follows a reading."""
        token = choose(reading.logits[: self.vocab_size], self.sampling, self.generator)
        return Chosen(token, reading.passes)


class Plain:
    """One position after the other.

    Args:
        session: has read the prompt.
        reading: what it said behind it.
    """

    def __init__(self, session: DecodingSession, reading: Reading, draw: Draw) -> None:
        self.session, self.draw = session, draw
        self._reading: Reading | None = reading
        self._last = -1

    def __next__(self) -> Chosen:
        reading = self._reading if self._reading is not None else self.session.feed([self._last])
        self._reading = None
        chosen = self.draw.choose(reading)
        self._last = chosen.token
        return chosen


SourceMaker = Callable[[DecodingSession, Reading, Draw], TokenSource]
"""Opens a source behind a prompt that the session has read; the reading is what it said there."""
