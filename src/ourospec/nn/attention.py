"""Causal self-attention: one module, its masks, and its cache.

Letters: B rows, T query positions, S key positions, H query heads, G key-value heads, d width of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.device import matmul_attention_is_faster
from ourospec.errors import ConfigError
from ourospec.nn.init import mark_residual
from ourospec.nn.matmul_attention import matmul_attention
from ourospec.nn.rope import Rotary

# Up to this many keys plain matrix products beat the CPU's flash kernel in half precision (benchmarks/attention.py
# prints by how much); beyond, the weights that they keep for the backward pass would take too much memory.
MATMUL_KEYS = 2048


class AttentionConfig(Config):
    """The shape of an attention module."""

    heads: Annotated[int, Field(ge=1)] = 6
    """Query heads; the model's width must be a multiple."""
    kv_heads: Annotated[int, Field(ge=0)] = 0
    """Key-value heads, each shared by heads/kv_heads query heads (arXiv 2305.13245); 0: as many as heads."""
    rotary_fraction: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of each head's coordinates that rotary embedding turns."""
    rotary_base: Annotated[float, Field(gt=1)] = 10_000.0
    """Base of the rotary wavelengths, in positions."""
    window: Annotated[int, Field(ge=0)] = 0
    """Keys that a query sees at most, itself included; 0: all before it."""


class KeyValues(NamedTuple):
    """Keys and values of a layer, each [B, G, S, d]."""

    keys: Tensor
    values: Tensor


