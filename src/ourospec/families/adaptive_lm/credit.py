"""How the gates learn which passes are worth their price, and how the price reaches them.

Letters: B rows, T positions, L layers, K passes at most, R rows that are looked at twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ourospec.config import Config
from ourospec.contracts import Clock, Mean
from ourospec.families.adaptive_lm.economy import Controller
from ourospec.nn.layer_trace import LayerTrace


class Bill(NamedTuple):
    """What the passes cost, in nats per target."""

    net: Tensor
    """What goes into the loss."""
    raw: Tensor
    """Before the reward."""
    reward: Tensor


class Lesson(NamedTuple):
    """What the gates are taught in a step."""

    loss: Tensor
    """In nats per target."""
    metrics: dict[str, Mean]


class GainConfig(Config):
    """The gates foretell gains, and the price decides at which gain a token goes on.

    In every step some rows each put one gate to the test, layers and passes taking turns: the layer stops after that
    pass, and on the same row runs one more, everything else being equal. What a token's own loss falls by is its gain
    g, in nats; all tokens of the row run the pass, so what its predecessors get out of it counts, too. The gate's logit
    is regressed on v = clip(g) + stake · (its loss without the pass): loss = weight · mean (logit − v/τ)²/2, τ =
    nats_per_logit. A gate so foretells E[v | what it sees]; that of a single token is mostly noise, but a mean is
    learned from many.

    The price λ is compared with what is foretold: the survival threshold is σ(λ/τ), under which a token leaves whose
    first gate foretells less than the price; of later passes it is the product of the gates that has to reach it. A
    change of the price so acts at once. Nothing is billed in the loss.

    Idea: the second stage of Ouro's gate training (arXiv 2510.25741, section 3), there for one gate over whole models
    and on the positive part of the gain; the positive part would pay for noise. Why the gain has to be measured by
    leaving the pass out, and not by its gradient: docs/market.md.
    """

    kind: Literal["gain"] = "gain"
    nats_per_logit: Annotated[float, Field(gt=0)] = 0.05
    """τ: the gain that a logit of 1 stands for."""
    weight: Annotated[float, Field(gt=0)] = 0.03
    """Of the regression in the loss. AdamW makes the gates' steps independent of it; it keeps their share of the
    gradient's norm, and so their influence on clipping, small."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Measured gains are clipped to ± so many nats."""
    stake: Annotated[float, Field(ge=0)] = 0.02
    """Share of what is at stake, the token's loss without the pass, that is added to its gain. A further pass helps
    only tokens that it was trained on: without this, what a budget leaves over goes to tokens whom a pass cannot harm
    because they are foretold already, and passes unlearn to help the others."""


class CouponConfig(Config):
    """Passes are billed by the price; what they improved is deducted: net = relu(raw − η·relu(ΔCE)).

    A negative raw bill, a subsidy, is paid out as it is.

    Ouro-Spec's rule, with the improvement detached and measured against one pass in all layers. What its author ran
    (`detached False`, `reference last_layer`) multiplies the text's own gradient by 1 + η wherever 0 < coupon < raw,
    and sees the last layer's passes only.
    """

    kind: Literal["coupon"] = "coupon"
    eta: Annotated[float, Field(ge=0)] = 2.0
    """η: what a nat of improvement is worth."""
    detached: bool = True
    """Whether the coupon is a number, or a path for gradients."""
    reference: Literal["one_pass", "last_layer"] = "one_pass"
    """What the loss is compared with: a forward with one pass everywhere, or the head on the last layer's first."""
    price_scale: Annotated[float, Field(gt=0)] = 0.01
    """A typical price in nats per pass: the controller's steps are in units of it."""

    @model_validator(mode="after")
    def _path_for_gradients(self) -> CouponConfig:
        if not self.detached and self.reference == "one_pass":
            raise ValueError("a coupon that is not detached is measured with reference last_layer")
        return self


class ExplorationConfig(Config):
    """Passes are billed by the price, less β · the entropy of the pass at which a token leaves.

    The entropy draws the distribution of exits towards the uniform one (the first stage of Ouro's gate training,
    arXiv 2510.25741, section 3). The exit probabilities of a layer are differences of its survival.
    """

    kind: Literal["exploration"] = "exploration"
    beta: Annotated[float, Field(ge=0)] = 0.01
    """β, nats of loss per nat of entropy."""
    price_scale: Annotated[float, Field(gt=0)] = 0.01
    """A typical price in nats per pass: the controller's steps are in units of it."""


class NoCreditConfig(Config):
    """Passes are billed by the price, and that is all: the gates learn from the loss through the survival."""

    kind: Literal["none"] = "none"
    price_scale: Annotated[float, Field(gt=0)] = 0.01
    """A typical price in nats per pass: the controller's steps are in units of it."""


CreditConfig = Annotated[
    GainConfig | CouponConfig | ExplorationConfig | NoCreditConfig, Field(discriminator="kind")
]
LEAST_SPREAD, GREATEST_SPREAD = 0.05, 5.0
SOFT_SHARE, DEEPEST_SHARE = 0.85, 0.15
"""Of the legacy bill: the soft depth, and the deepest token of the batch."""


