"""Presets of adaptive_lm, smallest first. Each docstring's first line is what `ouro presets` prints."""

from __future__ import annotations

from ourospec.families.adaptive_lm.credit import CouponConfig, NoCreditConfig
from ourospec.families.adaptive_lm.economy import ConstantPriceConfig, DualAscentConfig
from ourospec.families.adaptive_lm.model import AdaptiveConfig
from ourospec.families.adaptive_lm.objective import DepthObjective
from ourospec.families.adaptive_lm.recipe import AdaptiveRecipe
from ourospec.families.adaptive_lm.schedule import Schedule
from ourospec.families.terms import OURO_100M, SMALL, SMOKE, TINY
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.depth import DepthConfig
from ourospec.nn.embed import FourierConfig, KroneckerConfig
from ourospec.nn.moe import MoEConfig


def smoke() -> AdaptiveRecipe:
    """Seconds: a few steps on bytes, to see that everything works."""
    return AdaptiveRecipe(
        name="smoke",
        data=SMOKE.data,
        train=SMOKE.train,
        optim=SMOKE.optim,
        model=AdaptiveConfig(
            width=32,
            layers=2,
            attention=AttentionConfig(heads=4),
            mlp_hidden=64,
            depth=DepthConfig(max_passes=3, threshold=0.5, gate_bias=0.0, weight="full", learned_passes=True),
            max_length=64,
        ),
        objective=DepthObjective(),
    )


def tiny() -> AdaptiveRecipe:
    """About ten minutes on 2 cores: a small model of Python source that varies its depth."""
    return AdaptiveRecipe(
        name="tiny",
        data=TINY.data,
        train=TINY.train,
        optim=TINY.optim,
        model=AdaptiveConfig(
            width=256,
            layers=4,
            attention=AttentionConfig(heads=4),
            mlp_hidden=704,
            depth=DepthConfig(max_passes=3, threshold=0.5, gate_bias=0.0, weight="full", learned_passes=True),
            max_length=256,
        ),
        objective=DepthObjective(),
    )


def small() -> AdaptiveRecipe:
    """About two hours on 2 cores: the same idea at about 10 million parameters beside its embedding."""
    base = tiny()
    return AdaptiveRecipe(
        name="small",
        data=SMALL.data,
        train=SMALL.train,
        optim=SMALL.optim,
        model=AdaptiveConfig(
            width=384,
            layers=6,
            attention=AttentionConfig(heads=6),
            mlp_hidden=1_024,
            depth=base.model.depth,
            max_length=512,
        ),
        objective=base.objective,
    )


def ouro_100m() -> AdaptiveRecipe:
    """The sizes that Ouro-Spec's documentation gives: 8 layers of 768 with experts, vocabulary 50,272."""
    return AdaptiveRecipe(
        name="ouro_100m",
        data=OURO_100M.data,
        train=OURO_100M.train,
        optim=OURO_100M.optim,
        model=AdaptiveConfig(
            width=768,
            layers=8,
            attention=AttentionConfig(heads=12),
            moe=MoEConfig(experts=8, top_k=2, hidden=512, shared_hidden=512),
            depth=DepthConfig(max_passes=4, scales=(1.0, 0.7, 0.5, 0.35), threshold=0.10, gate_bias=-2.0),
            embedding=FourierConfig(),
            vocab_size=50_272,
            max_length=512,
        ),
        objective=DepthObjective(
            schedule=Schedule(forced_until=0.08, price_from=0.12, ceiling_until=0.4),
            # The documentation's floor is 1e-4; with gates that begin at 0.12 only a subsidy can lift the depth.
            price=DualAscentConfig(start=1e-4, floor=-5e-2, ceiling=5e-2),
            credit=CouponConfig(),
        ),
    )


def tiny_fixed_1() -> AdaptiveRecipe:
    """tiny with one pass everywhere and no gate: the cheapest fixed depth."""
    return fixed(tiny(), 1)


def tiny_fixed_2() -> AdaptiveRecipe:
    """tiny with two passes everywhere and no gate."""
    return fixed(tiny(), 2)


def tiny_fixed_3() -> AdaptiveRecipe:
    """tiny with three passes everywhere and no gate."""
    return fixed(tiny(), 3)


def tiny_fixed_4() -> AdaptiveRecipe:
    """tiny with four passes everywhere and no gate: the dearest fixed depth."""
    return fixed(tiny(), 4)


def tiny_fourier() -> AdaptiveRecipe:
    """tiny with the character-position embedding and its semantic anchors in place of a table."""
    embedding = FourierConfig(anchors=256, anchor_heads=4, anchor_hidden=512)
    return with_embedding(tiny(), "tiny_fourier", embedding)


def tiny_kronecker() -> AdaptiveRecipe:
    """tiny with the byte-position embedding in place of a table."""
    return with_embedding(tiny(), "tiny_kronecker", KroneckerConfig())


def fixed(base: AdaptiveRecipe, passes: int) -> AdaptiveRecipe:
    """The same recipe with every token running `passes` passes in every layer."""
    depth = base.model.depth.model_copy(update={"max_passes": passes, "halting": "fixed"})
    return base.model_copy(
        update={
            "name": f"{base.name}_fixed_{passes}",
            "model": base.model.model_copy(update={"depth": depth}),
            "objective": DepthObjective(
                schedule=Schedule(forced_passes=0, forced_until=0.0, price_from=0.0, audit_share=0.0),
                price=ConstantPriceConfig(price=0.0),
                credit=NoCreditConfig(),
                watched_share=0.0,
            ),
        }
    )


def with_embedding(
    base: AdaptiveRecipe, name: str, embedding: FourierConfig | KroneckerConfig
) -> AdaptiveRecipe:
    """The same recipe with another embedding."""
    model = base.model.model_copy(update={"embedding": embedding})
    return base.model_copy(update={"name": name, "model": model})


PRESETS = {
    f"adaptive_lm/{preset.__name__}": preset
    for preset in (
        smoke,
        tiny,
        tiny_fixed_1,
        tiny_fixed_2,
        tiny_fixed_3,
        tiny_fixed_4,
        tiny_fourier,
        tiny_kronecker,
        small,
        ouro_100m,
    )
}
