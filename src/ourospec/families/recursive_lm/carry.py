"""Deep supervision: rows that go on thinking from one optimiser step to the next. Letters: B rows, T positions, D."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ourospec.families.recursive_lm.networks import Thought
from ourospec.nn.next_token import TextBatch


class Segment(NamedTuple):
    """What is learned from in one call: new rows, and rows that go on."""

    tokens: Int[Tensor, "B T"]
    targets: Int[Tensor, "B T"]
    documents: Tensor | None
    """[B, T], or None where every row is one document."""
    thought: Thought | None
    """Where the rows that go on begin; None where all are new."""
    fresh: Bool[Tensor, " B"]
    """Which rows are new."""
    number: Int[Tensor, " B"]
    """How often each row has been supervised before."""

    @property
    def num_targets(self) -> int:
        """Targets of all rows; waits for the device."""
        return int((self.targets >= 0).sum())


def take_up(batch: TextBatch, carry: dict[str, Any] | None) -> Segment:
    """Rows of the batch in place of those that are done; the batch's other rows are let go, as in the published TRM.

    Raises:
        ValueError: the carry is of rows of another shape.
    """
    rows = len(batch.tokens)
    device = batch.tokens.device
    if carry is None:
        fresh = torch.ones(rows, dtype=torch.bool, device=device)
        number = torch.zeros(rows, dtype=torch.long, device=device)
        return Segment(batch.tokens, batch.targets, batch.documents, None, fresh, number)
    if carry["tokens"].shape != batch.tokens.shape:
        raise ValueError(
            f"rows {list(carry['tokens'].shape)} were carried, the batch is {list(batch.tokens.shape)}"
        )
    fresh, held = carry["done"], carry["documents"]
    documents = batch.documents
    if documents is not None or held is not None:
        none = torch.zeros_like(batch.tokens)
        documents = torch.where(
            fresh[:, None], none if documents is None else documents, none if held is None else held
        )
    return Segment(
        torch.where(fresh[:, None], batch.tokens, carry["tokens"]),
        torch.where(fresh[:, None], batch.targets, carry["targets"]),
        documents,
        Thought(carry["y"], carry["z"]),
        fresh,
        torch.where(fresh, 0, carry["number"]),
    )


def hand_on(segment: Segment, thought: Thought, halted: Bool[Tensor, "B T"], segments: int) -> dict[str, Any]:
    """The carry after a call.

    Args:
        thought: at its end.
        halted: tokens whose head says that they are done.
        segments: supervisions of a row at most.
    """
    number = segment.number + 1
    asked = segment.targets >= 0
    return {
        "tokens": segment.tokens,
        "targets": segment.targets,
        "documents": segment.documents,
        "y": thought.y.detach(),
        "z": thought.z.detach(),
        "number": number,
        "done": (number >= segments) | (halted | ~asked).all(1),
    }
