"""The objective of every plain language model: the next token."""

from __future__ import annotations

import math
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from ourospec.contracts import Clock, Effort, Mean, Output, Stateless, Step


@runtime_checkable
class TextBatch(Protocol):
    """What a batch of text has to hold; see data/batch.py."""

    tokens: Tensor
    targets: Tensor
    documents: Tensor | None
    num_targets: int
    num_bytes: int


class NextToken(Stateless):
    """Σ −ln p(token | tokens before it in its document), plus the model's own auxiliary losses.

    Families extend it by overriding `effort` (how long the model may think now), `training_effort` (the same while it
    is trained) and `extra` (what else is paid for, and what is reported).
    """

    def __call__(self, model: Any, batch: TextBatch, carry: Any, clock: Clock) -> Step:
        output: Output = model(batch.tokens, batch.documents, effort=self.training_effort(clock))
        nats = model.head.loss(output.states, batch.targets)
        bits = nats.detach() / math.log(2)
        metrics = {
            "lm_loss": Mean(nats.detach(), batch.num_targets),
            "bits_per_byte": Mean(bits, batch.num_bytes),
        }
        loss = nats
        if output.aux_loss is not None:
            metrics["aux_loss"] = Mean(output.aux_loss.detach() * batch.num_targets, batch.num_targets)
            loss = loss + output.aux_loss * batch.num_targets
        cost, reported = self.extra(model, batch, output, clock)
        if cost is not None:
            loss = loss + cost * batch.num_targets
        return Step(loss, batch.num_targets, metrics | reported, carry)

    def effort(self, clock: Clock) -> Effort | None:
        """How long the model may think when it is used at this point of the run; None leaves it to the model."""
        del clock
        return None

    def effort_in_use(self, asked: Effort | None, clock: Clock) -> Effort | None:
        """What was asked for, or else how long the model may think at this point of the run.

        A run stopped while its passes were still forced is used with them forced: its gates know nothing yet. A limit
        of passes alone limits that, and leaves the threshold as it was trained.
        """
        usual = self.effort(clock)
        if asked is None or asked == Effort():
            return usual
        if usual is None or asked.max_passes is None or asked._replace(max_passes=None) != Effort():
            return asked
        forced = usual.forced_passes
        return usual._replace(
            max_passes=asked.max_passes, forced_passes=forced and min(forced, max(asked.max_passes, 1))
        )

    def training_effort(self, clock: Clock) -> Effort | None:
        """As `effort`, and what training does besides."""
        return self.effort(clock)

    def extra(
        self, model: Any, batch: TextBatch, output: Output, clock: Clock
    ) -> tuple[Tensor | None, dict[str, Mean]]:
        """A further cost in nats per target, or None, and further metrics."""
        del model, batch, output, clock
        return None, {}
