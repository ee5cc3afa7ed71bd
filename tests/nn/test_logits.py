"""The largest attention logits: seen as they are, and limited exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ourospec.contracts import Effort
from ourospec.families.adaptive_lm.model import AdaptiveConfig, AdaptiveLM
from ourospec.nn.attention import Attention, AttentionConfig, largest_logits
from ourospec.nn.compaction import execute
from ourospec.nn.depth import DepthConfig
from ourospec.nn.visibility import Visibility

WIDTH, LENGTH = 16, 150


def attention(**settings: Any) -> Attention:
    torch.manual_seed(0)
    found = Attention(WIDTH, AttentionConfig(heads=4, **settings)).double()
    with torch.no_grad():
        found.qkv.weight.mul_(torch.linspace(1, 3, len(found.qkv.weight))[:, None])
    return found


def rows(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, LENGTH, WIDTH, generator=torch.Generator().manual_seed(seed)).double()


@torch.no_grad()
def by_hand(module: Attention, x: Tensor, visibility: Visibility) -> Tensor:
    """One query, key and head at a time."""
    queries, (keys, _) = module.project(x, visibility)
    allowed = visibility.allowed(module.window)
    found = [-math.inf] * module.heads
    for h in range(module.heads):
        g = h // (module.heads // module.kv_heads)
        for b in range(len(x)):
            scores = queries[b, h] @ keys[b, g].T / module.head_dim**0.5
            seen = allowed[min(b, len(allowed) - 1)]
            found[h] = max(found[h], float(scores[seen].max()))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("settings", [{}, {"kv_heads": 2}, {"window": 9}], ids=["plain", "grouped", "window"])
@pytest.mark.parametrize("ragged", [False, True])
def test_sees_the_largest_logit_of_each_head_among_those_that_count(settings: dict, ragged: bool) -> None:
    module, x = attention(**settings), rows()
    documents = (torch.arange(LENGTH) // 40).expand(2, -1) if ragged else None
    visibility = Visibility(LENGTH, x.device, documents=documents)
    module.watch_logits()
    module(x, visibility)
    expected = by_hand(module, x, visibility)
    seen = module.limit_logits(1e9)
    assert seen is not None
    torch.testing.assert_close(seen, expected, rtol=1e-12, atol=1e-12)
    unmasked = largest_logits(
        *_projected(module, x, visibility), torch.ones(1, LENGTH, LENGTH, dtype=torch.bool)
    )
    assert bool((unmasked > expected).any()), "what may not be seen does not count"


def _projected(module: Attention, x: Tensor, visibility: Visibility) -> tuple[Tensor, Tensor]:
    queries, kv = module.project(x, visibility)
    return queries, kv.keys


@pytest.mark.parametrize("kv_heads", [0, 1, 2])
def test_heads_above_the_limit_are_brought_to_it_and_the_others_left(kv_heads: int) -> None:
    module, x = attention(kv_heads=kv_heads), rows()
    visibility = Visibility(LENGTH, x.device)
    before, values = by_hand(module, x, visibility), module.qkv.weight.detach().clone()
    limit = float(before.sort().values[1:3].mean())  # two heads are below, two above
    module.watch_logits()
    module(x, visibility)
    told = module.limit_logits(limit)
    assert told is not None
    torch.testing.assert_close(told, before, rtol=1e-12, atol=1e-12)
    after = by_hand(module, x, visibility)
    torch.testing.assert_close(after, before.clamp(max=limit), rtol=1e-12, atol=1e-12)
    of_values = (module.heads + module.kv_heads) * module.head_dim
    assert torch.equal(module.qkv.weight[of_values:], values[of_values:])
    if not kv_heads:
        queries_and_keys = (2, module.heads, module.head_dim, WIDTH)
        now, then = (w[:of_values].view(queries_and_keys) for w in (module.qkv.weight.detach(), values))
        factors = (limit / before).clamp(max=1).sqrt()
        torch.testing.assert_close(now, then * factors[:, None, None], rtol=1e-12, atol=1e-12)


def test_looks_only_when_asked_and_only_in_training() -> None:
    module, x = attention(), rows()
    visibility = Visibility(LENGTH, x.device)
    module(x, visibility)
    assert module.limit_logits(1.0) is None
    module.watch_logits()
    module.eval()(x, visibility)
    assert module.limit_logits(1.0) is None
    module.train()(0.5 * x, visibility)
    small = by_hand(module, 0.5 * x, visibility)
    module(x, visibility)
    both = module.limit_logits(1e9)
    assert both is not None and bool((both > small).all()), "the largest of both micro-batches"
    assert module.limit_logits(1e9) is None, "and then a new step begins"


def test_watching_changes_nothing() -> None:
    module, other, x = attention(), attention(), rows().requires_grad_()
    visibility = Visibility(LENGTH, x.device)
    other.watch_logits()
    module(x, visibility).sum().backward()
    alone = x.grad
    x.grad = None
    watched = other(x, visibility)
    watched.sum().backward()
    assert torch.equal(watched, module(x, visibility))
    assert alone is not None and x.grad is not None and torch.equal(alone, x.grad)


@pytest.mark.parametrize("how", ["masked", "compacted"])
def test_later_passes_count_packed_or_not(how: Any) -> None:
    config = AdaptiveConfig(
        width=16,
        layers=1,
        attention=AttentionConfig(heads=2),
        mlp_hidden=24,
        depth=DepthConfig(),
        max_length=64,
    )
    torch.manual_seed(3)
    model = AdaptiveLM(config, 11, [b"x"] * 11).double()
    tokens = torch.randint(0, 11, (2, 20))
    layer: Any = model.layers[0]
    layer.attention.watch_logits()
    seen = []
    for passes in (1, 4):
        plan = torch.ones(1, 2, 20, dtype=torch.long)
        plan[:, :, ::3] = passes
        with execute(model, how):
            model(tokens, effort=Effort(plan=plan))
        seen.append(layer.attention.limit_logits(1e9))
    assert bool((seen[1] >= seen[0]).all())
    if how == "compacted":
        with execute(model, "masked"):
            model(tokens, effort=Effort(plan=plan))
        masked = layer.attention.limit_logits(1e9)
        # Those who have left are computed along with the others there, but their queries are nobody's.
        assert bool((masked >= seen[1] - 1e-12).all())
