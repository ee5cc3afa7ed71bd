"""Settings of the optimiser and its schedule."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from ourospec.config import Config


class MuonConfig(Config):
    """Muon for the matrices between a model's states; whatever else it learns stays with AdamW.

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); Liu et al. 2025, arXiv 2502.16982.
    """

    lr: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Highest learning rate of the matrices, on the schedule of optim.lr."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay per step of the mean gradient that is orthogonalised, with Nesterov's look ahead."""
    iterations: Annotated[int, Field(ge=1, le=20)] = 5
    """Newton-Schulz iterations that orthogonalise it."""
    scale: Literal["spectral", "adam_rms"] = "spectral"
    """What the update of a matrix of m rows and n columns is multiplied by. spectral: √max(1, m/n); adam_rms:
    0.2·√max(m, n), the size of AdamW's updates, with which muon.lr is chosen as for AdamW (some 3e-4 to 3e-3)."""


class GrokfastConfig(Config):
    """Grokfast: to each gradient its own slow part is added, in front of whichever optimiser reads it.

    Source: Lee et al. 2024, arXiv 2405.20233.
    """

    decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    """Decay per step of the mean gradient that counts as the slow part."""
    strength: Annotated[float, Field(ge=0)] = 2.0
    """How many times the slow part is added."""


class QKClipConfig(Config):
    """QK-clip: heads whose attention logits grew too large get smaller query and key weights after the update.

    Source: Kimi Team 2025, arXiv 2507.20534, section 2.1.
    """

    limit: Annotated[float, Field(gt=0)] = 100.0
    """Largest logit q·k/√d of a head that is left alone; weights are scaled so that a larger one would be this."""


class OptimConfig(Config):
    """AdamW with a linear warm-up, a cosine descent, and optionally an average of the weights.

    Muon, Grokfast and QK-clip join it where they are switched on, each with or without the others.

    Source: Loshchilov and Hutter 2019 (decoupled weight decay) and 2017 (cosine schedule).
    """

    lr: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Highest learning rate, reached at the end of the warm-up."""
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Learning rate of the last step, as a fraction of the highest."""
    warmup_fraction: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Share of all steps over which the learning rate rises linearly."""
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay per step of the mean gradient."""
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.95
    """Decay per step of the mean squared gradient."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the mean squared gradient, in units of the gradient."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """Share of a matrix's weight lost per step, per unit of learning rate."""
    clip_norm: Annotated[float, Field(ge=0)] = 1.0
    """Largest Euclidean norm of the whole gradient; a longer one is scaled down to it. 0: never."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the average of the weights by which the model is judged and kept. 0: no average."""
    muon: MuonConfig | None = None
    """Muon for hidden matrices, or AdamW for everything."""
    grokfast: GrokfastConfig | None = None
    """Grokfast in front of the optimiser, or the gradients as they are."""
    qk_clip: QKClipConfig | None = None
    """A limit for attention logits, or none."""

    def scaled(self, factor: float) -> OptimConfig:
        """The same with every learning rate times `factor`."""
        muon = self.muon and self.muon.model_copy(update={"lr": factor * self.muon.lr})
        return self.model_copy(update={"lr": factor * self.lr, "muon": muon})

    @model_serializer(mode="wrap")
    def _only_what_is_on(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is off is not written: recipes of AdamW alone read as they did before there was anything else, and
        their run directories stay theirs."""
        return {name: value for name, value in handler(self).items() if value is not None}
