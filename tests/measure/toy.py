"""Documents, and models whose every score can be worked out by hand."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ourospec.contracts import Effort, Output
from ourospec.families.adaptive_lm.model import AdaptiveConfig, AdaptiveLM
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.cost import ModelCost
from ourospec.nn.depth import DepthConfig

END = 8
VOCABULARY = 9


@dataclass(frozen=True)
class Doc:
    tokens: np.ndarray
    num_bytes: int


def doc(*tokens: int) -> Doc:
    """Three bytes a token."""
    return Doc(np.array(tokens, dtype=np.uint16), 3 * len(tokens))


class Bigram(nn.Module):
    """P(next | this) from a fixed table: what stands before the last token does not matter.

    A token t is thought about for 1 + t % 3 passes in the first of two layers, and for one in the second.
    """

    max_length = 64

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, generator=generator) * 2)
        self.rows_asked: list[int] = []

    def forward(
        self, tokens: Tensor, documents: Any = None, cache: Any = None, effort: Effort | None = None
    ) -> Output:
        assert tokens.shape[1] <= self.max_length
        most = effort.max_passes if effort and effort.max_passes else 3
        first = (1 + tokens % 3).clamp(max=most)
        return Output(self.table[tokens], torch.stack([first, torch.ones_like(tokens)]))

    def logits(self, states: Tensor) -> Tensor:
        self.rows_asked.append(states.reshape(-1, VOCABULARY).shape[0])
        return states.float()

    def new_cache(self, batch: int, capacity: int) -> Any:
        raise AssertionError("scoring needs no cache")

    def cost(self, context: float) -> ModelCost:
        return ModelCost(100.0, (10.0 + context, 20.0 + context), (1.0 + 2 * context, 5.0))

    def nats(self, document: Doc) -> float:
        """−ln p of END d END, target by target."""
        odds = self.table.detach().double().log_softmax(-1)
        stream = [END, *document.tokens.tolist(), END]
        return -sum(float(odds[a, b]) for a, b in pairwise(stream))


def adaptive() -> AdaptiveLM:
    """A small model whose gates differ from token to token."""
    torch.manual_seed(2)
    config = AdaptiveConfig(
        width=32,
        layers=2,
        attention=AttentionConfig(heads=4),
        mlp_hidden=48,
        depth=DepthConfig(threshold=0.3, gate_bias=1.0),
        max_length=32,
    )
    model = AdaptiveLM(config, VOCABULARY, [bytes([65 + i]) for i in range(VOCABULARY)])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0 if "gate.output" in name else 3.0)
    return model
