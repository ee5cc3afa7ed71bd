"""Presets of spacing_mdn. Each docstring's first line is what `ouro presets` prints."""

from __future__ import annotations

from typing import Any

from ourospec.data.spacings import SpacingData, ZerosSource
from ourospec.families.spacing_mdn.proxies import ProxyTask
from ourospec.families.spacing_mdn.recipe import SpacingRecipe
from ourospec.families.spacing_mdn.registers import (
    NoRegisters,
    PostfixRegisters,
    PrefixRegisters,
    RegisterConfig,
)
from ourospec.families.spacing_mdn.tones import TonesConfig
from ourospec.families.spacing_mdn.transformer import TransformerConfig
from ourospec.optim.config import OptimConfig
from ourospec.train.config import TrainConfig

E3_REGISTERS = PostfixRegisters()
E4_REGISTERS = PostfixRegisters(ids="permute_per_batch", task=ProxyTask())
PATIENCE = 800
"""Of E4, in optimiser steps, as the document writes it."""


def smoke() -> SpacingRecipe:
    """Seconds: a few steps on the first 6,000 zeros, to see that everything works."""
    return SpacingRecipe(
        name="smoke",
        data=SpacingData(source=ZerosSource(count=6_000)),
        train=TrainConfig(
            steps=20,
            batch_size=8,
            micro_batch_size=4,
            window=64,
            eval_every=10,
            eval_tokens=500,
            sample_every=0,
            save_every=10,
        ),
        optim=OptimConfig(lr=3e-3),
        model=TransformerConfig(
            width=32,
            layers=2,
            heads=4,
            mlp_hidden=64,
            context=64,
            registers=PostfixRegisters(dense_weight=1.0),
        ),
    )


def smoke_tones() -> SpacingRecipe:
    """Seconds: as smoke, with the model that follows tones."""
    return SpacingRecipe(
        name="smoke_tones",
        data=SpacingData(source=ZerosSource(count=6_000)),
        train=TrainConfig(
            steps=20,
            batch_size=4,
            micro_batch_size=2,
            window=160,
            eval_every=10,
            eval_tokens=500,
            sample_every=0,
            save_every=10,
        ),
        optim=OptimConfig(lr=3e-3),
        model=TonesConfig(tones=8, highest=3.0, windows=(32, 128), lags=8, width=32, layers=2),
    )


def _everywhere(name: str, registers: RegisterConfig, seed: int = 0) -> SpacingRecipe:
    """E0 to E2: a target at every spacing of a window."""
    return SpacingRecipe(
        name=name,
        seed=seed,
        train=TrainConfig(
            steps=15_000,
            batch_size=256,
            micro_batch_size=64,
            window=255,
            eval_every=200,
            eval_tokens=5_000,
            sample_every=0,
            save_every=200,
        ),
        optim=OptimConfig(lr=3e-4, final_lr_fraction=1 / 30, warmup_fraction=0.1, weight_decay=0.01),
        model=TransformerConfig(registers=registers),
    )


def _behind(name: str, registers: RegisterConfig, patience: int = 0) -> SpacingRecipe:
    """E3 and E4: one target behind the window."""
    return SpacingRecipe(
        name=name,
        train=TrainConfig(
            steps=10_000,
            batch_size=512,
            micro_batch_size=64,
            window=256,
            eval_every=100,
            eval_tokens=5_000,
            sample_every=0,
            save_every=200,
        ),
        patience=patience,
        optim=OptimConfig(lr=3e-4, final_lr_fraction=1 / 30, warmup_fraction=0.0, weight_decay=0.1),
        model=TransformerConfig(registers=registers),
    )


def e0() -> SpacingRecipe:
    """The document's E0: a GPT over 255 spacings, 4.8 M parameters, no memory. For a GPU."""
    return _everywhere("e0", NoRegisters())


def e1() -> SpacingRecipe:
    """The document's E1: E0 with eight registers before the spacings. For a GPU."""
    return _everywhere("e1", PrefixRegisters())


def e2() -> SpacingRecipe:
    """The document's E2: E1 again, with another seed. For a GPU."""
    return _everywhere("e2", PrefixRegisters(), seed=1)


def e3() -> SpacingRecipe:
    """The document's E3: registers behind 256 spacings, and the prediction read from them alone. For a GPU."""
    return _behind("e3", E3_REGISTERS)


def e4() -> SpacingRecipe:
    """The document's E4: E3 with identities permuted, the auxiliary task and early stopping. For a GPU."""
    return _behind("e4", E4_REGISTERS, PATIENCE)


