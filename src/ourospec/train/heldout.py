"""What the held-out loss has come to: which evaluation was the best, and since when none was better."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass
class HeldOut:
    """Two marks, which are one where every improvement counts. Losses in nats per target; infinite before the first."""

    best_loss: float = math.inf
    """The least so far,"""
    best_step: int = 0
    """and the step after which it was found."""
    counted_loss: float = math.inf
    """The least that was better than the one counted before by more than the least improvement,"""
    counted_step: int = 0
    """and the step after which it was found: patience waits from here."""

    def hear(self, loss: float, step: int, min_improvement: float = 0.0) -> bool:
        """Take in an evaluation; whether it is the best so far.

        An evaluation that comes again after a resume, at the same step and with the same loss, is what it was.
        """
        if loss < self.counted_loss - min_improvement:
            self.counted_loss, self.counted_step = loss, step
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, step
        return (loss, step) == (self.best_loss, self.best_step)

    def waited(self, step: int) -> int:
        """Steps since the last improvement that counted; 0 while there was no evaluation."""
        return step - self.counted_step if math.isfinite(self.counted_loss) else 0

    def to_record(self) -> dict[str, Any]:
        """As it stands in a checkpoint; JSON has no infinity."""
        return {
            "best": [self.best_loss, self.best_step] if math.isfinite(self.best_loss) else None,
            "counted": [self.counted_loss, self.counted_step] if math.isfinite(self.counted_loss) else None,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> HeldOut:
        """The inverse of `to_record`; checkpoints of before have one mark, or none."""
        best_loss, best_step = record.get("best") or (math.inf, 0)
        counted_loss, counted_step = record.get("counted") or (best_loss, best_step)
        return cls(best_loss, best_step, counted_loss, counted_step)
