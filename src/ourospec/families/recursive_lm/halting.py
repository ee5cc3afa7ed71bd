"""What the halting head is taught: whether a token's answer is settled.

Letters: K steps, n tokens with a target, B rows, T positions.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from ourospec.config import Config


class HaltingConfig(Config):
    """How the halting head is trained, and when it begins to decide."""

    target: Literal["settled", "correct", "running_accuracy"] = "settled"
    """What is called done. settled: the answer is right, or no later step makes it so. correct: it is right (TRM).
    running_accuracy: the step's share of right answers is above its running mean, one verdict for all tokens (Cognate;
    a rising accuracy always says halt)."""
    weight: Annotated[float, Field(ge=0)] = 0.1
    """Of the head's cross-entropy in the loss, in nats per target."""
    unasked: Literal["leave", "ignore"] = "leave"
    """Tokens without a target (a puzzle's question): taught when to halt, or not taught."""
    leave_after: Annotated[int, Field(ge=1, le=64)] = 1
    """The step after which they are taught to halt, and not before."""
    starts: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Share of the run after which heads decide; until then every token runs every step."""
    practice: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of the optimiser steps after that in which tokens halt as they will in use, so that the others learn to
    read those who have halted. The head is taught in the remaining ones, where every step is run."""
    entropy: Annotated[float, Field(ge=0)] = 0.0
    """Of the mean entropy of q, taken off the loss (Cognate: 0.001). It pulls q to one half."""
    diversity: Annotated[float, Field(ge=0)] = 0.0
    """Of max(0, 0.1 − Var q over a sequence) (Cognate: 0.01). It rewards any spread, and cannot hold at mean q above
    0.89: Var q is at most q̄(1 − q̄)."""


ASKED_VARIANCE = 0.1
"""Cognate's target of the variance of q."""


class Verdicts(NamedTuple):
    """What became of the answers of a batch."""

    right: Tensor
    """[K, n] whether the likeliest token is the target, after each step."""
    running: tuple[float, ...]
    """[K], the running accuracies so far; empty where there are none yet."""


def targets_of(verdicts: Verdicts, rule: str) -> Float[Tensor, "K n"]:
    """1 where a token should halt after a step."""
    right = verdicts.right
    if rule == "correct":
        return right.float()
    if rule == "running_accuracy":
        accuracy = right.float().mean(1)
        # Compared with what was known before this batch; without anything known neither is said.
        before = accuracy.new_tensor(verdicts.running or [float("nan")] * len(right))
        verdict = torch.where(before.isnan(), 0.5, (accuracy > before).float())
        return verdict[:, None].expand_as(right)
    # Right at some later step: the sum from behind, less the step itself.
    later = right.flip(0).cumsum(0).flip(0) - right.long() > 0
    return (right | ~later).float()


def halting_loss(
    logits: Float[Tensor, "K B T"],
    asked: Bool[Tensor, "B T"],
    verdicts: Verdicts,
    config: HaltingConfig,
) -> Float[Tensor, ""]:
    """Mean binary cross-entropy over steps and tokens, those with a target and those without each by themselves.

    It is taken of the logits: σ first and the logarithm then breaks in bfloat16.
    """
    wanted = targets_of(verdicts, config.target)
    of_asked = logits[:, asked]
    loss = F.binary_cross_entropy_with_logits(of_asked, wanted.to(of_asked.dtype))
    if config.unasked == "leave" and not bool(asked.all()):
        others = logits[:, ~asked]
        leave = torch.zeros_like(others)
        leave[config.leave_after - 1 :] = 1
        loss = loss + F.binary_cross_entropy_with_logits(others, leave)
    if config.entropy:
        entropy = F.softplus(logits) - logits * logits.sigmoid()
        loss = loss - config.entropy * entropy.mean()
    if config.diversity:
        q = logits.sigmoid()
        variance = (q - q.mean(2, keepdim=True)).square().mean((1, 2))
        loss = loss + config.diversity * (ASKED_VARIANCE - variance).clamp(min=0).mean()
    return loss


def halting_steps(logits: Float[Tensor, "K B T"], halt_above: float) -> torch.Tensor:
    """[B, T], the step (from 1) after which each token would halt, K where no step before says so."""
    done = logits.sigmoid() > halt_above
    done[-1] = True
    return done.long().argmax(0) + 1
