"""The one decode path: tokens into a model with a cache.

Letters: T positions fed, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ourospec.contracts import Effort, LanguageModel, Output
from ourospec.device import DevicePolicy


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
        effort: how long the model may think; may be changed between two calls.
    """

    def __init__(
        self, model: LanguageModel, policy: DevicePolicy, capacity: int, effort: Effort | None = None
    ) -> None:
        self.model, self.policy, self.effort = model, policy, effort
        self.capacity = max(1, min(capacity, model.max_length))
        self.window: list[int] = []
        """The tokens that the cache holds."""
        self._cache: Any = None

    @property
    def room(self) -> int:
        """Positions that can still be read before the text slides."""
        return self.model.max_length - len(self.window)

    def feed(self, tokens: Sequence[int]) -> Reading:
        """Read further tokens, at least one, and say what comes next."""
        fresh = self._make_room(tokens)
        with self.policy.inference(self.model):
            output = self._forward(fresh, self.effort)
            logits = self.model.logits(output.states[0, -1])
        self.window += fresh
        return Reading(logits, tuple(output.passes[:, 0, -1].tolist()))

    def read(self, tokens: Sequence[int], effort: Effort | None = None) -> list[Reading]:
        """Read further tokens in one forward pass, and say what comes after each of them.

        Args:
            tokens: at least one, at most `room`: what slides is gone, and cannot be rewound.
            effort: in place of the session's own, for this call.
        """
        if len(tokens) > self.room:
            raise ValueError(f"{len(tokens)} tokens were given where {self.room} have room")
        fresh = self._make_room(tokens)
        with self.policy.inference(self.model):
            output = self._forward(fresh, self.effort if effort is None else effort)
            logits = self.model.logits(output.states[0])
        self.window += fresh
        passes = output.passes[:, 0].T.tolist()
        return [Reading(row, tuple(layers)) for row, layers in zip(logits, passes, strict=True)]

    def rewind(self, length: int) -> None:
        """Forget all but the first `length` tokens of the window, at least one."""
        if not 0 < length <= len(self.window):
            raise ValueError(f"the session holds {len(self.window)} tokens, of which {length} cannot be kept")
        if length < len(self.window):
            self._cache.truncate(length)
            del self.window[length:]

    def _make_room(self, tokens: Sequence[int]) -> list[int]:
        """What has to be read for these tokens: more than they where the cache begins anew."""
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
        return fresh

    def _forward(self, fresh: list[int], effort: Effort | None) -> Output:
        if self._cache is None:
            self._cache = self.model.new_cache(1, self.capacity)
        row = torch.tensor([fresh], device=self.policy.device)
        return self.model(row, cache=self._cache, effort=effort)
