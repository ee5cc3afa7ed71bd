"""MuGrokfast as its documentation sets it, phase by phase: Muon, Grokfast and QK-clip over AdamW.

Rates, strengths (decay 0.98 always) and the limit of 30 for logits are the documentation's; the limit of 25 that it has
for reinforcement learning is left to who does that. Two things to know of them:

- A strength of 0.02 to 0.3 amplifies the slow part by 1.02 to 1.3; the 44-fold shortening of grokking that Grokfast is
  known for was found with 2 (Lee et al. 2024).
- Muon does not see how long a gradient is: clipping and Grokfast only turn its update; a lower rate alone shortens it.
"""

from __future__ import annotations

from collections.abc import Callable

from ourospec.optim.config import GrokfastConfig, MuonConfig, OptimConfig, QKClipConfig

LOGIT_LIMIT = 30.0


def phase_1_first() -> OptimConfig:
    """Pretraining, the first version: 1e-2 for matrices, 1e-3 for the rest, strength 0.05."""
    return mugrokfast(muon_lr=1e-2, lr=1e-3, strength=0.05)


def phase_1_halved() -> OptimConfig:
    """Pretraining, rates halved: 5e-3 and 5e-4, strength 0.02; a tenth of the run to warm up, then down to 1e-6."""
    halved = mugrokfast(muon_lr=5e-3, lr=5e-4, strength=0.02)
    return halved.model_copy(update={"warmup_fraction": 0.1, "final_lr_fraction": 1e-6 / halved.lr})


def phase_1() -> OptimConfig:
    """Pretraining as in the final table: 1e-3 for everything, strength 0.3."""
    return mugrokfast(muon_lr=1e-3, lr=1e-3, strength=0.3)


def phase_3() -> OptimConfig:
    """5e-4 for everything, strength 0.1."""
    return mugrokfast(muon_lr=5e-4, lr=5e-4, strength=0.1)


def phase_5() -> OptimConfig:
    """1e-3 for everything, strength 2, as Grokfast was published."""
    return mugrokfast(muon_lr=1e-3, lr=1e-3, strength=2.0)


def phase_6() -> OptimConfig:
    """1e-4 for everything, strength 0.2."""
    return mugrokfast(muon_lr=1e-4, lr=1e-4, strength=0.2)


def phase_7() -> OptimConfig:
    """5e-4 for everything, strength 0.15."""
    return mugrokfast(muon_lr=5e-4, lr=5e-4, strength=0.15)


def mugrokfast(muon_lr: float, lr: float, strength: float, limit: float = LOGIT_LIMIT) -> OptimConfig:
    """All of it on, gradients clipped to 1.

    Args:
        muon_lr: highest learning rate of matrices. lr: of the rest.
        strength: of Grokfast.
        limit: of attention logits.
    """
    return OptimConfig(
        lr=lr,
        clip_norm=1.0,
        muon=MuonConfig(lr=muon_lr),
        grokfast=GrokfastConfig(strength=strength),
        qk_clip=QKClipConfig(limit=limit),
    )


PHASES: dict[str, Callable[[], OptimConfig]] = {
    phase.__name__: phase
    for phase in (phase_1_first, phase_1_halved, phase_1, phase_3, phase_5, phase_6, phase_7)
}
