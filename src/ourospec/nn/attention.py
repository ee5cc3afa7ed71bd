"""Causal self-attention: one module, its kernels, and the statistics of its weights.

Letters: B rows, T query positions, S key positions, H query heads, G key-value heads, d width of a head.
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.device import matmul_attention_is_faster
from ourospec.errors import ConfigError
from ourospec.nn.cache import KeyValues
from ourospec.nn.init import mark_joint, mark_residual
from ourospec.nn.matmul_attention import matmul_attention
from ourospec.nn.ragged import knows, ragged_attention
from ourospec.nn.rope import Rotary
from ourospec.nn.visibility import PackedVisibility, Visibility

# Up to this many keys plain matrix products may beat the fused kernel (device.matmul_attention_is_faster); beyond, the
# weights that they keep for the backward pass would take too much memory.
MATMUL_KEYS = 2048
COMPILED_QUERIES, COMPILED_PACKED = 64, 8
"""Queries of a row, of packed ones in the longest, from which our own kernel beats torch's, where there is one: it lays
the row's values out anew, whatever the number of queries."""
LOGIT_ROWS = 128
"""Queries whose logits are held at a time, where they are looked at."""


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
    """softmax(q kᵀ/√d + mask) v with rotary positions and grouped keys and values.

    `project` gives queries, keys and values at once; `query` gives queries alone, which is all that a later
    pass over static keys and values needs of a token; `tell` gives keys and values alone, of what others ask.

    Args:
        biased: whether the four maps have biases.
    """

    def __init__(self, width: int, config: AttentionConfig, biased: bool = False) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        if width % self.heads or self.heads % self.kv_heads:
            raise ConfigError(
                f"A width of {width} does not divide into {self.heads} heads over {self.kv_heads} key-value "
                "heads.",
                "Choose heads that divide the width, and kv_heads that divide heads.",
            )
        self.head_dim, self.window = width // self.heads, config.window
        rows = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.kv_heads * self.head_dim
        self.qkv = mark_joint(nn.Linear(width, sum(rows), bias=biased), *rows)
        self.out = mark_residual(nn.Linear(width, width, bias=biased))
        self.rotary = Rotary(self.head_dim, config.rotary_fraction, config.rotary_base)
        self._watched, self._largest = False, None

    def project(
        self, x: Float[Tensor, "B T D"], visibility: Visibility
    ) -> tuple[Float[Tensor, "B H T d"], KeyValues]:
        """Queries, and the keys and values of the same positions."""
        joint = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        turned, values = self.rotary(joint, self.heads + self.kv_heads, visibility.places, visibility.keys)
        queries, keys = turned.split((self.heads, self.kv_heads), dim=1)
        return queries, KeyValues(keys, values)

    def query(self, x: Float[Tensor, "B T D"], visibility: Visibility) -> Float[Tensor, "B H T d"]:
        """Queries alone."""
        rows = slice(0, self.heads * self.head_dim)
        return self.rotary(self._part(x, rows), self.heads, visibility.places, visibility.keys)[0]

    def tell(self, x: Float[Tensor, "B T D"], visibility: Visibility) -> KeyValues:
        """Keys and values alone."""
        rows = slice(self.heads * self.head_dim, None)
        return KeyValues(*self.rotary(self._part(x, rows), self.kv_heads, visibility.places, visibility.keys))

    def _part(self, x: Tensor, rows: slice) -> Tensor:
        """[B, T, N, d], some rows of the joint projection."""
        bias = None if self.qkv.bias is None else self.qkv.bias[rows]
        return F.linear(x, self.qkv.weight[rows], bias).unflatten(-1, (-1, self.head_dim))

    def attend(
        self, queries: Float[Tensor, "B H T d"], kv: KeyValues, visibility: Visibility
    ) -> Float[Tensor, "B T D"]:
        """Read from keys and values and project back to the model's width."""
        return self.out(self.mix(queries, kv, visibility).transpose(1, 2).flatten(2))

    def mix(
        self, queries: Float[Tensor, "B H T d"], kv: KeyValues, visibility: Visibility
    ) -> Float[Tensor, "B H T d"]:
        """Read from keys and values."""
        self._watch(queries, kv, visibility)
        if visibility.length >= COMPILED_QUERIES and knows(queries, kv.keys):
            return self._compiled(queries, kv, visibility)
        return self._by_torch(queries, kv, visibility)

    def mix_packed(
        self, queries: Float[Tensor, "1 H N d"], kv: KeyValues, visibility: PackedVisibility
    ) -> Float[Tensor, "N D"]:
        """The same of some queries only, as one row."""
        compiled = visibility.length >= COMPILED_PACKED and knows(queries, kv.keys)
        if not compiled or self._watched:
            padded = visibility.by_row(queries)
            self._watch(padded, kv, visibility)
            if not compiled:
                return visibility.side_by_side(self._by_torch(padded, kv, visibility))
        return ragged_attention(queries[0], *kv, visibility.spans(self.window, len(kv.keys)))

    def forward(self, x: Float[Tensor, "B T D"], visibility: Visibility) -> Float[Tensor, "B T D"]:
        """The whole module, without a cache."""
        queries, kv = self.project(x, visibility)
        return self.attend(queries, kv, visibility)

    def _watch(self, queries: Tensor, kv: KeyValues, visibility: Visibility) -> None:
        if self._watched and self.training:
            seen = largest_logits(queries, kv.keys, visibility.allowed(self.window))
            self._largest = seen if self._largest is None else torch.maximum(self._largest, seen)

    def _by_torch(self, queries: Tensor, kv: KeyValues, visibility: Visibility) -> Tensor:
        fused = torch.compiler.is_compiling() or not matmul_attention_is_faster(queries)
        if not fused and kv.keys.shape[2] <= MATMUL_KEYS:
            return self._by_matmul(queries, kv, visibility)
        return self._by_kernel(queries, kv, visibility)

    def _compiled(self, queries: Tensor, kv: KeyValues, visibility: Visibility) -> Tensor:
        rows, heads, length, _ = queries.shape
        by_head = queries.transpose(0, 1).flatten(1, 2)
        mixed = ragged_attention(by_head, *kv, visibility.spans(self.window, rows))
        return mixed.view(rows, length, heads, -1).transpose(1, 2)

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
        return matmul_attention(
            queries, keys, values, visibility.bias(self.window, queries.dtype), tuple(visibility.blocks())
        )

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

    def watch_logits(self) -> None:
        """From now on remember, in training, each head's largest logit; it takes another product with the keys."""
        self._watched = True

    @torch.no_grad()
    def limit_logits(self, limit: float) -> Float[Tensor, " H"] | None:
        """Shrink the heads whose largest logit since the last call was above the limit, so that it would be this.

        With γ = limit/logit where that is below 1, the logits of head h become γ_h times what they were, the keys of a
        group taking √γ of the head that needs it least and the queries the rest: √γ each where no keys are shared
        (Kimi Team 2025, arXiv 2507.20534, section 2.1). Values and other heads stay as they are.

        Returns:
            The largest logits before, None where none was seen.
        """
        largest, self._largest = self._largest, None
        if largest is None:
            return None
        factors = limit / largest.clamp(min=limit)
        keys = factors.view(self.kv_heads, -1).amax(1).sqrt()
        queries = factors / keys.repeat_interleave(self.heads // self.kv_heads)
        rows = torch.cat([queries, keys]).repeat_interleave(self.head_dim)
        self.qkv.weight[: len(rows)].mul_(rows[:, None])
        if self.qkv.bias is not None:
            self.qkv.bias[: len(rows)].mul_(rows)
        return largest

    def pass_flops(self, context: float, *, with_keys: bool) -> float:
        """FLOPs per token with `context` visible keys; the first pass also projects keys and values."""
        width = self.out.in_features
        projections = 4 * width * width + (self.tell_flops() if with_keys else 0)
        return projections + 4 * width * (min(context, self.window) if self.window else context)

    def tell_flops(self) -> int:
        """FLOPs per token of keys and values alone."""
        width = self.out.in_features
        return 2 * width * (self.qkv.out_features - width)


@torch.no_grad()
def largest_logits(
    queries: Float[Tensor, "B H T d"], keys: Float[Tensor, "B G S d"], allowed: Bool[Tensor, "b T S"]
) -> Float[Tensor, " H"]:
    """max q·k/√d over allowed pairs, by head, LOGIT_ROWS queries at a time, in at least float32."""
    wide = torch.promote_types(queries.dtype, torch.float32)
    keys, parts = repeat_heads(keys, queries.shape[1]).to(wide).mT, []
    with torch.autocast(queries.device.type, enabled=False):
        for i in range(0, queries.shape[2], LOGIT_ROWS):
            scores = queries[:, :, i : i + LOGIT_ROWS].to(wide) @ keys
            hidden = ~allowed[:, None, i : i + LOGIT_ROWS]
            parts.append(scores.masked_fill_(hidden, -math.inf).amax((0, 2, 3)))
    return torch.stack(parts).amax(0) * queries.shape[-1] ** -0.5


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
