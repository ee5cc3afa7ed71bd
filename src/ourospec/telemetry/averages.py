"""Averages that take one number after another and remember a handful."""

from __future__ import annotations

import math


class MovingMean:
    """An exponential moving mean over about `steps` numbers, without a bias towards 0 at its beginning.

    m ← m + (x − m) / min(n, steps), n being the numbers so far: the plain mean until there are `steps` of them.
    The variance follows by the same weights, around the mean of the moment.
    """

    def __init__(self, steps: float) -> None:
        self.steps = max(1.0, steps)
        self.count = 0
        self.mean = 0.0
        self.variance = 0.0

    def add(self, number: float) -> float:
        """Take in a number; returns the mean."""
        self.count += 1
        weight = 1 / min(self.count, self.steps)
        away = number - self.mean
        self.mean += weight * away
        self.variance = (1 - weight) * (self.variance + weight * away * away)
        return self.mean

    @property
    def deviation(self) -> float:
        """Standard deviation of the numbers."""
        return math.sqrt(max(self.variance, 0.0))

    @property
    def error(self) -> float:
        """Standard error of the mean, were the numbers independent; infinite with fewer than two."""
        if self.count < 2:
            return math.inf
        # An exponential mean over s numbers has the variance of a plain mean over 2s − 1.
        return self.deviation / math.sqrt(min(self.count, 2 * self.steps - 1))

    @property
    def full(self) -> bool:
        """Whether as many numbers were seen as the mean goes back."""
        return self.count >= self.steps
