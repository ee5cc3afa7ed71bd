"""A micro-batch of tokens. Letters: B rows, T positions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

NO_TARGET = -100
"""Stands in `targets` where nothing is to be predicted; the cross-entropy leaves such positions out."""


@dataclass(frozen=True)
class TokenBatch:
    """Windows of tokens with the token that follows each."""

    tokens: Tensor
    """[B, T] int64."""
    targets: Tensor
    """[B, T] int64, NO_TARGET where there is none."""
    documents: Tensor | None
    """[B, T] int64: a number that rises by one where a new document starts in the row. None when every row lies
    inside a single document, so that attention may use its plain causal kernel."""
    num_targets: int
    """Targets in the batch."""
    num_bytes: int
    """Bytes of text that the targets stand for."""

    def to(self, device: torch.device) -> TokenBatch:
        """The same batch there."""
        documents = self.documents
        return replace(
            self,
            tokens=self.tokens.to(device, non_blocking=True),
            targets=self.targets.to(device, non_blocking=True),
            documents=None if documents is None else documents.to(device, non_blocking=True),
        )
