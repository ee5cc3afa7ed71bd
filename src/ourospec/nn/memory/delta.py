"""The gated delta rule (Yang, Kautz and Hatamizadeh 2024, arXiv 2412.06464). Letters as in associative.py."""

from __future__ import annotations

from typing import Literal

from ourospec.nn.memory.associative import Scalars
from ourospec.nn.memory.base import AssociativeConfig, AssociativeMemory, Gates
from ourospec.nn.memory.chunks import Chunks, decays


class DeltaMemoryConfig(AssociativeConfig):
    """A memory asked by key that replaces what it held under a key."""

    kind: Literal["delta"] = "delta"


class DeltaMemory(AssociativeMemory):
    """M_t = a_t M_{t−1} + β_t k_t (v_t − (a_t M_{t−1})ᵀ k_t)ᵀ, read as M_tᵀ q_t; M [K, V], M_0 = 0.

    a_t = exp(−softplus(w_a·y_t + b_a)) and β_t = write_strength · σ(w_β·y_t + b_β), each by head. With β = 1 the
    memory holds v_t under k_t afterwards, whatever it held there before.
    """

    def scalars(self, gates: Gates, chunks: Chunks) -> Scalars:
        """Everything fades alike, and a token looks at what has faded already."""
        log_kept = gates.log_kept(self.FORGET)
        same, continues = chunks.kinship()
        held = decays(log_kept, same)
        until = (log_kept.cumsum(-1).exp() * continues)[..., None]
        return Scalars(held, until, held, until, held[..., -1:, :], until[..., -1:, :])
