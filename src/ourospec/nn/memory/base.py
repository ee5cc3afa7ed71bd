"""What associative memories share: projections, gates, chunks. Letters as in associative.py; D width, T positions."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.nn.init import mark_by_entry, mark_joint
from ourospec.nn.memory.associative import Scalars, Written, recall
from ourospec.nn.memory.chunks import Chunks, cut_into_chunks
from ourospec.nn.memory.convolution import ShortConvolution
from ourospec.nn.memory.state import MemoryState


class AssociativeConfig(Config):
    """The size of an associative memory, and how it writes and forgets."""

    heads: Annotated[int, Field(ge=1)] = 4
    """Memories side by side."""
    key_width: Annotated[int, Field(ge=1)] = 32
    """Width of a key: as many keys can be told apart by a head without any error."""
    value_width: Annotated[int, Field(ge=1)] = 32
    """Width of what is kept under a key."""
    write_strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The greatest β: the share of its surprise (what it says less what the memory says of its key) that a token may
    write. Below 1 nothing is learned from a single token, and single tokens disturb less."""
    half_life: Annotated[float, Field(gt=0)] = 1024.0
    """Tokens after which, in the beginning of training, half of what was written is forgotten."""
    convolution: Annotated[int, Field(ge=1, le=16)] = 1
    """Tokens, itself included, of whose keys, values and queries a token's are made: taps of a causal convolution, 1
    for none. Titans and Gated DeltaNet have 4; behind layers of attention, which can bring a key and its value
    together themselves, three seeds did not agree whether recall comes sooner with it."""
    chunk: Annotated[int, Field(ge=1)] = 32
    """Positions that are computed at a time; changes no result."""

    matrices: ClassVar[int] = 1
    """J."""

    @property
    def state_size(self) -> int:
        """Numbers that are kept of a row to be read, without momentum and convolution: a memory's capacity."""
        return self.heads * self.key_width * self.value_width


class Gates:
    """What a token decides for each head, as logits.

    Args:
        logits: [B, H, N, C, gates], float32 at least.
        counted: [b, 1, N, C].
    """

    def __init__(self, logits: Tensor, counted: Tensor) -> None:
        self.logits, self.counted = logits, counted.to(logits.dtype)

    def share(self, index: int) -> Float[Tensor, "B H N C"]:
        """σ of one of them, 0 where nothing counts."""
        return self.logits[..., index].sigmoid() * self.counted

    def log_share(self, index: int) -> Float[Tensor, "B H N C"]:
        """ln σ, 0 where nothing counts."""
        return F.logsigmoid(self.logits[..., index]) * self.counted

    def log_kept(self, index: int) -> Float[Tensor, "B H N C"]:
        """−softplus, 0 where nothing counts: the logarithm of what one token leaves of a memory."""
        return -F.softplus(self.logits[..., index]) * self.counted


class AssociativeMemory(nn.Module):
    """Keys, values, queries and gates of a token, and what comes back: out [o_1; …; o_H].

    Keys and queries have length 1 in every head; a short convolution may go before. State and sums are float32 at
    least, under autocast too. Subclasses say which gates a token has and what they mean.
    """

    WRITE, FORGET = 0, 1
    gates: ClassVar[int] = 2
    """Gates of a head: WRITE, FORGET and what a subclass adds."""

    def __init__(self, width: int, config: AssociativeConfig) -> None:
        super().__init__()
        self.config = config
        self.widths = (config.key_width, config.key_width, config.value_width)
        rows = self.widths * config.heads
        self.qkv = mark_joint(nn.Linear(width, sum(rows), bias=False), *rows)
        self.convolution = None
        if config.convolution > 1:
            self.convolution = ShortConvolution(self.qkv.out_features, config.convolution)
        self.gate = mark_by_entry(nn.Linear(width, config.heads * self.gates))
        self.out = nn.Linear(config.heads * config.value_width, width, bias=False)

    def init_parameters(self) -> None:
        """Called by nn.init: half of the strength, and the half-life that was asked for."""
        rate = math.log(2) / self.config.half_life
        bias = self.gate.bias.view(self.config.heads, self.gates)
        bias.zero_()
        bias[:, self.FORGET] = rate + math.log(-math.expm1(-rate))  # softplus of this is the rate

    def empty_state(self, rows: int, device: torch.device, dtype: torch.dtype = torch.float32) -> MemoryState:
        """Of rows that have read nothing."""
        config = self.config
        shape = (rows, config.heads, config.matrices, config.key_width, config.value_width)
        memory = torch.zeros(shape, device=device, dtype=dtype)
        recent = memory.new_zeros(rows, 0, 0)
        if self.convolution is not None:
            recent = memory.new_zeros(rows, config.convolution - 1, self.qkv.out_features)
        return MemoryState(memory, recent, memory.new_zeros(rows, dtype=torch.long))

    def forward(
        self,
        y: Float[Tensor, "B T D"],
        state: MemoryState | None = None,
        documents: Int[Tensor, "B T"] | None = None,
        counted: Bool[Tensor, "B T"] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], MemoryState]:
        """As state.Memory says."""
        joint = self.qkv(y)
        wide = torch.promote_types(joint.dtype, torch.float32)
        state = state or self.empty_state(y.shape[0], y.device, wide)
        chunks = cut_into_chunks(y, self.config.chunk, state, documents, counted)
        with torch.autocast(y.device.type, enabled=False):
            logits = F.linear(y.to(wide), self.gate.weight.to(wide), self.gate.bias.to(wide))
            gates = Gates(self._by_head(logits, chunks), chunks.counted)
            joint, recent = joint.to(wide), state.recent.to(wide)
            if self.convolution is not None:
                segments = None if documents is None else chunks.by_position()
                joint, recent = self.convolution(joint, recent, segments, counted)
            queries, keys, values = self._by_head(joint, chunks).split(self.widths, dim=-1)
            written = Written(_unit(queries), _unit(keys), values, self.strength(gates))
            read, memory = recall(written, self.scalars(gates, chunks), state.memory.to(wide))
        mixed = chunks.uncut(read.permute(0, 2, 3, 1, 4).flatten(3))
        return self.out(mixed), MemoryState(memory, recent, chunks.document)

    def _by_head(self, x: Tensor, chunks: Chunks) -> Tensor:
        """[B, T, H·any] to [B, H, N, C, any]."""
        return chunks.cut(x).unflatten(-1, (self.config.heads, -1)).permute(0, 3, 1, 2, 4)

    def strength(self, gates: Gates) -> Float[Tensor, "B H N C"]:
        """β."""
        return self.config.write_strength * gates.share(self.WRITE)

    def scalars(self, gates: Gates, chunks: Chunks) -> Scalars:
        """What becomes of matrices between the places of a chunk."""
        raise NotImplementedError

    def scalar_flops(self) -> int:
        """FLOPs of `scalars`, a token and head."""
        return 0

    def flops_per_row(self) -> int:
        """Projections, gates, and the products and the triangular system of a whole chunk."""
        config = self.config
        keys, values, chunk = config.matrices * config.key_width, config.value_width, config.chunk
        within = chunk * (4 * config.key_width + (values + keys) + 2 * values)
        between = 2 * keys * (keys + values) + 4 * keys * values + 2 * keys * keys * values // chunk
        linear = sum(layer.in_features * layer.out_features for layer in (self.qkv, self.gate, self.out))
        return 2 * linear + config.heads * (within + between + self.scalar_flops())


def _unit(x: Tensor) -> Tensor:
    """Of length 1; what is as good as zero stays so."""
    return x * (x.square().sum(-1, keepdim=True) + 1e-6).rsqrt()
