"""From a prompt to a text: tokens from a source, until the text ends.

Letters: L layers, n generated tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

from ourospec.contracts import Effort, LanguageModel
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.serve.budget import Allowance, Governed, open_governor
from ourospec.serve.receipt import Clocked, Machinery, Receipt, write_receipt
from ourospec.serve.sampling import Sampling
from ourospec.serve.session import DecodingSession
from ourospec.serve.source import Chosen, Draw
from ourospec.serve.speculation import Speculative
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
    receipt: Receipt = field(compare=False)
    """What it cost. Equal texts may have taken different times: comparing two leaves it out."""


class Writer:
    """Takes the chosen tokens of one text until it ends.

    Args:
        most: tokens at most.
    """

    def __init__(self, stream: TextStream, tokenizer: Vocabulary, most: int) -> None:
        self.stream, self.tokenizer, self.most = stream, tokenizer, most
        self.finish: Finish | None = None
        self.chosen = 0
        """Tokens taken, the end token included."""

    def take(self, chosen: Chosen) -> bool:
        """Take the next token; whether the text goes on."""
        self.chosen += 1
        if chosen.token == self.tokenizer.end_id:
            self.finish = "end"
        else:
            self.stream.feed(chosen.token, self.tokenizer.token_bytes(chosen.token), chosen.passes)
            if self.stream.stopped:
                self.finish = "stop"
            elif self.chosen == self.most:
                self.finish = "length"
        if self.finish is not None:
            self.stream.finish()
        return self.finish is None

    @property
    def passes(self) -> list[list[int]]:
        """[n][L], of the tokens of the text."""
        return [list(piece.passes) for piece in self.stream.pieces]

    def generation(self, receipt: Receipt) -> Generation:
        """The text, once it has ended."""
        assert self.finish is not None
        pieces = self.stream.pieces
        return Generation(
            text=self.stream.text,
            tokens=[piece.token for piece in pieces],
            passes=self.passes,
            pieces=[piece.text for piece in pieces],
            finish=self.finish,
            receipt=receipt,
        )


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
    allowance: Allowance | None = None,
    machinery: Machinery | None = None,
    on_piece: Callable[[Piece], None] | None = None,
) -> Generation:
    """Continue a prompt, which stands at the start of a document.

    Of a prompt longer than the model's `max_length` the last half of that length is read; see DecodingSession.
    The same arguments give the same text, but for a budget of time. Randomness comes from a generator of its own: the
    global ones are neither read nor moved.

    Args:
        max_new_tokens: tokens at most, from 1.
        sampling: how tokens are drawn; None for the defaults of `Sampling`.
        seed: 0 to 2⁶³ − 1.
        stop: strings that end the text; they are cut off.
        effort: how long the model may think; None leaves it as trained.
        allowance: a budget, in the effort's place.
        machinery: how it is done; None: by the model alone, one token after the other.
        on_piece: called with each token's text as soon as it is final (streaming).

    Raises:
        ConfigError: a number out of range, an empty stop string, or an effort or a budget that the model does not have.
        DivergedError: the model's predictions are not finite.
    """
    refuse_nonsense(max_new_tokens, seed)
    machinery = machinery or Machinery()
    writer = Writer(TextStream(stop, on_piece), tokenizer, max_new_tokens)
    start = [tokenizer.end_id, *tokenizer.encode(prompt)]
    governor = open_governor(model, policy, allowance, tokenizer.end_id)
    effort = effort if governor is None else governor.effort
    capacity = len(start) + max_new_tokens - 1
    session = DecodingSession(model, policy, capacity, effort, machinery.stepper)
    generator = torch.Generator().manual_seed(seed)
    draw = Draw(sampling or Sampling(), generator, tokenizer.vocab_size, max_new_tokens)
    begun = time.perf_counter()
    reading = session.feed(start)
    policy.synchronize()
    read = time.perf_counter()
    opened = source = machinery.open_source(session, reading, draw)
    if governor is not None:
        source = Governed(opened, session, governor)
    while writer.take(next(source)):
        pass
    clocked = Clocked(len(start), read - begun, time.perf_counter() - read, writer.chosen)
    drafts = opened.receipt if isinstance(opened, Speculative) else None
    return writer.generation(write_receipt(clocked, writer.passes, session.work, machinery, governor, drafts))


def refuse_nonsense(max_new_tokens: int, seed: int) -> None:
    """Raise ConfigError for numbers that cannot be meant."""
    if max_new_tokens < 1:
        raise ConfigError(f"{max_new_tokens} new tokens were asked for.", "Ask for at least 1.")
    if not 0 <= seed < 1 << 63:
        raise ConfigError(f"The seed {seed} is out of range.", "Choose a seed from 0 to 2**63 - 1.")
