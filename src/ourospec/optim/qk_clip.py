"""QK-clip: no head's attention logits grow without bound."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ourospec.errors import ConfigError
from ourospec.optim.config import QKClipConfig


@runtime_checkable
class Attending(Protocol):
    """A module with queries and keys that can be kept small."""

    def watch_logits(self) -> None:
        """From now on remember, in training, each head's largest logit."""
        ...

    def limit_logits(self, limit: float) -> Tensor | None:
        """Scale the weights of heads whose largest logit exceeded the limit; [heads], None where nothing was seen."""
        ...


class QKClip:
    """After the update, W_q and W_k of each head whose largest logit S of the step exceeds τ are scaled by √(τ/S).

    Raises:
        ConfigError: there is no attention in the model.
    """

    def __init__(self, model: nn.Module, config: QKClipConfig) -> None:
        self.config = config
        self.modules = [module for module in model.modules() if isinstance(module, Attending)]
        if not self.modules:
            raise ConfigError(
                "optim.qk_clip is on, but this model has no attention whose logits could be limited.",
                "Leave it out: --optim.qk-clip off",
            )
        for module in self.modules:
            module.watch_logits()

    @torch.no_grad()
    def apply(self) -> dict[str, float]:
        """Limit every head.

        Returns:
            max_logit: the largest of the step, before it was limited; clipped_heads: how many were.
        """
        found = [module.limit_logits(self.config.limit) for module in self.modules]
        largest = torch.cat([logits.flatten() for logits in found if logits is not None] or [torch.zeros(0)])
        if not largest.numel():
            return {}
        numbers = torch.stack([largest.max(), (largest > self.config.limit).sum()]).tolist()
        return {"max_logit": numbers[0], "clipped_heads": numbers[1]}
