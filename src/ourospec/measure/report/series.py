"""Long series of numbers, kept short enough to be drawn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

CAPACITY = 2048
"""Points at most; half of it at least, once there were as many."""


class Series:
    """(step, value) pairs in a fixed amount of memory: when it is full, neighbours are averaged, two by two.

    A value is a number, or a vector or matrix whose shape stays the same. Each point is the mean of equally many
    readings; those after the last whole point are left out until their number is reached.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._steps: list[float] = []
        self._values: list[np.ndarray] = []
        self._step_sum = 0.0
        self._value_sum: np.ndarray | float = 0.0
        self._summed = 0
        self.each = 1
        """Readings behind one point."""

    def add(self, step: int, value: float | Sequence[float] | Sequence[Sequence[float]]) -> None:
        """Take in the next reading. One that is not finite, or of another shape, is left out."""
        reading = np.asarray(value, dtype=np.float64)
        if not np.isfinite(reading).all() or (self._values and reading.shape != self._values[0].shape):
            return
        self._step_sum += step
        self._value_sum = self._value_sum + reading
        self._summed += 1
        if self._summed < self.each:
            return
        self._steps.append(self._step_sum / self._summed)
        self._values.append(np.asarray(self._value_sum / self._summed))
        self._step_sum, self._value_sum, self._summed = 0.0, 0.0, 0
        if len(self._steps) == self._capacity:
            self._halve()

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def steps(self) -> np.ndarray:
        """[points], the mean step of each."""
        return np.asarray(self._steps)

    @property
    def values(self) -> np.ndarray:
        """[points], [points, length of the vectors] or [points, rows, columns]."""
        return np.asarray(self._values)

    @property
    def vectors(self) -> bool:
        """Whether a value is a vector."""
        return bool(self._values) and self._values[0].ndim == 1

    @property
    def matrices(self) -> bool:
        """Whether a value is a matrix."""
        return bool(self._values) and self._values[0].ndim == 2

    def _halve(self) -> None:
        self._steps = [(a + b) / 2 for a, b in zip(self._steps[::2], self._steps[1::2], strict=True)]
        self._values = [(a + b) / 2 for a, b in zip(self._values[::2], self._values[1::2], strict=True)]
        self.each *= 2


def smooth(values: np.ndarray, width: int) -> np.ndarray:
    """Centred moving mean over `width` points, over fewer at the ends. values [points] -> [points]."""
    if width < 2 or len(values) < 3:
        return values
    sums = np.concatenate([[0.0], np.cumsum(values)])
    centre = np.arange(len(values))
    first = np.maximum(centre - width // 2, 0)
    last = np.minimum(centre + (width + 1) // 2, len(values))
    return (sums[last] - sums[first]) / (last - first)
