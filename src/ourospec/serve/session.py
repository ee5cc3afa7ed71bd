"""The one decode path: tokens into a model with a cache.

Letters: B rows, T positions fed, V vocabulary, L layers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ourospec.contracts import Effort, LanguageModel, Stepper
from ourospec.device import DevicePolicy


class Reading(NamedTuple):
    """What the model says after the last token that it was fed."""

    logits: Float[Tensor, " V"]
    """Of the next token."""
    passes: tuple[int, ...]
    """[L], passes run at the last position."""


class Work(NamedTuple):
    """One forward pass of one text."""

    past: int
    """Positions before the first that was read."""
    passes: Int[Tensor, "L 1 T"]
    """Run at each position that was read."""
    stepped: bool
    """Whether the stepper did it."""


class Answer(NamedTuple):
    """What a forward pass of several rows says."""

    logits: Float[Tensor, "B t V"]
    """Of what follows each position, or the last one alone (t = 1)."""
    passes: Int[Tensor, "L B T"]
    """Run at each position."""
    stepped: bool
    """Whether the stepper did it."""

    def work(self, row: int, past: int) -> Work:
        """What it took for one row that had read `past` positions."""
        return Work(past, self.passes[:, row : row + 1], self.stepped)


class Engine:
    """A model, and beside it what decodes single positions faster, where there is such a thing.

    Args:
        stepper: of the same model. Beside one the model computes in float32, too, so that what is read at once and what
            is read one by one agree up to rounding.
    """

    def __init__(self, model: LanguageModel, policy: DevicePolicy, stepper: Stepper | None = None) -> None:
        self.model, self.stepper = model, stepper
        self.policy = policy if stepper is None else replace(policy, autocast_dtype=None)

    def read(
        self, rows: Sequence[Sequence[int]], cache: Any, effort: Effort | None, *, all_logits: bool = False
    ) -> Answer:
        """Read further tokens of each row, equally many, behind what the cache holds.

        Args:
            all_logits: say what follows every position, not the last alone.
        """
        tokens = torch.tensor(rows, device=self.policy.device)
        start = 0 if all_logits else tokens.shape[1] - 1
        if self._may_step(tokens, effort, all_logits):
            assert self.stepper is not None
            with torch.no_grad():
                output = self.stepper(tokens, cache, effort)
                return Answer(self.stepper.logits(output.states[:, start:]), output.passes, True)
        with self.policy.inference(self.model):
            output = self.model(tokens, cache=cache, effort=effort)
            return Answer(self.model.logits(output.states[:, start:]), output.passes, False)

    @contextlib.contextmanager
    def stepping_by(self, stepper: Stepper | None) -> Iterator[None]:
        """Single positions are decoded by another stepper of the same model meanwhile; None changes nothing."""
        own, self.stepper = self.stepper, stepper or self.stepper
        try:
            yield
        finally:
            self.stepper = own

    def _may_step(self, tokens: Tensor, effort: Effort | None, all_logits: bool) -> bool:
        stepper, (rows, length) = self.stepper, tokens.shape
        if stepper is None or not stepper.supports(effort):
            return False
        # A prompt, of which the last position alone is asked, is read by the model, with the weights as they are.
        few = rows == 1 and all_logits and length <= stepper.positions_at_most
        return rows <= stepper.rows_at_most if length == 1 else few


class DecodingSession:
    """One text in the making: remembers what the model has read, in its cache.

    A text longer than the model's `max_length` slides: when the cache is full, its last half is read again
    from the start, so a step costs a prefill once in max_length/2 tokens and one position otherwise.

    Args:
        capacity: positions that the text will have, as far as is known; the cache is never made longer than
            the model's `max_length`.
        effort: how long the model may think; may be changed between two calls.
        stepper: see Engine.
    """

    def __init__(
        self,
        model: LanguageModel,
        policy: DevicePolicy,
        capacity: int,
        effort: Effort | None = None,
        stepper: Stepper | None = None,
    ) -> None:
        self.engine, self.effort = Engine(model, policy, stepper), effort
        self.capacity = max(1, min(capacity, model.max_length))
        self.window: list[int] = []
        """The tokens that the cache holds."""
        self.cache: Any = None
        """The model's own; None before anything was read."""
        self.work: list[Work] = []
        """All forward passes so far."""

    @property
    def room(self) -> int:
        """Positions that can still be read before the text slides."""
        return self.engine.model.max_length - len(self.window)

    def feed(self, tokens: Sequence[int]) -> Reading:
        """Read further tokens, at least one, and say what comes next."""
        answer = self._read(tokens, self.effort, all_logits=False)
        return Reading(answer.logits[0, -1], tuple(answer.passes[:, 0, -1].tolist()))

    def read(self, tokens: Sequence[int], effort: Effort | None = None) -> list[Reading]:
        """Read further tokens in one forward pass, and say what comes after each of them.

        Args:
            tokens: at least one, at most `room`: what slides is gone, and cannot be rewound.
            effort: in place of the session's own, for this call.
        """
        if len(tokens) > self.room:
            raise ValueError(f"{len(tokens)} tokens were given where {self.room} have room")
        answer = self._read(tokens, self.effort if effort is None else effort, all_logits=True)
        # Where the capacity grew, what had been read was read once more.
        logits, passes = answer.logits[0, -len(tokens) :], answer.passes[:, 0, -len(tokens) :].T.tolist()
        return [Reading(row, tuple(layers)) for row, layers in zip(logits, passes, strict=True)]

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens of the window, at least one."""
        if not 0 < length <= len(self.window):
            raise ValueError(f"the session holds {len(self.window)} tokens, of which {length} cannot be kept")
        if length < len(self.window):
            self.cache.truncate(length)
            del self.window[length:]

    def took_in(self, tokens: Sequence[int], work: Work) -> None:
        """These tokens are in the cache now."""
        self.window += tokens
        self.work.append(work)

    def _read(self, tokens: Sequence[int], effort: Effort | None, *, all_logits: bool) -> Answer:
        fresh = self._make_room(tokens)
        if self.cache is None:
            self.cache = self.engine.model.new_cache(1, self.capacity)
        answer = self.engine.read([fresh], self.cache, effort, all_logits=all_logits)
        self.took_in(fresh, answer.work(0, len(self.window)))
        return answer

    def _make_room(self, tokens: Sequence[int]) -> list[int]:
        """What has to be read for these tokens: more than they where the cache begins anew."""
        if not tokens:
            raise ValueError("a session reads at least one token at a time")
        fresh = list(tokens)
        if len(self.window) + len(fresh) > self.capacity:
            longest = self.engine.model.max_length
            if self.capacity < longest:
                # The text grew longer than was foreseen, not longer than the model reads: nothing is dropped.
                self.capacity = min(longest, 2 * (len(self.window) + len(fresh)))
            fresh = [*self.window, *fresh]
            if len(fresh) > self.capacity:
                fresh = fresh[-max(1, self.capacity // 2) :]
            self.window, self.cache = [], None
        return fresh
