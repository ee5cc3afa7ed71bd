"""Presets of dense_lm, smallest first. Each docstring's first line is what `ouro presets` prints."""

from __future__ import annotations

from ourospec.data.text import TextData
from ourospec.data.tokenizers import BpeConfig, ByteTokenizerConfig
from ourospec.families.dense_lm.model import DenseConfig
from ourospec.families.dense_lm.recipe import DenseRecipe
from ourospec.nn.attention import AttentionConfig
from ourospec.optim.config import OptimConfig
from ourospec.train.config import TrainConfig


def smoke() -> DenseRecipe:
    """Seconds: a few steps on bytes, to see that everything works."""
    return DenseRecipe(
        name="smoke",
        data=TextData(tokenizer=ByteTokenizerConfig()),
        model=DenseConfig(
            width=32, layers=2, attention=AttentionConfig(heads=4, kv_heads=2), mlp_hidden=64, max_length=64
        ),
        train=TrainConfig(
            steps=20,
            batch_size=8,
            micro_batch_size=4,
            window=64,
            eval_every=10,
            eval_tokens=2_000,
            sample_every=10,
            save_every=10,
        ),
        optim=OptimConfig(lr=3e-3),
    )


def tiny() -> DenseRecipe:
    """Some minutes on 2 cores: the plain twin of adaptive_lm/tiny, of the same shape."""
    return DenseRecipe(
        name="tiny",
        model=DenseConfig(
            width=256, layers=4, attention=AttentionConfig(heads=4), mlp_hidden=704, max_length=256
        ),
        train=TrainConfig(
            steps=1_000,
            batch_size=8,
            micro_batch_size=8,
            window=256,
            eval_every=200,
            eval_tokens=40_000,
            sample_every=200,
            save_every=100,
        ),
        optim=OptimConfig(lr=3e-3),
    )


def small() -> DenseRecipe:
    """An hour or so on 2 cores: the plain twin of adaptive_lm/small."""
    return DenseRecipe(
        name="small",
        model=DenseConfig(
            width=384, layers=6, attention=AttentionConfig(heads=6), mlp_hidden=1_024, max_length=512
        ),
        train=TrainConfig(
            steps=10_000,
            batch_size=32,
            micro_batch_size=16,
            window=512,
            eval_every=500,
            eval_tokens=200_000,
            sample_every=500,
            save_every=250,
        ),
        optim=OptimConfig(lr=1e-3),
    )


def gpt_100m() -> DenseRecipe:
    """The plain twin of adaptive_lm/ouro_100m: 8 layers of 768, vocabulary 50,272."""
    return DenseRecipe(
        name="gpt_100m",
        data=TextData(tokenizer=BpeConfig(vocab_size=50_272)),
        model=DenseConfig(
            width=768,
            layers=8,
            attention=AttentionConfig(heads=12),
            mlp_hidden=2_048,
            vocab_size=50_272,
            max_length=512,
            tied=True,
        ),
        train=TrainConfig(
            steps=10_000,
            batch_size=16,
            micro_batch_size=4,
            window=512,
            eval_every=500,
            eval_tokens=100_000,
            sample_every=500,
            save_every=250,
        ),
        optim=OptimConfig(lr=3e-4, final_lr_fraction=0.1, warmup_fraction=0.05, weight_decay=0.01),
    )


PRESETS = {f"dense_lm/{preset.__name__}": preset for preset in (smoke, tiny, small, gpt_100m)}
