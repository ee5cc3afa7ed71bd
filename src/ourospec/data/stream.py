"""Training batches whose order is a pure function of (seed, step). Letters: B rows, T positions, N tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from ourospec.data.batch import TokenBatch
from ourospec.data.shards import TokenShards
from ourospec.errors import ConfigError, DataError

_ORDER = "windows-v1"
"""Names the order below; a change of it changes every stream's fingerprint."""


class TokenStream:
    """Windows of the training tokens in a random order, each once an epoch.

    An epoch cuts the tokens into windows of T + 1 that overlap in one token, from an offset of its own (0 to
    2T − 2), and goes through them in an order of its own; both come from Philox, a counter-based generator, keyed
    by (seed, epoch). Row i of step s is sample s · batch_size + i of this endless sequence, whatever the number of
    ranks and the size of a micro-batch. Only the newest epochs' orders are kept: no position has to be stored.

    Args:
        byte_lengths: [V], bytes of text that each token stands for.
        window: T.
        batch_size: rows of an optimiser step, over all ranks.
        micro_batch_size: rows at a time, at most.
        rank, world_size: which contiguous share of the rows is this process's.

    Raises:
        DataError: there are not T + 1 tokens.
        ConfigError: the rows cannot be shared out evenly, or a size is not positive.
    """

    def __init__(
        self,
        shards: TokenShards,
        byte_lengths: np.ndarray,
        source: str,
        *,
        window: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_sizes(window, batch_size, micro_batch_size, rank, world_size)
        if shards.num_tokens <= window:
            raise DataError(
                f"The {shards.name} text has {shards.num_tokens} tokens, fewer than one window of {window} and the "
                "token after it.",
                f"Give more text, or read shorter windows: --train.window {max(shards.num_tokens - 1, 1)} at most",
            )
        self._shards, self._byte_lengths = shards, byte_lengths
        self.window, self.seed = window, seed
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        # One window fewer than would fit, where there are several, leaves room for the epochs' offsets.
        self.windows_per_epoch = max(1, (shards.num_tokens - window) // window)
        self._slack = shards.num_tokens - 1 - self.windows_per_epoch * window
        share = batch_size // world_size
        self._rows = range(rank * share, (rank + 1) * share)
        order = f"{_ORDER}\n{source}\n{window}\n{batch_size}\n{seed}"
        self._fingerprint = hashlib.sha256(order.encode()).hexdigest()
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    @property
    def fingerprint(self) -> str:
        """Changes with the text, the split, the tokenizer, the window, the batch size or the seed."""
        return self._fingerprint

    @property
    def tokens_per_step(self) -> int:
        """Targets of an optimiser step, over all ranks."""
        return self.batch_size * self.window

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in which each window comes once."""
        return self.windows_per_epoch / self.batch_size

    def batches(self, step: int) -> Sequence[TokenBatch]:
        """The micro-batches of optimiser step `step` (from 0), for this rank."""
        samples = step * self.batch_size + np.arange(self._rows.start, self._rows.stop)
        starts = self.starts(samples)
        size = self.micro_batch_size
        return [self._batch(starts[i : i + size]) for i in range(0, len(starts), size)]

    def starts(self, samples: np.ndarray) -> np.ndarray:
        """[n] where the windows of these samples begin in the tokens."""
        epochs, places = np.divmod(samples, self.windows_per_epoch)
        starts = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            offset, order = self._epoch(epoch)
            here = epochs == epoch
            starts[here] = offset + order[places[here]] * self.window
        return starts

    def _draw_epoch(self, epoch: int) -> tuple[int, np.ndarray]:
        """The offset of an epoch's first window, and the order of its windows.

        Sorting raw output rather than Generator.permutation: NumPy keeps only the former the same for ever.
        """
        bits = np.random.Philox(key=np.array([self.seed, epoch], np.uint64))
        offset = int(bits.random_raw()) % (self._slack + 1)
        return offset, np.argsort(bits.random_raw(self.windows_per_epoch), kind="stable")

    def _batch(self, starts: np.ndarray) -> TokenBatch:
        rows = self._shards.tokens[starts[:, None] + np.arange(self.window + 1)].astype(np.int64)
        tokens, targets = rows[:, :-1], rows[:, 1:]
        begins = tokens[:, 1:] == self._shards.end_id
        documents = None
        if begins.any():
            documents = np.zeros(tokens.shape, np.int64)
            np.cumsum(begins, axis=1, out=documents[:, 1:])
        return TokenBatch(
            tokens=torch.from_numpy(np.ascontiguousarray(tokens)),
            targets=torch.from_numpy(np.ascontiguousarray(targets)),
            documents=None if documents is None else torch.from_numpy(documents),
            num_targets=targets.size,
            num_bytes=int(self._byte_lengths[targets].sum()),
        )


def check_sizes(window: int, batch_size: int, micro_batch_size: int, rank: int, world_size: int) -> None:
    """Raise ConfigError for sizes of batches that do not go together."""
    if min(window, batch_size, micro_batch_size) < 1:
        raise ConfigError(
            f"Window {window}, batch size {batch_size}, micro-batch size {micro_batch_size}: each must be positive.",
            "Set --train.window, --train.batch-size and --train.micro-batch-size to at least 1.",
        )
    if batch_size % world_size or not 0 <= rank < world_size:
        raise ConfigError(
            f"A batch of {batch_size} rows cannot be shared out evenly to {world_size} processes (this is {rank}).",
            f"Set --train.batch-size to a multiple of {world_size}.",
        )
