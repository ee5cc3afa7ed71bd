"""The terms on which models of one size are trained, whatever their family, so that they can be compared."""

from __future__ import annotations

from typing import NamedTuple

from ourospec.data.text import TextData
from ourospec.data.tokenizers import BpeConfig, ByteTokenizerConfig
from ourospec.optim.config import OptimConfig
from ourospec.train.config import TrainConfig


class Terms(NamedTuple):
    """Text, schedule and optimiser. A model's `max_length` is the window: nothing decodes beyond it."""

    data: TextData
    train: TrainConfig
    optim: OptimConfig


SMOKE = Terms(
    TextData(tokenizer=ByteTokenizerConfig()),
    TrainConfig(
        steps=20,
        batch_size=8,
        micro_batch_size=4,
        window=64,
        eval_every=10,
        eval_tokens=2_000,
        sample_every=10,
        save_every=10,
    ),
    OptimConfig(lr=3e-3),
)
TINY = Terms(
    TextData(),
    TrainConfig(
        steps=1_000,
        batch_size=8,
        micro_batch_size=8,
        window=256,
        eval_every=200,
        eval_tokens=40_000,
        sample_every=200,
        save_every=100,
    ),
    OptimConfig(lr=3e-3),
)
# Some four epochs of the default text, which is small for a model of this size.
SMALL = Terms(
    TextData(),
    TrainConfig(
        steps=2_500,
        batch_size=8,
        micro_batch_size=8,
        window=512,
        eval_every=250,
        eval_tokens=80_000,
        sample_every=250,
        save_every=125,
    ),
    OptimConfig(lr=2e-3),
)
# The schedule that Ouro-Spec's documentation gives: 500 steps of warm-up, 3e-4 to 3e-5 over 10,000 steps.
OURO_100M = Terms(
    TextData(tokenizer=BpeConfig(vocab_size=50_272)),
    TrainConfig(
        steps=10_000,
        batch_size=16,
        micro_batch_size=4,
        window=512,
        eval_every=500,
        eval_tokens=100_000,
        sample_every=500,
        save_every=250,
    ),
    OptimConfig(lr=3e-4, final_lr_fraction=0.1, warmup_fraction=0.05, weight_decay=0.01),
)
