"""Chunk-parallel form of an associative memory that corrects itself, exact for any size of chunk.

The memory is J matrices X_j [K, V] (the first is read; a second one is its momentum). Token t writes k_t u_tᵀ, where
u_t = β_t (v_t − what the memory says of k_t) needs all that was written before; what becomes of a written matrix later
depends on scalars only. Within a chunk of C places, X being what came in, everything is therefore linear in U:

    u_t = β_t (v_t − Σ_j before_tj X_jᵀ k_t − Σ_{s<t} seen_ts (k_s·k_t) u_s)     a unit lower triangular system
    o_t = Σ_j until_tj X_jᵀ q_t + Σ_{s≤t} held_ts (k_s·q_t) u_s                  what is read after the write
    X_i ← Σ_j kept_ij X_j + Σ_s left_is k_s u_sᵀ                                 what goes on

The systems of all chunks are solved at once, for U = Ũ − W X; only X ← A X + B goes from chunk to chunk. The form for
the delta rule is that of Yang et al. 2024 (arXiv 2406.06484; gated: 2412.06464); with other scalars it also holds for
momentum (titans.py).

Letters: B rows, H heads, N chunks, C places, J matrices, K width of a key, V width of a value.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Written(NamedTuple):
    """What goes into the memory and what asks it, of every chunk."""

    queries: Float[Tensor, "B H N C K"]
    keys: Float[Tensor, "B H N C K"]
    values: Float[Tensor, "B H N C V"]
    strength: Float[Tensor, "B H N C"]
    """β, 0 where nothing is written."""


class Scalars(NamedTuple):
    """What becomes of matrices: the numbers of the equations above."""

    seen: Float[Tensor, "B H N C C"]
    """Only what is under the diagonal is read."""
    before: Float[Tensor, "B H N C J"]
    held: Float[Tensor, "B H N C C"]
    until: Float[Tensor, "B H N C J"]
    left: Float[Tensor, "B H N J C"]
    kept: Float[Tensor, "B H N J J"]


def recall(
    written: Written, scalars: Scalars, memory: Float[Tensor, "B H J K V"]
) -> tuple[Float[Tensor, "B H N C V"], Float[Tensor, "B H J K V"]]:
    """What every place reads, and the memory after the last chunk; all in one type, float32 at least."""
    if written.keys.shape[2:4] == (1, 1):
        return _step(written, scalars, memory)
    queries, keys, values, strength = written
    value_width = values.shape[-1]
    system = (strength[..., None] * scalars.seen) * (keys @ keys.mT)
    wanted = torch.cat([values, _spread(scalars.before, keys)], dim=-1) * strength[..., None]
    # Only what is under the diagonal is looked at.
    solved = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
    own, pull = solved.split((value_width, solved.shape[-1] - value_width), dim=-1)
    incoming, memory = _carry(own, pull, keys, scalars, memory)
    update = own - pull @ incoming
    read = _spread(scalars.until, queries) @ incoming + ((queries @ keys.mT) * scalars.held) @ update
    return read, memory


def _spread(by_matrix: Tensor, rows: Tensor) -> Tensor:
    """[.., C, J] and [.., C, K] to [.., C, J·K]: rows scaled for each matrix, side by side."""
    if by_matrix.shape[-1] == 1:
        return by_matrix * rows
    return (by_matrix[..., None] * rows[..., None, :]).flatten(-2)


def _carry(
    own: Tensor, pull: Tensor, keys: Tensor, scalars: Scalars, memory: Tensor
) -> tuple[Tensor, Tensor]:
    """[B, H, N, J·K, V], what comes into each chunk; and [B, H, J, K, V], what the last one leaves."""
    writes = _spread(scalars.left.mT, keys).mT
    eye = torch.eye(keys.shape[-1], dtype=keys.dtype, device=keys.device)
    kept = (scalars.kept[..., :, None, :, None] * eye[:, None, :]).flatten(-2).flatten(-3, -2)
    change, gain = kept - writes @ pull, writes @ own
    held = memory.flatten(2, 3)
    incoming = []
    # Unbound and not indexed: the gradient of an index is as large as what it is taken from, in every chunk.
    for through, new in zip(change.unbind(2), gain.unbind(2), strict=True):
        incoming.append(held)
        held = through @ held + new
    return torch.stack(incoming, dim=2), held.view_as(memory)


def _step(written: Written, scalars: Scalars, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence itself, of a single place."""
    queries, keys, values, strength = (x[:, :, 0, 0] for x in written)
    said = torch.einsum("bhj,bhjkv,bhk->bhv", scalars.before[:, :, 0, 0], memory, keys)
    update = strength[..., None] * (values - said)
    fresh = keys[..., :, None] * update[..., None, :]
    kept = torch.einsum("bhij,bhjkv->bhikv", scalars.kept[:, :, 0], memory)
    memory = kept + scalars.left[:, :, 0, :, 0, None, None] * fresh[:, :, None]
    read = queries[..., None, :] @ memory[:, :, 0]
    return read[:, :, None], memory
