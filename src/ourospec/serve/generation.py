"""From a prompt to a text: tokens from a source, until the text ends.

Letters: L layers, n generated tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch

from ourospec.contracts import Effort, LanguageModel
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.serve.sampling import Sampling
from ourospec.serve.session import DecodingSession
from ourospec.serve.source import Draw, Plain, SourceMaker, TokenSource
from ourospec.serve.text import Piece, TextStream

Finish = Literal["end", "stop", "length"]
"""Why a text ended: the model ended it, a stop string came up, or the number of tokens was reached."""


class Vocabulary(Protocol):
    """What decoding needs of a tokenizer; data/tokenizers.py has the whole of it."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def end_id(self) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def token_bytes(self, token: int, /) -> bytes: ...


@dataclass(frozen=True)
class Generation:
    """A generated text. `"".join(pieces) == text`; tokens, passes and pieces have n entries each."""

    text: str
    tokens: list[int]
    """As chosen, without the end token; behind a stop string's first character they gave no text."""
    passes: list[list[int]]
    """[n][L], passes that each layer ran at the position that chose the token."""
    pieces: list[str]
    """Text by token; empty where a token gave only a part of a character."""
    finish: Finish


def generate(
    model: LanguageModel,
    tokenizer: Vocabulary,
    prompt: str,
    *,
    policy: DevicePolicy,
    max_new_tokens: int = 256,
    sampling: Sampling | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    effort: Effort | None = None,
    open_source: SourceMaker = Plain,
    on_piece: Callable[[Piece], None] | None = None,
) -> Generation:
    """Continue a prompt, which stands at the start of a document.

    Of a prompt longer than the model's `max_length` the last half of that length is read; see DecodingSession.
    The same arguments give the same text. Randomness comes from a generator of its own: the global ones are
    neither read nor moved.

    Args:
        max_new_tokens: tokens at most, from 1.
        sampling: how tokens are drawn; None for the defaults of `Sampling`.
        seed: 0 to 2⁶³ − 1.
        stop: strings that end the text; they are cut off.
        effort: how long the model may think; None leaves it as trained.
        open_source: what gives the tokens.
        on_piece: called with each token's text as soon as it is final (streaming).

    Raises:
        ConfigError: a number out of range, an empty stop string, or an effort that the model does not have.
        DivergedError: the model's predictions are not finite.
    """
    refuse_nonsense(max_new_tokens, seed)
    stream = TextStream(stop, on_piece)
    start = [tokenizer.end_id, *tokenizer.encode(prompt)]
    session = DecodingSession(model, policy, len(start) + max_new_tokens - 1, effort)
    generator = torch.Generator().manual_seed(seed)
    draw = Draw(sampling or Sampling(), generator, tokenizer.vocab_size, max_new_tokens)
    source = open_source(session, session.feed(start), draw)
    finish = write(source, stream, tokenizer, max_new_tokens)
    return Generation(
        text=stream.text,
        tokens=[piece.token for piece in stream.pieces],
        passes=[list(piece.passes) for piece in stream.pieces],
        pieces=[piece.text for piece in stream.pieces],
        finish=finish,
    )


def write(source: TokenSource, stream: TextStream, tokenizer: Vocabulary, most: int) -> Finish:
    """Take tokens from the source into the stream until the text ends."""
    finish: Finish = "length"
    for _ in range(most):
        token, passes = next(source)
        if token == tokenizer.end_id:
            finish = "end"
            break
        stream.feed(token, tokenizer.token_bytes(token), passes)
        if stream.stopped:
            finish = "stop"
            break
    stream.finish()
    return finish


def refuse_nonsense(max_new_tokens: int, seed: int) -> None:
    """Raise ConfigError for numbers that cannot be meant."""
    if max_new_tokens < 1:
        raise ConfigError(f"{max_new_tokens} new tokens were asked for.", "Ask for at least 1.")
    if not 0 <= seed < 1 << 63:
        raise ConfigError(f"The seed {seed} is out of range.", "Choose a seed from 0 to 2**63 - 1.")
