"""Models of recursive_lm small enough to be followed token by token, in float64, and text for them."""

from __future__ import annotations

import torch

from ourospec.data.batch import NO_TARGET, TokenBatch
from ourospec.families.recursive_lm.model import RecursiveConfig, RecursiveLM
from ourospec.families.recursive_lm.networks import OneNetworkConfig, TwoNetworksConfig
from ourospec.families.recursive_lm.recursion import RecursionConfig
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.memory import DeltaMemoryConfig, EmaMemoryConfig, TitansMemoryConfig

VOCABULARY, STEPS, WINDOW, LENGTH = 29, 4, 5, 32
NETWORKS = {
    "two": TwoNetworksConfig(inner=2),
    "one": OneNetworkConfig(inner=2, layers=2, mlp_hidden=24),
    "looped": OneNetworkConfig(inner=0, layers=1, mlp_hidden=24),
}
MEMORIES = {
    "none": None,
    "ema": EmaMemoryConfig(width=8, decay=0.9),
    "delta": DeltaMemoryConfig(heads=2, key_width=4, value_width=4, convolution=3),
    "titans": TitansMemoryConfig(heads=2, key_width=4, value_width=4),
}


def make(networks: str = "looped", memory: str = "delta", seed: int = 0, **recursion) -> RecursiveLM:
    """A model whose tokens halt after different steps, in eval mode."""
    config = RecursiveConfig(
        width=16,
        layers=1,
        attention=AttentionConfig(heads=2, window=WINDOW),
        mlp_hidden=24,
        memory=MEMORIES[memory],
        recursion=RecursionConfig(
            **{
                "steps": STEPS,
                "networks": NETWORKS[networks],
                "halt_above": 0.5,
                "halt_bias": -0.5,
                "halt_head": "by_step" if networks == "looped" else "shared",
                **recursion,
            }
        ),
        max_length=LENGTH,
    )
    torch.manual_seed(seed)
    model = RecursiveLM(config, VOCABULARY, []).double()
    if model.recursion.halt is not None:
        torch.nn.init.normal_(model.recursion.halt.weight, std=0.5)
    return model.eval()


def text(rows: int, length: int, seed: int) -> torch.Tensor:
    """Random tokens."""
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def batch(rows: int, length: int, seed: int, asked: float = 0.5) -> TokenBatch:
    """Random tokens, about that share of them to be foretold."""
    stream = text(rows, length + 1, seed)
    chosen = torch.rand(rows, length, generator=torch.Generator().manual_seed(seed + 1)) < asked
    chosen[:, -1] = True
    targets = torch.where(chosen, stream[:, 1:], NO_TARGET)
    count = int(chosen.sum())
    return TokenBatch(stream[:, :-1], targets, None, count, count)
