"""Training windows of spacings, in an order that is a pure function of (seed, step).

Letters: B rows, T spacings of a past, R targets of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ourospec.data.spacings.dataset import Series, SpacingDataset
from ourospec.errors import ConfigError, DataError

_ORDER = "spacing-windows-v2"
"""Names the order below; a change of it changes every stream's fingerprint."""


@dataclass(frozen=True)
class SpacingBatch:
    """Windows of consecutive spacings; the last R of each row are what is to be predicted."""

    past: Tensor
    """[B, T] float32: all of the window but its last spacing."""
    past_heights: Tensor
    """[B, T + 1] float64: the heights that bound them."""
    targets: Tensor
    """[B, R] float32: the last R spacings of the window."""

    @property
    def num_targets(self) -> int:
        return self.targets.numel()

    def to(self, device: torch.device) -> SpacingBatch:
        """The same batch there. A device without float64 (MPS) gets heights in float32."""
        heights = self.past_heights if device.type != "mps" else self.past_heights.float()
        return replace(
            self,
            past=self.past.to(device, non_blocking=True),
            past_heights=heights.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
        )


class SpacingStream:
    """Windows of T + 1 spacings in a random order; each spacing is a target once an epoch.

    Only the first T + 1 − R spacings of a stretch are targets of no window, and in any one epoch 2(R − 1) more at its
    ends, at most: an epoch cuts every stretch from an offset of its own (0 to R − 1), and goes through the windows in
    an order of its own, both from Philox, a counter-based generator, keyed by (seed, epoch). Row i of step s is sample
    s · batch_size + i of this endless sequence, so that its whole position is the step.

    Args:
        past: T.
        targets: R, from 1 to T.
        batch_size: rows of an optimiser step.
        micro_batch_size: rows at a time, at most.

    Raises:
        DataError: no stretch holds a window.
        ConfigError: more targets than spacings in a window.
    """

    def __init__(
        self,
        dataset: SpacingDataset,
        *,
        past: int,
        targets: int,
        batch_size: int,
        micro_batch_size: int,
        seed: int,
    ) -> None:
        if not 1 <= targets <= past:
            raise ConfigError(
                f"A window of {past} spacings cannot have {targets} targets.",
                "Set --train.window to at least the model's context and one spacing per target.",
            )
        self._series = [series for series in dataset.train if len(series.spacings) > past]
        if not self._series:
            longest = max(len(series.spacings) for series in dataset.train)
            raise DataError(
                f"The longest stretch to train on has {longest:,} spacings, fewer than one window of {past} and its "
                "target.",
                f"Give more zeros, or read shorter windows: --train.window {max(longest - 1, 1)} at most",
            )
        self.past, self.targets, self.seed = past, targets, seed
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        order = f"{_ORDER}\n{dataset.fingerprint}\n{past}\n{targets}\n{batch_size}\n{seed}"
        self._fingerprint = hashlib.sha256(order.encode()).hexdigest()
        # As many in every epoch, whatever its offset.
        self._windows = [max(1, (len(series.spacings) - past) // targets) for series in self._series]
        self.windows_per_epoch = sum(self._windows)
        self._firsts = np.cumsum([0, *self._windows])
        self._epoch = lru_cache(maxsize=2)(self._draw_epoch)

    @property
    def fingerprint(self) -> str:
        """Changes with the zeros, the split, the window, its targets, the batch size or the seed."""
        return self._fingerprint

    @property
    def steps_per_epoch(self) -> float:
        """Optimiser steps in which each window comes once."""
        return self.windows_per_epoch / self.batch_size

    def batches(self, step: int) -> Sequence[SpacingBatch]:
        """The micro-batches of optimiser step `step` (from 0)."""
        samples = step * self.batch_size + np.arange(self.batch_size)
        size = self.micro_batch_size
        return [self._batch(samples[i : i + size]) for i in range(0, len(samples), size)]

    def windows(self, count: int) -> list[Series]:
        """Up to `count` windows, evenly spread over all of an epoch: to look at, whatever the order of training."""
        chosen = np.unique(np.linspace(0, self.windows_per_epoch - 1, count).round().astype(np.int64))
        return [self._window(int(number), 0) for number in chosen]

    def _window(self, number: int, offset: int) -> Series:
        """Window `number` of an epoch with this offset."""
        at = int(np.searchsorted(self._firsts, number, side="right")) - 1
        series = self._series[at]
        start = (number - int(self._firsts[at])) * self.targets
        # A stretch of a single window may have no room for the offset.
        start = min(start + offset, len(series.spacings) - self.past - 1)
        return series.cut(start, start + self.past + 1)

    def _draw_epoch(self, epoch: int) -> tuple[int, np.ndarray]:
        """Raw output, sorted, rather than Generator.permutation: NumPy keeps only the former the same for ever."""
        bits = np.random.Philox(key=np.array([self.seed, epoch], np.uint64))
        offset = int(bits.random_raw()) % self.targets
        return offset, np.argsort(bits.random_raw(self.windows_per_epoch), kind="stable")

    def _batch(self, samples: np.ndarray) -> SpacingBatch:
        windows = []
        for sample in samples.tolist():
            epoch, place = divmod(sample, self.windows_per_epoch)
            offset, order = self._epoch(epoch)
            windows.append(self._window(int(order[place]), offset))
        spacings = torch.from_numpy(np.stack([window.spacings for window in windows]).astype(np.float32))
        heights = torch.from_numpy(np.stack([window.heights[:-1] for window in windows]))
        return SpacingBatch(spacings[:, :-1].contiguous(), heights, spacings[:, -self.targets :].contiguous())
