"""What adaptive_lm is trained for: the next token, and not to think longer than that is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from ourospec.config import Config
from ourospec.contracts import Clock, Effort, Mean, Output, Step
from ourospec.errors import ConfigError
from ourospec.families.adaptive_lm import credit
from ourospec.families.adaptive_lm.credit import CouponConfig, CreditConfig, GainConfig
from ourospec.families.adaptive_lm.economy import DualAscentConfig, PriceConfig, open_market
from ourospec.families.adaptive_lm.readings import depth_metrics, derive, quota_distances
from ourospec.families.adaptive_lm.schedule import Schedule
from ourospec.nn.depth import DepthConfig
from ourospec.nn.layer_trace import LayerTrace
from ourospec.nn.next_token import NextToken, TextBatch

INTERNAL = frozenset(
    {
        "bid",
        "bid_square",
        "layer_p_square",
        "layer_p_all",
        "layer_p_change",
        "layer_p_twice",
        "layer_quota_distance",
    }
)
"""Metrics that only serve to derive others."""


class DepthObjective(Config):
    """How depth is trained: when what begins, what a pass costs, and how the gates learn whether it is worth it."""

    schedule: Schedule = Schedule()
    """Warm-up, clamps, audits, the start of the price."""
    price: PriceConfig = DualAscentConfig()
    """How the price is found."""
    credit: CreditConfig = GainConfig()
    """How the gates learn."""
    watched_share: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Share of the rows that are looked at twice: to measure gains, and what the passes improved."""


