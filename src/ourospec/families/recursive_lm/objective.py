"""What training minimises: the next token after every step, the halting head, and a gate that stays open.

Letters: K steps, B rows, T positions, n tokens with a target.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from ourospec.config import Config
from ourospec.contracts import Clock, Effort, Mean, Output, Step
from ourospec.families.recursive_lm.carry import Segment, hand_on, take_up
from ourospec.families.recursive_lm.halting import HaltingConfig, Verdicts, halting_loss, halting_steps
from ourospec.families.recursive_lm.model import RecursiveTrace
from ourospec.families.recursive_lm.recursion import RecursionConfig, Start
from ourospec.nn.next_token import NextToken, TextBatch

RUNNING_DECAY = 0.98
"""Of the running accuracies that the rule running_accuracy compares with."""


class RecursiveObjectiveConfig(Config):
    """How the recursion is trained."""

    step_power: Annotated[float, Field(ge=0, le=8)] = 1.0
    """Step t weighs t to this power in the loss: 0 for all alike, 2 for the last ones above all."""
    step_weights: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """Weights of the answer before the first step and of each step, in place of step_power; empty for that."""
    halting: HaltingConfig = HaltingConfig()
    """How the halting head is trained."""
    gate_entropy: Annotated[float, Field(ge=0)] = 0.001
    """Of the mean entropy of the memory's gate, taken off the loss: it keeps the gate from closing on one branch."""
    segments: Annotated[int, Field(ge=1, le=64)] = 1
    """Optimiser steps in which a row is supervised at most, each going on from where the last one's thought ended,
    without its gradient (deep supervision). A row whose asked tokens have all halted makes room for a new one."""


class Judged(NamedTuple):
    """What a batch's answers came to, by step."""

    loss: Tensor
    """Weighted mean over steps of the sums over targets, in nats."""
    nats: Tensor
    """[K], without gradient, after each step."""
    right: Tensor
    """[K, n]."""


