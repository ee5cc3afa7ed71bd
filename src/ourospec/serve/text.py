"""From tokens to text as they come: no half characters, and stop strings cut exactly."""

from __future__ import annotations

import codecs
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ourospec.errors import ConfigError


class Piece(NamedTuple):
    """One generated token and the text that it completed.

    The text is empty where the token gave only a part of a character, or lies behind a stop string.
    """

    token: int
    text: str
    passes: tuple[int, ...]
    """[L]: passes that each layer ran at the position that chose this token."""


class TextStream:
    """Takes tokens, gives pieces of text as soon as they are final.

    A piece is held back while its last character is incomplete, or while what it ends with may be the
    beginning of a stop string. Each token comes out once, in order.

    Args:
        stop: strings that end the text; they are not part of it.
        on_piece: called with each piece when its text is final.

    Raises:
        ConfigError: a stop string is empty.
    """

    def __init__(self, stop: Sequence[str] = (), on_piece: Callable[[Piece], None] | None = None) -> None:
        if "" in stop:
            raise ConfigError("A stop string is empty, so it would end every text before its first token.")
        self.stop = tuple(stop)
        self.pieces: list[Piece] = []
        self.stopped = False
        self._on_piece = on_piece
        # Bytes that no continuation can make UTF-8 come out as U+FFFD, as in every tokenizer's own decoding.
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held: deque[Piece] = deque()
        self._held_text = ""

    @property
    def text(self) -> str:
        """All that is final so far."""
        return "".join(piece.text for piece in self.pieces)

    def feed(self, token: int, content: bytes, passes: tuple[int, ...]) -> None:
        """Take the next token, whose bytes are `content`."""
        self._hold(Piece(token, self._decoder.decode(content), passes))

    def finish(self) -> None:
        """Nothing follows: release what is held back. A character that was never completed shows as U+FFFD."""
        if not self._held:
            return
        rest = self._decoder.decode(b"", final=True)
        last = self._held.pop()
        self._held_text = self._held_text[: len(self._held_text) - len(last.text)]
        self._hold(last._replace(text=last.text + rest))
        self._release(len(self._held_text))

    def _hold(self, piece: Piece) -> None:
        self._held.append(piece)
        self._held_text += piece.text
        # The stop string that is complete first wins, so that the text does not depend on how it was split
        # into tokens; of two that end together, the one that begins first.
        found = [(at + len(stop), at) for stop in self.stop if (at := self._held_text.find(stop)) >= 0]
        if found:
            self.stopped = True
            self._cut(min(found)[1])
        else:
            self._release(len(self._held_text) - self._beginning_of_stop())

    def _beginning_of_stop(self) -> int:
        """Length of the longest end of the held text with which some stop string begins."""
        longest = min(max(map(len, self.stop), default=1) - 1, len(self._held_text))
        for length in range(longest, 0, -1):
            if any(stop.startswith(self._held_text[-length:]) for stop in self.stop):
                return length
        return 0

    def _cut(self, length: int) -> None:
        """Release everything, with no text after the first `length` characters."""
        kept = length
        for piece in self._held:
            self._emit(piece._replace(text=piece.text[:kept]))
            kept = max(0, kept - len(piece.text))
        self._held.clear()
        self._held_text = ""

    def _release(self, length: int) -> None:
        """Release the pieces that lie wholly within the first `length` characters and hold no half one."""
        half_character = bool(self._decoder.getstate()[0])
        while self._held and len(self._held[0].text) <= length:
            if half_character and len(self._held) == 1:
                break
            piece = self._held.popleft()
            length -= len(piece.text)
            self._held_text = self._held_text[len(piece.text) :]
            self._emit(piece)

    def _emit(self, piece: Piece) -> None:
        self.pieces.append(piece)
        if self._on_piece is not None:
            self._on_piece(piece)
