"""QK-clip from the optimiser's side: every attention of a model, and nothing else."""

from __future__ import annotations

import torch
from torch import nn

from ourospec.nn.attention import Attention, AttentionConfig
from ourospec.nn.visibility import Visibility
from ourospec.optim.config import OptimConfig, QKClipConfig
from ourospec.optim.optimiser import build_optimiser

from .everything import PLAIN


class Two(nn.Module):
    """Two attentions, the second of which reads larger numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = (Attention(8, AttentionConfig(heads=2)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        visibility = Visibility(x.shape[1], x.device)
        return self.first(x, visibility) + self.second(20.0 * x, visibility)


def test_limits_after_the_update_and_tells_of_it() -> None:
    model, x = Two(), torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(1))
    optimiser = build_optimiser(model, OptimConfig(qk_clip=QKClipConfig(limit=30.0), weight_decay=0.0), PLAIN)
    first = model.first.qkv.weight.detach().clone()
    model(x).sum().backward()
    optimiser.set_rates(10, 10)
    for group in optimiser.param_groups:
        group["lr"] = 0.0  # so that what moves is moved by the limit
    told = optimiser.step()
    assert told["max_logit"] > 30 and told["clipped_heads"] == 2
    assert torch.equal(model.first.qkv.weight, first)
    model(x).sum().backward()
    after = optimiser.step()
    assert abs(after["max_logit"] - 30) < 1e-3


def test_tells_nothing_where_nothing_was_seen_and_is_off_by_default() -> None:
    model = Two()
    assert build_optimiser(model, OptimConfig(qk_clip=QKClipConfig()), PLAIN).step() == {}
    plain = Two()
    optimiser = build_optimiser(plain, OptimConfig(), PLAIN)
    plain(torch.randn(1, 4, 8)).sum().backward()
    assert optimiser.step() == {}
    assert plain.first.limit_logits(1.0) is None, "nobody asked it to look"
