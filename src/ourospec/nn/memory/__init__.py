"""Long-term memory: what a model keeps of what its attention can no longer see.

Three kinds of one interface (state.Memory), each with its state as an explicit record:

    ema     m_t = δ m_{t−1} + (1 − δ) W↓ y_t: the past on average
    delta   the gated delta rule: values under keys, replaced when the key comes back
    titans  the same by gradient steps with momentum, decay and surprise that the token decides

All are causal, a row knows nothing of other rows, a document nothing of the one before, padding changes nothing, and
it is the same whether a text is read at once, in pieces or token by token, and in chunks of whatever size.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ourospec.nn.memory.delta import DeltaMemory, DeltaMemoryConfig
from ourospec.nn.memory.ema import EmaMemory, EmaMemoryConfig
from ourospec.nn.memory.gate import (
    MemoryGate,
    MemoryGateConfig,
    Mixed,
    NormalisedGateConfig,
    SeedGateConfig,
)
from ourospec.nn.memory.state import Memory, MemoryState
from ourospec.nn.memory.titans import TitansMemory, TitansMemoryConfig

MemoryConfig = Annotated[
    EmaMemoryConfig | DeltaMemoryConfig | TitansMemoryConfig, Field(discriminator="kind")
]


def build_memory(config: MemoryConfig, width: int) -> EmaMemory | DeltaMemory | TitansMemory:
    """A state.Memory of states of that width."""
    if isinstance(config, EmaMemoryConfig):
        return EmaMemory(width, config)
    if isinstance(config, DeltaMemoryConfig):
        return DeltaMemory(width, config)
    return TitansMemory(width, config)


__all__ = [
    "DeltaMemoryConfig",
    "EmaMemoryConfig",
    "Memory",
    "MemoryConfig",
    "MemoryGate",
    "MemoryGateConfig",
    "MemoryState",
    "Mixed",
    "NormalisedGateConfig",
    "SeedGateConfig",
    "TitansMemoryConfig",
    "build_memory",
]
