"""The weights of a model as the machine code wants them: one array for all layers, float32 or 8 bits.

Letters: D width, V vocabulary, L layers, K passes at most, M inner width of the position-wise network, H query heads,
G key-value heads, d width of a head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ourospec.contracts import Effort, StepWeights
from ourospec.nn.attention import Attention
from ourospec.nn.depth import AdaptiveLayer
from ourospec.nn.effort import limits
from ourospec.nn.gate import HIDDEN, OUTPUT_GAIN, PASS_WIDTH, ContinueGate
from ourospec.nn.head import Head
from ourospec.nn.mlp import GELU, SwiGLU
from ourospec.nn.norm import RMSNorm
from ourospec.nn.quantise import quantise_rows

SCALARS = ("update", "direction", "second_difference")
"""The gate's figures that a step computes; those that need attention weights it does not."""


class LayerParts(NamedTuple):
    """What a decoding step needs of a layer, whatever class it is."""

    attention_norm: RMSNorm
    attention: Attention
    mlp_norm: RMSNorm
    mlps: tuple[nn.Module, ...]
    """One for all passes, or one for each."""
    reads: Tensor
    """[K, D], gains with which each pass reads the normed stream."""
    writes: Tensor
    """[K, D], gains with which each pass's update enters it."""
    gate: ContinueGate | None


class Halting(NamedTuple):
    """How tokens leave the layers of a model."""

    limits: Callable[[Effort], tuple[int, bool]]
    """Passes at most and whether all run them, for an effort; refuses an effort that cannot be meant."""
    threshold: float = 1.0
    by_survival: bool = False
    """Whether a later pass weighs the token's survival in the stream, or all of its scale."""


def plain_parts(
    attention_norm: RMSNorm, attention: Attention, mlp_norm: RMSNorm, mlp: nn.Module
) -> LayerParts:
    """Of a layer that every token runs once."""
    once = torch.ones_like(attention_norm.gain.detach())[None]
    return LayerParts(attention_norm, attention, mlp_norm, (mlp,), once, once, None)


def adaptive_parts(layer: AdaptiveLayer) -> LayerParts:
    """Of a layer that tokens leave when its gate lets them."""
    gain, depth = layer.attention_norm.gain.detach(), layer.depth
    if depth.learned_passes:
        reads = torch.stack([torch.ones_like(gain), *(row.detach() for row in layer.reads)])
        first = torch.full_like(gain, depth.scales[0])
        writes = torch.stack([first, *(row.detach() for row in layer.writes)])
    else:
        reads = torch.ones(depth.max_passes, len(gain))
        writes = torch.tensor(depth.scales[: depth.max_passes])[:, None].expand_as(reads)
    mlps = (layer.mlp, *layer.later_mlps)
    return LayerParts(layer.attention_norm, layer.attention, layer.mlp_norm, mlps, reads, writes, layer.gate)


def adaptive_halting(layer: AdaptiveLayer) -> Halting:
    """By the rule that all layers of a model share."""
    return Halting(
        # A stepper runs no plans, so that it does not matter how many tokens one would be for.
        lambda effort: limits(effort, (1, 1), layer.depth.max_passes, gated=layer.gate is not None),
        layer.depth.threshold,
        by_survival=layer.depth.weight == "survival",
    )


def can_step(parts: Sequence[LayerParts]) -> bool:
    """Whether the machine code knows these layers: float32 weights on the CPU, no experts, no attention statistics,
    as many passes in all."""
    return len({part.reads.shape for part in parts}) == 1 and all(
        all(isinstance(mlp, (SwiGLU, GELU)) for mlp in part.mlps)
        and not (part.gate is not None and part.gate.uses_attention)
        and part.attention.qkv.weight.dtype == torch.float32
        and part.attention.qkv.weight.device.type == "cpu"
        for part in parts
    )


class GatePack(NamedTuple):
    """The gates, each [L, ...]. The pass's embedding and the output's gain are multiplied in beforehand."""

    see: np.ndarray
    """[L, 2·16, D], what is seen of the state and of its update; zeros where the gate does not look."""
    state_columns: np.ndarray
    """[L, 32, 16]."""
    scalar_columns: np.ndarray
    """[L, 3, 32], in the order of SCALARS; zeros for those that the gate does not look at."""
    pass_bias: np.ndarray
    """[L, K, 32]."""
    output: np.ndarray
    """[L, 1, 32]."""
    output_bias: np.ndarray
    """[L, 1, 1]."""