def scale(config: CreditConfig, read: Mapping[str, Any]) -> float:
    """The unit of the controller's steps, in nats: the spread of what tokens bid, or a typical price."""
    if not isinstance(config, GainConfig):
        return config.price_scale
    spread = math.sqrt(max(read["bid_square"] - read["bid"] ** 2, 0.0)) if "bid" in read else 1.0
    return config.nats_per_logit * min(max(spread, LEAST_SPREAD), GREATEST_SPREAD)


def survival_threshold(config: GainConfig, price: float) -> float:
    """σ(λ/τ): where a gate foretells the price, a token is at the threshold."""
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, price / config.nats_per_logit))))


def bill(
    config: CreditConfig,
    controller: Controller,
    traces: tuple[LayerTrace, ...],
    improvement: Tensor | None,
    max_passes: int,
) -> Bill:
    """What the passes of a step cost.

    Args:
        improvement: CE of the reference − CE as run, nats per target; None where it was not measured.
    """
    if isinstance(config, GainConfig):
        # Paid by no one in the loss: it is what the price comes to, to be held against what the passes improved.
        run = torch.stack([trace.passes.float().mean() - 1 for trace in traces]).sum()
        return Bill(torch.zeros_like(run), controller.price * run, torch.zeros_like(run))
    if controller.uses_soft_depth:
        raw = controller.price * torch.stack([_legacy_depth(trace, max_passes) for trace in traces]).sum()
    else:
        raw = controller.price * torch.stack([(trace.priced_passes - 1).mean() for trace in traces]).mean()
    zero = torch.zeros_like(raw.detach())
    if isinstance(config, CouponConfig) and improvement is not None:
        reward = config.eta * improvement.clamp(min=0)
        # A coupon is worth a bill at most; a subsidy is paid out whole.
        net = raw - torch.minimum(reward, raw.clamp(min=0))
        return Bill(net, raw.detach(), reward.detach())
    if isinstance(config, ExplorationConfig) and max_passes > 1:
        reward = config.beta * torch.stack([exit_entropy(trace, max_passes) for trace in traces]).mean()
        return Bill(raw - reward, raw.detach(), reward.detach())
    return Bill(raw, raw.detach(), zero)


def _legacy_depth(trace: LayerTrace, max_passes: int) -> Tensor:
    soft = (trace.expected_passes.mean() - 1).clamp(min=0)
    deepest = (trace.passes.max() - 1).to(soft.dtype)
    return (SOFT_SHARE * soft + DEEPEST_SHARE * deepest) / max(max_passes - 1, 1)


def layer_bills(
    config: CreditConfig,
    controller: Controller,
    read: Mapping[str, Any],
    max_passes: int,
) -> list[float]:
    """Each layer's part of Bill.raw, from what was read of a step."""
    if controller.uses_soft_depth:
        spread = max(max_passes - 1, 1)
        pairs = zip(read["layer_ponder_signal"], read["layer_k_exec"], strict=True)
        return [
            controller.price * (SOFT_SHARE * soft + DEEPEST_SHARE * (deepest - 1) / spread)
            for soft, deepest in pairs
        ]
    means = read["passes_by_layer"]
    shared = 1 if isinstance(config, GainConfig) else len(means)
    return [controller.price * (mean - 1) / shared for mean in means]


def exit_entropy(trace: LayerTrace, max_passes: int) -> Tensor:
    """−Σ_k q_k ln q_k of the exit distribution, mean over tokens, in nats; q_k = s_k − s_(k+1), q_K = s_K.

    s is the product of the gates asked; with what a token had when it left, it counts as leaving one pass later.
    """
    s = torch.ones_like(trace.survival[0])
    left = []
    for p in trace.gates[: max_passes - 1]:
        left.append(s * (1 - p))
        s = s * p
    q = torch.stack([*left, s])
    return -(q * q.clamp(min=1e-9).log()).sum(0).mean()


def teach_gains(
    config: GainConfig,
    model: Any,
    tokens: Tensor,
    targets: Tensor,
    documents: Tensor | None,
    clock: Clock,
    effort: Any,
) -> Lesson:
    """Put some gates to the test on these rows and regress them on what they should have foretold.

    Each row tests one layer. Layers take turns from row to row and from step to step, passes from round to round. A
    position without a target, such as those of a puzzle's question, gains nothing, and its gate is told so: a gate that
    is asked there but taught elsewhere would spend the budget on guesses.

    Args:
        tokens, targets: [R, T]. documents: [R, T] or None.
        effort: how the other layers decide.
    """
    rows, layers, gates = len(tokens), len(model.layers), model.depth.max_passes - 1
    gains, losses = [], []
    for row in range(rows):
        turn = clock.step * rows + row
        here = slice(row, row + 1)
        gain, logit, at_stake = model.probe_gain(
            tokens[here],
            documents[here] if documents is not None else None,
            targets[here],
            turn % layers,
            1 + turn // layers % gates,
            effort,
        )
        counted = targets[here] >= 0
        worth = gain.clamp(-config.clip, config.clip) + config.stake * at_stake
        gains.append((gain * counted).sum())
        losses.append((0.5 * (logit - worth * counted / config.nats_per_logit) ** 2).sum())
    loss = config.weight * torch.stack(losses).sum() / targets.numel()
    return Lesson(loss, {"credit_gain": Mean(torch.stack(gains).sum(), (targets >= 0).sum())})
