"""Learning from one's own deeper passes: a teacher that runs them all, where they change what it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from ourospec.config import Config
from ourospec.contracts import Clock, Effort, Mean, Output
from ourospec.families.adaptive_lm.objective import AdaptiveObjective, DepthObjective
from ourospec.nn.depth import DepthConfig
from ourospec.nn.next_token import TextBatch


class DistilConfig(Config):
    """loss = −ln p(token) + weight · KL(teacher ‖ student) of the tokens where the teacher's further passes told.

    The teacher runs `passes` in every layer, whatever its gates say; what its further passes changed is the difference
    from the same model with one. There the student, which may run fewer, has something to learn that the text alone
    says with much noise; elsewhere the teacher's one pass knows as much. Sources: Hinton et al. 2015, arXiv 1503.02531;
    the choice of tokens is ours.
    """

    weight: Annotated[float, Field(ge=0)] = 1.0
    """Nats of loss per nat of divergence."""
    where: Literal["answer", "divergence", "either", "everywhere"] = "either"
    """Which tokens: those whose likeliest successor is another one than after one pass, those whose distribution has
    moved by `least_divergence`, those of which either holds, or all."""
    least_divergence: Annotated[float, Field(ge=0)] = 0.1
    """KL(teacher ‖ teacher with one pass) in nats, from which the passes count as having told something."""
    passes: Annotated[int, Field(ge=0)] = 0
    """Passes of the teacher in each layer; 0: as many as it has."""


class DistillingObjective(AdaptiveObjective):
    """The objective of adaptive_lm and, while it has a teacher, the divergence from it.

    A teacher draws no random number and does not change, so that a run resumes bit for bit as long as it has the same
    one.
    """

    def __init__(self, config: DepthObjective, depth: DepthConfig, layers: int, distil: DistilConfig) -> None:
        super().__init__(config, depth, layers)
        self.distil = distil
        self.teacher: Any = None
        """An AdaptiveLM in eval mode, set before the first step; a student in use needs none."""

    def extra(
        self, model: Any, batch: TextBatch, output: Output, clock: Clock
    ) -> tuple[Tensor | None, dict[str, Mean]]:
        cost, metrics = super().extra(model, batch, output, clock)
        divergence, number = self._divergence(model, batch, output)
        lesson = self.distil.weight * divergence / max(batch.num_targets, 1)
        metrics["distil_loss"] = Mean(lesson.detach() * batch.num_targets, batch.num_targets)
        metrics["distil_share"] = Mean(number.float(), batch.num_targets)
        return lesson if cost is None else cost + lesson, metrics

    def update(self, metrics: Mapping[str, Any], clock: Clock) -> Mapping[str, Any]:
        """As AdaptiveObjective; and `distil_kl`, nats per chosen token, where the step had one."""
        read, share = dict(super().update(metrics, clock)), metrics["distil_share"]
        if share and self.distil.weight:
            read["distil_kl"] = metrics["distil_loss"] / self.distil.weight / share
        return read

    def _divergence(self, model: Any, batch: TextBatch, output: Output) -> tuple[Tensor, Tensor]:
        """Σ KL(teacher ‖ student) in nats over the chosen tokens, and their number."""
        if self.teacher is None:
            raise ValueError("a distilling objective was asked for a loss before it had its teacher")
        with torch.no_grad():
            wanted = self._teach(batch, self.distil.passes or self.teacher.depth.max_passes)
            chosen = self._choose(wanted, batch) & (batch.targets >= 0)
        return model.head.divergence(output.states[chosen], wanted[chosen], self.teacher.head), chosen.sum()

    def _teach(self, batch: TextBatch, passes: int) -> Tensor:
        return self.teacher(batch.tokens, batch.documents, effort=Effort(forced_passes=passes)).states

    def _choose(self, wanted: Tensor, batch: TextBatch) -> Tensor:
        """[B, T] booleans: where the teacher's further passes told something."""
        where = self.distil.where
        if where == "everywhere":
            return torch.ones_like(batch.targets, dtype=torch.bool)
        hasty = self._teach(batch, 1).flatten(0, 1)
        moved, differ = self.teacher.head.differences(hasty, wanted.flatten(0, 1))
        far = moved >= self.distil.least_divergence
        chosen = {"answer": differ, "divergence": far, "either": differ | far}[where]
        return chosen.view(batch.targets.shape)
