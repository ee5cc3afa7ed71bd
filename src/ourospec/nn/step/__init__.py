"""Decoding position by position in machine code: what `LanguageModel.stepper` gives.

The compiler is imported when a stepper is built, and not before: training and scoring never need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from ourospec.contracts import StepWeights
from ourospec.nn.head import Head
from ourospec.nn.step.pack import (
    Halting,
    LayerParts,
    adaptive_halting,
    adaptive_parts,
    can_step,
    pack,
    plain_parts,
)

if TYPE_CHECKING:
    from ourospec.nn.step.stepper import CompiledStepper


def build_stepper(
    parts: Sequence[LayerParts],
    head: Head,
    embedding: nn.Module,
    baton: Tensor | None,
    halting: Halting,
    max_length: int,
    weights: StepWeights,
) -> CompiledStepper | None:
    """The compiled twin of these layers; None where the machine code does not know them. See CompiledStepper."""
    if not can_step(parts):
        return None
    from ourospec.nn.step.stepper import CompiledStepper

    return CompiledStepper(pack(parts, head, max_length, weights), halting, embedding, baton, max_length)


__all__ = ["Halting", "LayerParts", "adaptive_halting", "adaptive_parts", "build_stepper", "plain_parts"]