class AdaptiveObjective(NextToken):
    """Next-token loss, the bill for the passes, and the lesson for the gates; a market that holds the budget.

    Every random choice is a pure function of the step or drawn from the global generators, and the market's state is
    in `state_dict`: a resumed run goes on bit for bit.
    """

    def __init__(self, config: DepthObjective, depth: DepthConfig, layers: int) -> None:
        self.config, self.depth, self.layers = config, depth, layers
        self.market = open_market(config.price, layers)
        self.gated = depth.halting != "fixed" and depth.max_passes > 1

    def __call__(self, model: Any, batch: TextBatch, carry: Any, clock: Clock) -> Step:
        if self.market.zero_points:
            model.set_zero_points(self.market.zero_points)
        return super().__call__(model, batch, carry, clock)

    @property
    def price(self) -> float:
        """Nats per pass."""
        return self.market.price

    def set_price(self, price: float) -> float:
        """Override the price; returns it as far as floor and ceiling allow.

        Raises:
            ConfigError: no token can buy a pass here.
        """
        if self.market.zero_points:
            raise ConfigError(
                "The passes of this run are rationed, not priced.",
                "Leave --set-price out; objective.price.target is what each layer may spend.",
            )
        if not self.gated or self.config.schedule.hard_kill:
            raise ConfigError(
                "This model runs the same passes for every token and pays no price for them.",
                "Leave --set-price out.",
            )
        return self.market.set(price)

    def effort(self, clock: Clock) -> Effort | None:
        """As the model is used at this point of the run."""
        schedule = self.config.schedule
        forcing = schedule.forcing(clock, self.depth.max_passes)
        if forcing is not None or not self.gated:
            return forcing
        if isinstance(self.config.credit, GainConfig):
            return Effort(threshold=credit.survival_threshold(self.config.credit, self.price))
        threshold = schedule.threshold(clock, self.depth.threshold)
        return None if threshold is None else Effort(threshold=threshold)

    def training_effort(self, clock: Clock) -> Effort | None:
        effort = self.effort(clock) or Effort()
        # Of the steps that an observer will call the tenth, the twentieth and so on, whose layers are written out.
        watched = 1 if (clock.step + 1) % 10 == 0 and self.gated else 0
        return effort._replace(training=self.config.schedule.rehearsal(clock, self.layers, watched))

    def extra(
        self, model: Any, batch: TextBatch, output: Output, clock: Clock
    ) -> tuple[Tensor | None, dict[str, Mean]]:
        traces: tuple[LayerTrace, ...] = output.trace
        metrics = depth_metrics(traces, self.depth.max_passes, self.depth.weight)
        if output.aux_loss is not None:
            calls = sum(len(trace.survival) for trace in traces)
            per_call = output.aux_loss.detach() / calls
            metrics["aux_per_call"] = Mean(per_call * batch.num_targets, batch.num_targets)
        if not self.gated:
            return None, metrics
        if self.market.zero_points and self.market.target is not None:
            distances = quota_distances(traces, self.market.target, self._threshold(clock))
            metrics["layer_quota_distance"] = Mean(distances * batch.tokens.numel(), batch.tokens.numel())
        rows = (
            max(1, round(self.config.watched_share * len(batch.tokens))) if self.config.watched_share else 0
        )
        cost = None
        if self.config.schedule.priced(clock):
            improvement, measured = self._improvement(model, batch, output, rows, clock)
            metrics |= measured
            bill = credit.bill(self.config.credit, self.market, traces, improvement, self.depth.max_passes)
            cost = bill.net
            for name, value in (("", bill.net), ("_raw", bill.raw), ("_reward", bill.reward)):
                metrics[f"ponder{name}"] = Mean(value.detach() * batch.num_targets, batch.num_targets)
        if isinstance(self.config.credit, GainConfig) and rows and not self.config.schedule.hard_kill:
            lesson = credit.teach_gains(
                self.config.credit, model, *self._rows(batch, rows), clock, self.effort(clock)
            )
            cost = lesson.loss if cost is None else cost + lesson.loss
            loss = Mean(lesson.loss.detach() * batch.num_targets, batch.num_targets)
            metrics |= {"gate_loss": loss, **lesson.metrics}
        if model.baton is not None and rows:
            ratio, strength = model.baton.readings(model.embedding(batch.tokens[:rows]).detach())
            metrics |= {"baton_ratio": Mean(ratio, 1), "baton_gate": Mean(strength.detach(), 1)}
        return cost, metrics

    def _threshold(self, clock: Clock) -> float:
        """The survival under which a token leaves at this point of the run."""
        asked = (self.effort(clock) or Effort()).threshold
        return self.depth.threshold if asked is None else asked

    def _rows(self, batch: TextBatch, rows: int) -> tuple[Tensor, Tensor, Tensor | None]:
        documents = batch.documents[:rows] if batch.documents is not None else None
        return batch.tokens[:rows], batch.targets[:rows], documents

    def _improvement(
        self, model: Any, batch: TextBatch, output: Output, rows: int, clock: Clock
    ) -> tuple[Tensor | None, dict[str, Mean]]:
        """ΔCE of the step, as the coupon wants it, and ΔCE and ΔH of the watched rows."""
        config = self.config.credit
        if isinstance(config, CouponConfig) and config.reference == "last_layer":
            return self._last_layer_improvement(model, batch, output)
        if not rows:
            return None, {}
        tokens, targets, documents = self._rows(batch, rows)
        cheaper, schedule = Effort(forced_passes=1), self.config.schedule
        if schedule.audited_layer(clock, self.layers) is not None:
            # Within the same floor and ceiling: what differs is the additional pass.
            within = schedule.rehearsal(clock, self.layers, 0)._replace(audited_layer=None)
            cheaper = (self.effort(clock) or Effort())._replace(training=within)
        with torch.no_grad():
            states = model(tokens, documents, effort=cheaper).states
            nll, entropy = model.head.judge(states, targets)
            nll_run, entropy_run = model.head.judge(output.states[:rows].detach(), targets)
            counted = targets >= 0
            number = counted.sum()
            improvement = (nll - nll_run).sum()
            change = ((entropy_run - entropy) * counted).sum()
        metrics = {"delta_ce": Mean(improvement, number), "delta_h": Mean(change, number)}
        return improvement / number.clamp(min=1), metrics

    def _last_layer_improvement(
        self, model: Any, batch: TextBatch, output: Output
    ) -> tuple[Tensor, dict[str, Mean]]:
        """The documentation's: the head on the last layer's first pass. Un-detached, it scales the text's gradient."""
        config = self.config.credit
        assert isinstance(config, CouponConfig)
        number = max(batch.num_targets, 1)
        first = output.trace[-1].first
        with torch.no_grad():
            nll, entropy = model.head.judge(model.head.norm(first), batch.targets)
            nll_run, entropy_run = model.head.judge(output.states.detach(), batch.targets)
            change = ((entropy_run - entropy) * (batch.targets >= 0)).sum()
        run = nll_run.sum() if config.detached else model.head.loss(output.states, batch.targets)
        improvement = (nll.sum() - run) / number
        metrics = {
            "delta_ce": Mean(improvement.detach() * number, number),
            "delta_h": Mean(change, number),
        }
        return improvement, metrics

    def update(self, metrics: Mapping[str, Any], clock: Clock) -> Mapping[str, Any]:
        """Derive what follows from the metrics, and let the market hear of a step that the gates decided."""
        now = Clock(clock.step - 1, clock.total)
        schedule, market = self.config.schedule, self.market
        kind = schedule.kind(now, self.layers)
        read: dict[str, Any] = {
            "step_kind": kind,
            "price": market.price,
            "threshold": self._threshold(now),
            **derive(metrics, self.depth.max_passes),
        }
        priced = self.gated and schedule.priced(now)
        depths = {**metrics, **read}
        bills = credit.layer_bills(self.config.credit, market, depths, self.depth.max_passes)
        read["layer_p_loss"] = bills if priced else [0.0] * self.layers
        if kind == "audit":
            read["audit_layer"] = schedule.audited_layer(now, self.layers)
        if kind == "policy" and priced:
            depth = metrics["expected_passes" if market.uses_soft_depth else "wanted_passes"]
            if math.isfinite(depth):
                if market.target is not None:
                    read["control_error"] = depth - market.target
                market.update(depth, credit.scale(self.config.credit, metrics))
        if "layer_quota_distance" in metrics:
            market.ration(metrics["layer_quota_distance"])
            read |= {"price": None, "layer_zero_point": market.zero_points}
        else:
            read |= {"price_next": market.price, "deadband": market.deadband}
            read["deadband_steps"] = market.deadband_steps
        if market.target is not None:
            read["target_passes"] = market.target
        hidden = dict.fromkeys(INTERNAL)
        if kind == "forced":
            hidden |= {"wanted_passes": None, "layer_wanted": None, "near_floor": None}
        return {**hidden, **read}

    def state_dict(self) -> dict[str, Any]:
        """The market's."""
        return self.market.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.market.load_state_dict(state)