class RecursiveObjective(NextToken):
    """Σ_t w_t CE_t / Σ_t w_t, + weight · halting − gate_entropy · mean H(g), per target.

    Source: Cognate phase 1; the steps' supervision is that of TRM (arXiv 2510.04871).
    """

    def __init__(self, config: RecursiveObjectiveConfig, recursion: RecursionConfig) -> None:
        self.config, self.recursion = config, recursion
        self.running: tuple[float, ...] = ()
        powers = [0.0, *((t + 1) ** config.step_power for t in range(recursion.steps))]
        self.weights = [*config.step_weights] or powers

    @property
    def decides(self) -> bool:
        """Whether there is a halting head."""
        return self.recursion.halting == "learned"

    @property
    def carries_rows(self) -> bool:
        """Whether it learns from rows of earlier batches, and so counts other targets than a batch's."""
        return self.config.segments > 1

    def effort(self, clock: Clock) -> Effort | None:
        if self.decides and clock.fraction < self.config.halting.starts:
            return Effort(forced_passes=self.recursion.steps)
        return None

    def training_effort(self, clock: Clock) -> Effort | None:
        """As in use in the steps of practice; all steps otherwise."""
        return None if self._practises(clock) else Effort(forced_passes=self.recursion.steps)

    def _practises(self, clock: Clock) -> bool:
        halting = self.config.halting
        if not self.decides or clock.fraction < halting.starts or self.config.segments > 1:
            return False
        return math.floor((clock.step + 1) * halting.practice) > math.floor(clock.step * halting.practice)

    def __call__(self, model: Any, batch: TextBatch, carry: Any, clock: Clock) -> Step:
        carries = self.carries_rows
        segment = take_up(batch, carry if carries else None)
        start = None if segment.thought is None else Start(segment.thought, segment.fresh)
        output: Output = model(
            segment.tokens, segment.documents, effort=self.training_effort(clock), start=start
        )
        trace: RecursiveTrace = output.trace
        asked = segment.targets >= 0
        judged = self._judge(model, trace.answers, segment.targets, asked)
        count = segment.num_targets if carries else batch.num_targets
        cost, metrics = self._extra(trace, judged, asked, clock)
        loss = judged.loss if cost is None else judged.loss + cost * count
        metrics |= self._report(judged, output, batch, count, carries)
        handed = self._carried(segment, trace) if carries else carry
        return Step(loss, count, metrics, handed)

    def _judge(self, model: Any, answers: tuple[Tensor, ...], targets: Tensor, asked: Tensor) -> Judged:
        """Of supervised positions alone: a puzzle's question has no logits."""
        index = asked.flatten().nonzero()[:, 0]
        wanted = targets.flatten()[index]
        # The answer before the first step is nobody's, unless it is supervised.
        first = 0 if self.weights[0] else 1
        losses, nats, rights = [], [], []
        for answer in answers[first:]:
            rows = answer.flatten(0, 1).index_select(0, index)
            total, _, right = model.head.loss_by_row(rows, wanted)
            losses.append(total)
            nats.append(total.detach())
            rights.append(right)
        weights = self.weights[first:]
        loss = torch.stack([w * total for w, total in zip(weights, losses, strict=True)]).sum() / sum(weights)
        return Judged(loss, torch.stack(nats[1 - first :]), torch.stack(rights[1 - first :]))

    def _extra(
        self, trace: RecursiveTrace, judged: Judged, asked: Tensor, clock: Clock
    ) -> tuple[Tensor | None, dict[str, Mean]]:
        """What is paid for besides, in nats per target, and what is reported of it."""
        costs: list[Tensor] = []
        metrics: dict[str, Mean] = {}
        if trace.mixed is not None:
            share, entropy = trace.mixed.share.detach(), trace.mixed.entropy.mean()
            costs.append(-self.config.gate_entropy * entropy)
            metrics["gate_entropy"] = Mean(entropy.detach(), 1)
            metrics["gate_mean"] = Mean(share.mean(), 1)
            metrics["gate_open_share"] = Mean((share > 0.5).float().mean(), 1)
        if self.decides and not self._practises(clock):
            logits = torch.stack(trace.halts)
            halting = halting_loss(logits, asked, Verdicts(judged.right, self.running), self.config.halting)
            costs.append(self.config.halting.weight * halting)
            metrics["halting_loss"] = Mean(halting.detach(), 1)
            metrics |= _halting_metrics(logits.detach()[:, asked], self.recursion.halt_above)
        return (torch.stack(costs).sum() if costs else None), metrics

    def _report(
        self, judged: Judged, output: Output, batch: TextBatch, count: int, carries: bool
    ) -> dict[str, Mean]:
        last = judged.nats[-1]
        tokens = output.passes.numel()
        metrics = {
            "lm_loss": Mean(last, count),
            "step_loss": Mean(judged.nats, count),
            "step_accuracy": Mean(judged.right.sum(1), count),
            "mean_passes": Mean(output.passes.sum(), tokens),
        }
        if not carries:
            # Bytes are known of a batch, not of the rows that were carried on from others.
            metrics["bits_per_byte"] = Mean(last / math.log(2), batch.num_bytes)
        return metrics

    def _carried(self, segment: Segment, trace: RecursiveTrace) -> dict[str, Any]:
        halted = torch.zeros_like(segment.targets, dtype=torch.bool)
        if trace.halts:
            halted = trace.halts[-1].detach().sigmoid() > self.recursion.halt_above
        return hand_on(segment, trace.thought, halted, self.config.segments)

    def update(self, metrics: Mapping[str, Any], clock: Clock) -> Mapping[str, Any]:
        """The running accuracies, and what the histogram of halting steps says."""
        del clock
        read: dict[str, Any] = {}
        if self.decides and self.config.halting.target == "running_accuracy":
            now = metrics["step_accuracy"]
            self.running = tuple(
                RUNNING_DECAY * before + (1 - RUNNING_DECAY) * fresh
                for before, fresh in zip(self.running or now, now, strict=True)
            )
            read["running_accuracy"] = list(self.running)
        if "halting_histogram" in metrics:
            read |= _spread(metrics["halting_histogram"])
        return read

    def state_dict(self) -> dict[str, Any]:
        return {"running": list(self.running)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.running = tuple(state["running"])


@torch.no_grad()
def _halting_metrics(logits: Tensor, halt_above: float) -> dict[str, Mean]:
    """Of tokens with a target, [K, n]: q after each step, and after which step they would halt."""
    steps = halting_steps(logits[:, None], halt_above)[0]
    histogram = torch.stack([(steps == k + 1).sum() for k in range(len(logits))])
    count = logits.shape[1]
    return {
        "halting_probability": Mean(logits.sigmoid().sum(1), count),
        "halting_histogram": Mean(histogram, count),
    }


def _spread(histogram: list[float]) -> dict[str, float]:
    """Mean, extremes and variance of the steps, from the share of tokens that halts after each."""
    steps = [(step, share) for step, share in enumerate(histogram, start=1) if share > 0]
    mean = sum(step * share for step, share in steps)
    return {
        "halting_mean": mean,
        "halting_least": steps[0][0],
        "halting_most": steps[-1][0],
        "halting_variance": sum(share * (step - mean) ** 2 for step, share in steps),
    }
