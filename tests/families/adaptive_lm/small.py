"""A model of adaptive_lm small enough to be followed token by token, in float64, and text for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ourospec.data.batch import NO_TARGET, TokenBatch
from ourospec.device import DevicePolicy
from ourospec.families.adaptive_lm.credit import CouponConfig, ExplorationConfig, GainConfig, NoCreditConfig
from ourospec.families.adaptive_lm.economy import DualAscentConfig, LegacyConfig
from ourospec.families.adaptive_lm.model import AdaptiveConfig, AdaptiveLM
from ourospec.families.adaptive_lm.objective import AdaptiveObjective, DepthObjective
from ourospec.families.adaptive_lm.schedule import Schedule
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.depth import DepthConfig
from ourospec.nn.moe import MoEConfig

VOCABULARY, LAYERS, LENGTH = 23, 2, 10
POLICY = DevicePolicy(torch.device("cpu"), None, False)
EXPERTS = MoEConfig(experts=4, top_k=2, hidden=8, shared_hidden=8)
SCHEDULE = Schedule(
    unit="steps", forced_until=2, price_from=4, ceiling_until=6, audit_share=0.25, exploration=0.1
)
"""Two steps of warm-up, two without a price, then one audit in every four."""
MARKET = DualAscentConfig(target=1.6, start=0.01, rate=0.3)

CREDITS: dict[str, dict[str, Any]] = {
    "gain": {"credit": GainConfig()},
    "coupon": {"credit": CouponConfig()},
    "coupon, experts": {"credit": CouponConfig(eta=0.5), "experts": True},
    "coupon, dear": {"credit": CouponConfig(eta=0.3), "price": DualAscentConfig(target=1.6, start=0.3)},
    "exploration": {"credit": ExplorationConfig()},
    "none": {"credit": NoCreditConfig()},
    "shy gates": {"credit": NoCreditConfig(), "gate_bias": -2.7},
    "author's": {
        "credit": CouponConfig(detached=False, reference="last_layer"),
        "price": LegacyConfig(floor=1e-2, ceiling=0.1),
        "experts": True,
    },
}
"""Everything that can be bought on credit, by name: the settings for `make`."""


def make(
    credit: Any, price: Any = MARKET, schedule: Schedule = SCHEDULE, experts: bool = False, **depth: Any
) -> tuple[AdaptiveLM, AdaptiveObjective]:
    """A model whose gates disagree from token to token, as those of a trained one do, and its objective."""
    weight = "full" if credit.kind == "gain" else "survival"
    shape = AdaptiveConfig(
        width=16,
        layers=LAYERS,
        attention=AttentionConfig(heads=2),
        mlp_hidden=20,
        moe=EXPERTS if experts else None,
        depth=DepthConfig(**{"max_passes": 4, "threshold": 0.3, "gate_bias": 0.3, "weight": weight, **depth}),
        max_length=LENGTH,
    )
    torch.manual_seed(0)
    model = AdaptiveLM(shape, VOCABULARY, [b"x"] * VOCABULARY).double().train()
    for name, parameter in model.named_parameters():
        if name.endswith(("gate.output.weight", "gate.see_state.weight")):
            torch.nn.init.normal_(parameter, std=0.15)
        if name.endswith("head.rows.weight"):
            torch.nn.init.normal_(parameter, std=0.5)
    config = DepthObjective(schedule=schedule, price=price, credit=credit, watched_share=0.5)
    return model, AdaptiveObjective(config, shape.depth, LAYERS)


def text(seed: int, rows: int = 4, missing: int = 0) -> TokenBatch:
    """Random tokens in documents; the last `missing` positions of each row have no target."""
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randint(VOCABULARY, (rows, LENGTH + 1), generator=generator)
    documents = torch.cumsum(torch.rand(rows, LENGTH, generator=generator) < 0.15, 1)
    targets = stream[:, 1:].clone()
    if missing:
        targets[:, -missing:] = NO_TARGET
    counted = int((targets >= 0).sum())
    return TokenBatch(stream[:, :-1], targets, documents, counted, 3 * counted)


def gate_parameters(model: AdaptiveLM) -> dict[str, Tensor]:
    """Those of the gates, by name."""
    return {name: p for name, p in model.named_parameters() if ".gate." in name}
