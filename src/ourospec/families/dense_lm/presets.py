"""Presets of dense_lm, smallest first. Each docstring's first line is what `ouro presets` prints."""

from __future__ import annotations

from ourospec.families.dense_lm.model import DenseConfig
from ourospec.families.dense_lm.recipe import DenseRecipe
from ourospec.families.terms import OURO_100M, SMALL, SMOKE, TINY
from ourospec.nn.attention import AttentionConfig


def smoke() -> DenseRecipe:
    """Seconds: a few steps on bytes, to see that everything works."""
    return DenseRecipe(
        name="smoke",
        data=SMOKE.data,
        train=SMOKE.train,
        optim=SMOKE.optim,
        model=DenseConfig(
            width=32, layers=2, attention=AttentionConfig(heads=4, kv_heads=2), mlp_hidden=64, max_length=64
        ),
    )


def tiny() -> DenseRecipe:
    """Some minutes on 2 cores: the plain twin of adaptive_lm/tiny, of the same shape."""
    return DenseRecipe(
        name="tiny",
        data=TINY.data,
        train=TINY.train,
        optim=TINY.optim,
        model=DenseConfig(
            width=256, layers=4, attention=AttentionConfig(heads=4), mlp_hidden=704, max_length=256
        ),
    )


def small() -> DenseRecipe:
    """About an hour on 2 cores: the plain twin of adaptive_lm/small."""
    return DenseRecipe(
        name="small",
        data=SMALL.data,
        train=SMALL.train,
        optim=SMALL.optim,
        model=DenseConfig(
            width=384, layers=6, attention=AttentionConfig(heads=6), mlp_hidden=1_024, max_length=512
        ),
    )


def gpt_100m() -> DenseRecipe:
    """The plain twin of adaptive_lm/ouro_100m: 8 layers of 768, vocabulary 50,272."""
    return DenseRecipe(
        name="gpt_100m",
        data=OURO_100M.data,
        train=OURO_100M.train,
        optim=OURO_100M.optim,
        model=DenseConfig(
            width=768,
            layers=8,
            attention=AttentionConfig(heads=12),
            mlp_hidden=2_048,
            vocab_size=50_272,
            max_length=512,
            tied=True,
        ),
    )


PRESETS = {f"dense_lm/{preset.__name__}": preset for preset in (smoke, tiny, small, gpt_100m)}