@dataclass
class Visibility:
    """Which keys each query may see: its own position and earlier ones, of its own document, in its window.

    Made once per forward pass and shared by all layers and passes, which ask it for masks.

    Args:
        length: T, the number of query positions.
        past: cached positions before the first query; S = past + length.
        documents: [B, T], a running number per row, or None where each row is one document.
    """

    length: int
    device: torch.device
    past: int = 0
    documents: Tensor | None = None
    _masks: dict[tuple[int, torch.dtype | None], Tensor | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.past and self.documents is not None:
            raise ConfigError("Cached decoding takes one document a row.", "Leave `documents` out.")

    @property
    def positions(self) -> Int[Tensor, " T"]:
        """Positions of the queries."""
        return torch.arange(self.past, self.past + self.length, device=self.device)

    def first_rows(self, rows: int) -> Visibility:
        """The same of the first rows of the batch."""
        documents = self.documents[:rows] if self.documents is not None else None
        return Visibility(self.length, self.device, self.past, documents)

    def allowed(self, window: int) -> Bool[Tensor, "b T S"]:
        """True where a query may look; b is 1 where all rows are alike."""
        queries = self.positions[:, None]
        keys = torch.arange(self.past + self.length, device=self.device)[None, :]
        allowed = keys <= queries
        if window:
            allowed = allowed & (keys > queries - window)
        if self.documents is None:
            return allowed[None]
        return allowed & (self.documents[:, :, None] == self.documents[:, None, :])

    def is_plain_causal(self, window: int) -> bool:
        """Whether a kernel's built-in causal rule says it all."""
        return self.documents is None and self.past == 0 and (window == 0 or window >= self.length)

    def bias(self, window: int, dtype: torch.dtype) -> Float[Tensor, "b 1 T S"] | None:
        """0 where allowed and −inf elsewhere; None where every key is allowed (one cached step)."""
        key = (window, dtype)
        if key not in self._masks:
            keys = self.past + self.length
            open_step = self.documents is None and self.length == 1 and (window == 0 or window >= keys)
            self._masks[key] = None if open_step else self._additive(window, dtype)
        return self._masks[key]

    def _additive(self, window: int, dtype: torch.dtype) -> Tensor:
        allowed = self.allowed(window)[:, None]
        return torch.zeros(allowed.shape, dtype=dtype, device=self.device).masked_fill_(~allowed, -math.inf)


class AttentionStatistics(NamedTuple):
    """Where the attention of each query went, each [B, T], causally normalised: no key after a query counts.

    entropy: mean over heads of H(p)/ln n, n being the number of visible keys (0 where n = 1).
    top_mass: mass of the 16 largest weights, less what uniform attention would give them (0 where n <= 16).
    agreement: 1 − Σ_keys std_heads(p), at least 0: 1 where all heads look alike.
    """

    entropy: Tensor
    top_mass: Tensor
    agreement: Tensor


class Attention(nn.Module):
    """softmax(q kᵀ/√d + mask) v with rotary positions and grouped keys and values; no biases.

    `project` gives queries, keys and values at once; `query` gives queries alone, which is all that a later
    pass over static keys and values needs of a token.
    """

    def __init__(self, width: int, config: AttentionConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        if width % self.heads or self.heads % self.kv_heads:
            raise ConfigError(
                f"A width of {width} does not divide into {self.heads} heads over {self.kv_heads} key-value "
                "heads.",
                "Choose heads that divide the width, and kv_heads that divide heads.",
            )
        self.head_dim, self.window = width // self.heads, config.window
        self.qkv = nn.Linear(width, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.out = mark_residual(nn.Linear(width, width, bias=False))
        self.rotary = Rotary(self.head_dim, config.rotary_fraction, config.rotary_base)

    def project(
        self, x: Float[Tensor, "B T D"], visibility: Visibility
    ) -> tuple[Float[Tensor, "B H T d"], KeyValues]:
        """Queries, and the keys and values of the same positions."""
        joint = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        turned, values = self.rotary(joint, self.heads + self.kv_heads, visibility.past)
        queries, keys = turned.split((self.heads, self.kv_heads), dim=1)
        return queries, KeyValues(keys, values)

    def query(self, x: Float[Tensor, "B T D"], visibility: Visibility) -> Float[Tensor, "B H T d"]:
        """Queries alone."""
        q = F.linear(x, self.qkv.weight[: self.heads * self.head_dim]).unflatten(-1, (-1, self.head_dim))
        return self.rotary(q, self.heads, visibility.past)[0]

    def attend(
        self, queries: Float[Tensor, "B H T d"], kv: KeyValues, visibility: Visibility
    ) -> Float[Tensor, "B T D"]:
        """Read from keys and values and project back to the model's width."""
        if kv.keys.shape[2] <= MATMUL_KEYS and matmul_attention_is_faster(queries):
            mixed = self._by_matmul(queries, kv, visibility)
        else:
            mixed = self._by_kernel(queries, kv, visibility)
        return self.out(mixed.transpose(1, 2).flatten(2))

    def forward(self, x: Float[Tensor, "B T D"], visibility: Visibility) -> Float[Tensor, "B T D"]:
        """The whole module, without a cache."""
        queries, kv = self.project(x, visibility)
        return self.attend(queries, kv, visibility)

    def _by_kernel(self, queries: Tensor, kv: KeyValues, visibility: Visibility) -> Tensor:
        causal = visibility.is_plain_causal(self.window)
        return F.scaled_dot_product_attention(
            queries,
            *kv,
            attn_mask=None if causal else visibility.bias(self.window, queries.dtype),
            is_causal=causal and visibility.length > 1,
            enable_gqa=self.kv_heads != self.heads,
        )

    def _by_matmul(self, queries: Tensor, kv: KeyValues, visibility: Visibility) -> Tensor:
        keys, values = (repeat_heads(x, self.heads) for x in kv)
        return matmul_attention(queries, keys, values, visibility.bias(self.window, queries.dtype))

    @torch.no_grad()
    def statistics(
        self, queries: Float[Tensor, "B H T d"], kv: KeyValues, visibility: Visibility, rows: int = 64
    ) -> AttentionStatistics:
        """Exact statistics of the weights, `rows` queries at a time: T x S is never held for all heads."""
        wide = torch.promote_types(queries.dtype, torch.float32)
        keys = repeat_heads(kv.keys, self.heads).to(wide)
        allowed = visibility.allowed(self.window)
        with torch.autocast(queries.device.type, enabled=False):
            parts = [
                _weight_statistics(queries[:, :, i : i + rows].to(wide), keys, allowed[:, i : i + rows])
                for i in range(0, queries.shape[2], rows)
            ]
        return AttentionStatistics(*(torch.cat(part, dim=1) for part in zip(*parts, strict=True)))

    def pass_flops(self, context: float, *, with_keys: bool) -> float:
        """FLOPs per token with `context` visible keys; the first pass also projects keys and values."""
        width = self.out.in_features
        projections = 2 * width * (self.qkv.out_features if with_keys else width) + 2 * width * width
        return projections + 4 * width * (min(context, self.window) if self.window else context)


def repeat_heads(x: Float[Tensor, "B G S d"], heads: int) -> Float[Tensor, "B H S d"]:
    """Give each query head its own view of the shared keys or values."""
    return x if x.shape[1] == heads else x.repeat_interleave(heads // x.shape[1], dim=1)


def _weight_statistics(queries: Tensor, keys: Tensor, allowed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    scores = (queries @ keys.transpose(-1, -2)) * queries.shape[-1] ** -0.5
    log_p = scores.masked_fill(~allowed[:, None], -math.inf).log_softmax(-1)
    p = log_p.exp()
    visible = allowed.sum(-1).to(p.dtype)
    entropy = -(p * log_p.masked_fill(~allowed[:, None], 0.0)).sum(-1).mean(1)
    entropy = entropy / visible.clamp(min=2).log()
    top = p.topk(min(16, p.shape[-1]), dim=-1).values.sum(-1).mean(1)
    agreement = (1 - p.std(dim=1, unbiased=False).sum(-1)).clamp(0, 1)
    return entropy, top - (16 / visible).clamp(max=1), agreement


@dataclass
class Cache:
    """What decoding keeps of the positions behind it: one key and value per layer and token.

    `carried` holds what else a model hands from one position to the next (the baton's vector). The stores
    are opened when the first keys arrive, in their type and beside them.
    """

    layers: int
    capacity: int
    length: int = 0
    carried: Tensor | None = None
    _stores: dict[int, KeyValues] = field(default_factory=dict)

    def make_room(self, positions: int) -> None:
        """Refuse what would run over the end."""
        if self.length + positions > self.capacity:
            raise ConfigError(
                f"The cache holds {self.capacity} positions; {self.length + positions} were asked for.",
                "Open it with a larger capacity, or start again from the last part of the text.",
            )

    def extend(self, layer: int, kv: KeyValues) -> KeyValues:
        """Take in one layer's new keys and values; returns all up to here. `advance` moves the length."""
        if layer not in self._stores:
            shape = (*kv.keys.shape[:2], self.capacity, kv.keys.shape[3])
            self._stores[layer] = KeyValues(kv.keys.new_zeros(shape), kv.values.new_zeros(shape))
        store, end = self._stores[layer], self.length + kv.keys.shape[2]
        store.keys[:, :, self.length : end] = kv.keys
        store.values[:, :, self.length : end] = kv.values
        return KeyValues(store.keys[:, :, :end], store.values[:, :, :end])

    def advance(self, positions: int) -> None:
        """All layers have taken in this many positions."""
        self.length += positions
