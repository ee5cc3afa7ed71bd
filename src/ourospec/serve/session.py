"""The one decode path: tokens into a model with a cache, one position after the other.

Letters: V vocabulary, L layers, n generated tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from ourospec.contracts import Effort, LanguageModel, Output
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.serve.sampling import Sampling, choose
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


class Reading(NamedTuple):
    """What the model says after the last token that it was fed."""

    logits: Float[Tensor, " V"]
    """Of the next token."""
    passes: tuple[int, ...]
    """[L], passes run at the last position."""


class DecodingSession:
    """One text in the making: remembers what the model has read, in its cache.

    A text longer than the model's `max_length` slides: when the cache is full, its last half is read again
    from the start, so a step costs a prefill once in max_length/2 tokens and one position otherwise.

    Args:
        capacity: positions that the text will have, as far as is known; the cache is never made longer than
            the model's `max_length`.
    """

    def __init__(
        self, model: LanguageModel, policy: DevicePolicy, capacity: int, effort: Effort | None = None
    ) -> None:
        self.model, self.policy, self.effort = model, policy, effort
        self.capacity = max(1, min(capacity, model.max_length))
        self.window: list[int] = []
        """The tokens that the cache holds."""
        self._cache: Any = None

    def feed(self, tokens: Sequence[int]) -> Reading:
        """Read further tokens, at least one, and say what comes next."""
        if not tokens:
            raise ValueError("a session reads at least one token at a time")
        fresh = list(tokens)
        if len(self.window) + len(fresh) > self.capacity:
            if self.capacity < self.model.max_length:
                # The text grew longer than was foreseen, not longer than the model reads: nothing is dropped.
                self.capacity = min(self.model.max_length, 2 * (len(self.window) + len(fresh)))
            fresh = [*self.window, *fresh]
            if len(fresh) > self.capacity:
                fresh = fresh[-max(1, self.capacity // 2) :]
            self.window, self._cache = [], None
        if self._cache is None:
            self._cache = self.model.new_cache(1, self.capacity)
        with self.policy.inference(self.model):
            row = torch.tensor([fresh], device=self.policy.device)
            output: Output = self.model(row, cache=self._cache, effort=self.effort)
            logits = self.model.logits(output.states[0, -1])
        self.window += fresh
        return Reading(logits, tuple(output.passes[:, 0, -1].tolist()))


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
        on_piece: called with each token's text as soon as it is final (streaming).

    Raises:
        ConfigError: a number out of range, an empty stop string, or an effort that the model does not have.
        DivergedError: the model's predictions are not finite.
    """
    _refuse_nonsense(max_new_tokens, seed)
    sampling = sampling or Sampling()
    generator = torch.Generator().manual_seed(seed)
    stream = TextStream(stop, on_piece)
    start = [tokenizer.end_id, *tokenizer.encode(prompt)]
    session = DecodingSession(model, policy, len(start) + max_new_tokens - 1, effort)
    reading = session.feed(start)
    finish: Finish = "length"
    for made in range(1, max_new_tokens + 1):
        # A head may be padded to a round size; the rows behind the vocabulary stand for nothing.
        token = choose(reading.logits[: tokenizer.vocab_size], sampling, generator)
        if token == tokenizer.end_id:
            finish = "end"
            break
        stream.feed(token, tokenizer.token_bytes(token), reading.passes)
        if stream.stopped:
            finish = "stop"
            break
        if made < max_new_tokens:
            reading = session.feed([token])
    stream.finish()
    return Generation(
        text=stream.text,
        tokens=[piece.token for piece in stream.pieces],
        passes=[list(piece.passes) for piece in stream.pieces],
        pieces=[piece.text for piece in stream.pieces],
        finish=finish,
    )


def _refuse_nonsense(max_new_tokens: int, seed: int) -> None:
    if max_new_tokens < 1:
        raise ConfigError(f"{max_new_tokens} new tokens were asked for.", "Ask for at least 1.")
    if not 0 <= seed < 1 << 63:
        raise ConfigError(f"The seed {seed} is out of range.", "Choose a seed from 0 to 2**63 - 1.")
