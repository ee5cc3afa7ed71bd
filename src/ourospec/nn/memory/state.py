"""What a memory holds of each row, and how it is handed on. Letters: B rows, T positions, D model width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class MemoryState(NamedTuple):
    """The memory of B rows after their last position; of no other row, and of no other document.

    A record of tensors: it goes into a cache for decoding, into the carry of an objective and into a checkpoint as it
    is. It cannot be taken back by a position: keep the state from before instead.
    """

    memory: Tensor
    """[B, ...], float32 at least: [B, W] of an average, [B, H, J, K, V] of an associative memory."""
    recent: Tensor
    """[B, before, N], what the next token still sees as it was; nothing, [B, 0, 0], where no convolution looks back."""
    document: Tensor
    """[B] int64: the number of the document that each row was reading."""

    def detach(self) -> MemoryState:
        """The same without its history: gradients end here."""
        return MemoryState(*(tensor.detach() for tensor in self))

    def rows(self, index: Sequence[int] | Tensor) -> MemoryState:
        """Some of the rows, in that order."""
        chosen = torch.as_tensor(index, device=self.document.device)
        return MemoryState(*(tensor[chosen] for tensor in self))

    def emptied(self, rows: Bool[Tensor, " B"]) -> MemoryState:
        """The same, empty where `rows` is true."""
        return MemoryState(
            *(tensor.masked_fill(rows.view(-1, *[1] * (tensor.dim() - 1)), 0) for tensor in self)
        )

    @classmethod
    def join(cls, states: Sequence[MemoryState]) -> MemoryState:
        """The rows of several, in their order."""
        return cls(*(torch.cat(parts) for parts in zip(*states, strict=True)))


class Memory(Protocol):
    """A causal memory of the states of a sequence; see nn.memory for what every kind promises."""

    def __call__(
        self,
        y: Float[Tensor, "B T D"],
        state: MemoryState | None = None,
        documents: Int[Tensor, "B T"] | None = None,
        counted: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], MemoryState]:
        """What is remembered at each position, and the state after the last.

        Args:
            state: after the positions before; None: nothing was read.
            documents: a running number; a new number begins with an empty memory. The numbers of a row that is read
                in pieces run on from piece to piece. None: all positions belong to the document that is being read.
            counted: False where a position is padding: it changes no state and no other position, and what is
                remembered there means nothing. None: all count.
        """
        ...

    def empty_state(self, rows: int, device: torch.device, dtype: torch.dtype = torch.float32) -> MemoryState:
        """Of rows that have read nothing."""
        ...

    def flops_per_row(self) -> int:
        """FLOPs of one token: the matrix products of whole chunks (nn/cost.py), the triangular system's included."""
        ...