def _tiny(name: str, recipe: SpacingRecipe, **model: Any) -> SpacingRecipe:
    """A document's experiment for a CPU: two layers of 64 over 128 spacings. What tells the experiments apart stays."""
    shape = {"width": 64, "layers": 2, "heads": 4, "mlp_hidden": 256, "context": 128, "dropout": 0.0, **model}
    train = {
        "steps": 1_500,
        "batch_size": 64,
        "micro_batch_size": 64,
        "window": recipe.train.window // 2,
        "eval_every": 100,
        "eval_tokens": 2_000,
        "save_every": 100,
    }
    return recipe.model_copy(
        update={
            "name": name,
            "model": recipe.model.model_copy(update=shape),
            "train": recipe.train.model_copy(update=train),
            "optim": recipe.optim.model_copy(update={"lr": 2e-3}),
        }
    )


def e0_tiny() -> SpacingRecipe:
    """Minutes on 2 cores: E0 with two layers of 64 over 127 spacings."""
    return _tiny("e0_tiny", e0())


def e1_tiny() -> SpacingRecipe:
    """Minutes on 2 cores: E1 of the size of e0_tiny."""
    return _tiny("e1_tiny", e1())


def e2_tiny() -> SpacingRecipe:
    """Minutes on 2 cores: E2 of the size of e0_tiny."""
    return _tiny("e2_tiny", e2())


def e3_tiny() -> SpacingRecipe:
    """Minutes on 2 cores: E3 of the size of e0_tiny."""
    return _tiny("e3_tiny", e3())


def e4_tiny() -> SpacingRecipe:
    """Minutes on 2 cores: E4 of the size of e0_tiny."""
    return _tiny("e4_tiny", e4())


def e3_dense_tiny() -> SpacingRecipe:
    """Minutes on 2 cores: e3_tiny with the loss at every spacing besides, on as many targets as e0_tiny."""
    return _tiny("e3_dense_tiny", e3(), registers=E3_REGISTERS.model_copy(update={"dense_weight": 1.0}))


def e4_dense_tiny() -> SpacingRecipe:
    """Minutes on 2 cores: e4_tiny with the loss at every spacing besides."""
    return _tiny("e4_dense_tiny", e4(), registers=E4_REGISTERS.model_copy(update={"dense_weight": 1.0}))


def e4_anonymous_tiny() -> SpacingRecipe:
    """Minutes on 2 cores: e4_dense_tiny with registers that share a position and do not see each other."""
    registers = E4_REGISTERS.model_copy(update={"dense_weight": 1.0, "anonymous": True})
    return _tiny("e4_anonymous_tiny", e4(), registers=registers)


def e0_height_tiny() -> SpacingRecipe:
    """Minutes on 2 cores: e0_tiny that also reads ln(t/2π)."""
    return _tiny("e0_height_tiny", e0(), inputs="height")


def _ours(name: str, model: TonesConfig, targets: int = 512) -> SpacingRecipe:
    """A network over features, with so many targets in a row."""
    return SpacingRecipe(
        name=name,
        train=TrainConfig(
            steps=12_000,
            batch_size=4,
            micro_batch_size=4,
            window=model.context + targets - 1,
            eval_every=1_000,
            eval_tokens=2_000,
            sample_every=0,
            save_every=250,
        ),
        optim=OptimConfig(
            # Where densities are narrow, gradients are long: a norm of 10 is nothing unusual here.
            lr=1.5e-3,
            final_lr_fraction=0.0,
            beta2=0.98,
            weight_decay=0.01,
            clip_norm=20.0,
        ),
        model=model,
    )


def lags() -> SpacingRecipe:
    """Minutes on 2 cores: a plain network over the last 128 spacings and the height, to compare tones with."""
    return _ours("lags", TonesConfig(tones=0, windows=(), lags=128))


def tones_256() -> SpacingRecipe:
    """Minutes on 2 cores: as tones, from no more than the last 256 zeros, as far as the document's models look back."""
    return _ours("tones_256", TonesConfig(windows=(32, 64, 128, 256), dropout=0.1))


def tones() -> SpacingRecipe:
    """Minutes on 2 cores: ours. Follows the 100 strongest tones of the zeros over the last 2,048 of them."""
    return _ours("tones", TonesConfig(dropout=0.1))


PRESETS = {
    f"spacing_mdn/{preset.__name__}": preset
    for preset in (
        smoke, smoke_tones, lags, tones_256, tones,
        e0_tiny, e1_tiny, e2_tiny, e3_tiny, e4_tiny,
        e0_height_tiny, e3_dense_tiny, e4_dense_tiny, e4_anonymous_tiny,
        e0, e1, e2, e3, e4,
    )
}  # fmt: skip
