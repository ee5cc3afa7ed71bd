"""Token by token: documents cut into chunks, and what a model makes of each target.

Letters: B rows, T positions, L layers, V vocabulary, n targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ourospec.contracts import Effort, LanguageModel, Output
from ourospec.device import DevicePolicy

# Elements of logits held at a time: 16 Mi in float32 are 64 MiB.
LOGIT_ELEMENTS = 1 << 24
# Chunks sorted by length together, in batches: enough that rows of a batch are nearly of one length.
SORTED_BATCHES = 16
IGNORED = -100
Seen = TypeVar("Seen")


class ScoredDocument(Protocol):
    """What scoring needs of a document; see data/shards.py."""

    @property
    def tokens(self) -> np.ndarray: ...

    @property
    def num_bytes(self) -> int: ...


class Chunk(NamedTuple):
    """Consecutive targets of one document, and the tokens that they are foretold from."""

    document: int
    """Number of the document, from 0."""
    inputs: np.ndarray
    targets: np.ndarray


class Grid(NamedTuple):
    """Chunks as rows, one document a row; what is padded comes last, where a causal model does not see it."""

    inputs: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    """IGNORED where there is none."""

    @property
    def scored(self) -> Tensor:
        """[B, T] whether there is a target."""
        return self.targets != IGNORED


class Scored(NamedTuple):
    """What a model made of a grid, on the CPU."""

    nats: Float[Tensor, "B T"]
    """float64, −ln p of each target, 0 where there is none."""
    passes: Int[Tensor, "L B T"]
    """Passes that were run, padding included."""


class Guessed(NamedTuple):
    """What a model made of a grid, and whether it would have said the same, on the CPU."""

    scored: Scored
    right: Bool[Tensor, "B T"]
    """Whether the likeliest token is the target; false where there is no target."""


def cut(documents: Iterable[ScoredDocument], end_id: int, window: int) -> Iterator[Chunk]:
    """Each document as END d END, in consecutive chunks of at most `window` targets."""
    for number, document in enumerate(documents):
        stream = np.concatenate(([end_id], document.tokens, [end_id])).astype(np.int64)
        for start in range(0, len(stream) - 1, window):
            end = min(start + window, len(stream) - 1)
            yield Chunk(number, stream[start:end], stream[start + 1 : end + 1])


def in_batches(chunks: Iterable[Chunk], rows: int) -> Iterator[list[Chunk]]:
    """Batches of at most `rows` chunks of nearly one length."""
    chunks = iter(chunks)
    while group := list(islice(chunks, rows * SORTED_BATCHES)):
        group.sort(key=lambda chunk: len(chunk.inputs))
        for start in range(0, len(group), rows):
            yield group[start : start + rows]


def lay_out(chunks: list[Chunk], end_id: int) -> Grid:
    """Chunks as rows of their common length."""
    longest = max(len(chunk.inputs) for chunk in chunks)
    inputs = torch.full((len(chunks), longest), end_id)
    targets = torch.full_like(inputs, IGNORED)
    for row, chunk in enumerate(chunks):
        inputs[row, : len(chunk.inputs)] = torch.from_numpy(chunk.inputs)
        targets[row, : len(chunk.targets)] = torch.from_numpy(chunk.targets)
    return Grid(inputs, targets)


@dataclass(frozen=True)
class TokenScorer:
    """Runs grids through a model."""

    model: LanguageModel
    policy: DevicePolicy

    def score(self, grid: Grid, effort: Effort | None) -> Scored:
        """−ln p of each target, and the passes behind it."""
        nats, output = self._judge(grid, effort, _nats)
        return Scored(nats.double(), output.passes.cpu())

    def guess(self, grid: Grid, effort: Effort | None) -> Guessed:
        """As `score`, and whether the likeliest token is right."""
        return self.inspect(grid, effort, lambda _: None)[0]

    def inspect(
        self, grid: Grid, effort: Effort | None, look: Callable[[Output], Seen]
    ) -> tuple[Guessed, Seen]:
        """As `guess`, and what `look` sees in the model's output."""
        found, output = self._judge(grid, effort, _nats_and_right)
        scored = Scored(found[..., 0].double(), output.passes.cpu())
        return Guessed(scored, found[..., 1].bool()), look(output)

    def _judge(
        self, grid: Grid, effort: Effort | None, judge: Callable[[Tensor, Tensor], Tensor]
    ) -> tuple[Tensor, Output]:
        """[B, T, ...] of logits [n, V] and targets [n], on the CPU, a few rows of logits at a time; and the output.

        Single values are exact in float32; every sum is taken in float64, which not all devices have.
        """
        with self.policy.inference(self.model):
            output: Output = self.model(grid.inputs.to(self.policy.device), effort=effort)
            flat, wanted = output.states.flatten(0, 1), grid.targets.to(output.states.device).flatten()
            vocabulary = self.model.logits(flat[:1]).shape[-1]
            size = max(1, LOGIT_ELEMENTS // vocabulary)
            parts = [
                judge(self.model.logits(rows), target)
                for rows, target in zip(flat.split(size), wanted.split(size), strict=True)
            ]
            return torch.cat(parts).unflatten(0, grid.targets.shape).cpu(), output


def _nats(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)


def _nats_and_right(logits: Tensor, targets: Tensor) -> Tensor:
    nats = _nats(logits, targets)
    return torch.stack([nats, (logits.argmax(-1) == targets).to(nats.dtype)], dim=-1)
