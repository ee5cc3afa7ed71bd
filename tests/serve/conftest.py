"""A byte vocabulary, small real models with uneven depths, and a model that recites."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from ourospec.contracts import Effort, Output
from ourospec.device import DevicePolicy, choose_device
from ourospec.families.adaptive_lm.model import AdaptiveConfig, AdaptiveLM
from ourospec.families.dense_lm.model import DenseConfig, DenseLM
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.depth import DepthConfig

MAX_LENGTH = 48
PADDED = 264


class Bytes:
    """One token a byte, and the end token."""

    vocab_size = 257
    end_id = 256

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def token_bytes(self, token: int, /) -> bytes:
        return bytes([token]) if token < 256 else b""


class Recited(NamedTuple):
    length: list[int]


class Reciter(nn.Module):
    """Predicts a fixed sequence after a prompt of `prompt` tokens, whatever it reads; forgets nothing."""

    max_length = 10_000

    def __init__(self, script: list[int], prompt: int, vocab_size: int = 257) -> None:
        super().__init__()
        self.script, self.prompt, self.vocab_size = script, prompt, vocab_size

    def forward(
        self,
        tokens: Tensor,
        documents: Any = None,
        cache: Recited | None = None,
        effort: Effort | None = None,
    ) -> Output:
        assert cache is not None
        cache.length[0] += tokens.shape[1]
        due = cache.length[0] - self.prompt
        states = torch.full((*tokens.shape, 1), float(due))
        return Output(states, torch.full((1, *tokens.shape), due + 1))

    def logits(self, states: Tensor) -> Tensor:
        due = torch.tensor(self.script)[states[..., 0].long().clamp(min=0)]
        return nn.functional.one_hot(due, self.vocab_size) * 1e4

    def new_cache(self, batch: int, capacity: int) -> Recited:
        return Recited([0])


@pytest.fixture
def vocabulary() -> Bytes:
    return Bytes()


@pytest.fixture
def policy() -> DevicePolicy:
    return choose_device("cpu", "float32")


@pytest.fixture(params=["dense_lm", "adaptive_lm"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    return build(request.param)


def build(family: str) -> nn.Module:
    """A small model with random weights that predicts sharply and, where it can, thinks unevenly."""
    torch.manual_seed(1)
    pieces = [bytes([i]) for i in range(256)] + [b""]
    attention = AttentionConfig(heads=4, kv_heads=2)
    if family == "dense_lm":
        config = DenseConfig(width=32, layers=2, attention=attention, mlp_hidden=48, max_length=MAX_LENGTH)
        made: nn.Module = DenseLM(config, PADDED, pieces)
    else:
        made = AdaptiveLM(
            AdaptiveConfig(
                width=32,
                layers=2,
                attention=attention,
                mlp_hidden=48,
                max_length=MAX_LENGTH,
                depth=DepthConfig(max_passes=4, threshold=0.3, gate_bias=1.0),
            ),
            PADDED,
            pieces,
        )
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0 if "gate.output" in name else 3.0)
    return made


@pytest.fixture
def reciter() -> type[Reciter]:
    return Reciter