class Pack(NamedTuple):
    """All weights of a model; see kernels.advance for the shapes."""

    shape: tuple[int, int, int, int]
    eps: np.float32
    matrices: tuple[np.ndarray, ...]
    scales: tuple[np.ndarray, ...]
    vectors: tuple[np.ndarray, ...]
    gate: tuple[np.ndarray, ...]
    turns: tuple[np.ndarray, ...]
    final_gain: np.ndarray
    head: np.ndarray
    """[V, D]."""
    head_scales: np.ndarray


def pack(parts: Sequence[LayerParts], head: Head, positions: int, weights: StepWeights) -> Pack:
    """A copy of the weights, for `positions` positions of a text at most."""
    attention, final = parts[0].attention, head.norm
    assert isinstance(final, RMSNorm)  # as every model that has a stepper ends
    stacks = (
        [part.attention.qkv.weight for part in parts],
        [part.attention.out.weight for part in parts],
        *zip(*(_mlp_weights(part.mlps) for part in parts), strict=True),
    )
    packed = [_matrix(torch.stack(list(stack)), weights) for stack in stacks]
    norms = torch.stack([torch.stack([p.attention_norm.gain, p.mlp_norm.gain]) for p in parts])
    reads, writes = (torch.stack([p.reads for p in parts]), torch.stack([p.writes for p in parts]))
    turns = attention.rotary.tables(positions, torch.device("cpu"), torch.float32)
    rows, row_scales = _matrix(head.rows.weight, weights)
    return Pack(
        (
            attention.heads,
            attention.kv_heads,
            attention.window,
            int(isinstance(parts[0].mlps[0], SwiGLU)),
        ),
        np.float32(final.eps),
        tuple(matrix for matrix, _ in packed),
        tuple(scales for _, scales in packed),
        (_array(norms), _array(reads), _array(writes)),
        tuple(_gates(parts)),
        tuple(_array(table[:positions, 0]) for table in turns),
        _array(final.gain),
        rows,
        row_scales,
    )


def _mlp_weights(mlps: Sequence[nn.Module]) -> tuple[Tensor, Tensor]:
    """The matrices of the position-wise networks: those that read the stream and those that write to it."""
    known = [mlp for mlp in mlps if isinstance(mlp, (SwiGLU, GELU))]
    reading = [(mlp.gate_up if isinstance(mlp, SwiGLU) else mlp.up).weight for mlp in known]
    return torch.stack(reading), torch.stack([mlp.down.weight for mlp in known])


def _array(x: Tensor) -> np.ndarray:
    """A float32 copy; torch aligns memory to what vector registers like."""
    return x.detach().to(torch.float32, copy=True).contiguous().numpy()


def _matrix(weight: Tensor, weights: StepWeights) -> tuple[np.ndarray, np.ndarray]:
    """The matrix and the scales of its rows."""
    if weights == "int8":
        codes, scales = quantise_rows(weight)
        return codes.contiguous().numpy(), scales.contiguous().numpy()
    return _array(weight), _array(torch.ones(weight.shape[:-1]))


def _gates(parts: Sequence[LayerParts]) -> GatePack:
    width, passes = parts[0].reads.shape[1], parts[0].reads.shape[0]
    each = [_gate(part.gate, width, passes) for part in parts]
    return GatePack(*(_array(torch.stack(arrays)) for arrays in zip(*each, strict=True)))


def _gate(gate: ContinueGate | None, width: int, passes: int) -> tuple[Tensor, ...]:
    """The arrays of GatePack for one layer; zeros where there is no gate, which is then never asked."""
    looks = gate.state_width if gate is not None else 1
    see, state_columns = torch.zeros(2 * looks, width), torch.zeros(HIDDEN, looks)
    scalar_columns = torch.zeros(len(SCALARS), HIDDEN)
    if gate is None:
        rest = (torch.zeros(passes, HIDDEN), torch.zeros(1, HIDDEN), torch.zeros(1, 1))
        return see, state_columns, scalar_columns, *rest
    columns, looks_at = gate.hidden.weight.detach(), len(gate.scalars)
    for place, name in enumerate(gate.scalars):
        scalar_columns[SCALARS.index(name)] = columns[:, place]
    if "state" in gate.features:
        see = torch.cat([gate.see_state.weight, gate.see_update.weight]).detach()
        state_columns = columns[:, looks_at + PASS_WIDTH :]
    embedded = gate.pass_embedding.detach() @ columns[:, looks_at : looks_at + PASS_WIDTH].T
    return (
        see,
        state_columns,
        scalar_columns,
        embedded + gate.hidden.bias.detach(),
        OUTPUT_GAIN * gate.output.weight.detach(),
        (OUTPUT_GAIN * gate.output.bias.detach() - gate.zero_point)[:, None],
    )
