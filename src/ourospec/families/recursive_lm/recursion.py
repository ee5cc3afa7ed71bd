"""The recursion: steps that refine every token's answer until its halting head says that it is done.

Letters: B rows, T positions, D width, K steps that were run.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.contracts import Effort
from ourospec.errors import ConfigError
from ourospec.families.recursive_lm.keys import Keys
from ourospec.families.recursive_lm.networks import (
    NetworksConfig,
    OneNetwork,
    Thought,
    TwoNetworks,
    TwoNetworksConfig,
)
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.cache import Cache
from ourospec.nn.compaction import Compacting, Everyone, Packed, pays
from ourospec.nn.effort import limits
from ourospec.nn.init import mark_by_entry
from ourospec.nn.ledger import remaining
from ourospec.nn.mlp import Activation
from ourospec.nn.visibility import Visibility


class RecursionConfig(Config):
    """How often the recursion may run and what decides it."""

    steps: Annotated[int, Field(ge=1, le=64)] = 3
    """Steps at most; each gives an answer."""
    networks: NetworksConfig = TwoNetworksConfig()
    """What a step computes."""
    halting: Literal["learned", "fixed"] = "learned"
    """learned: a token halts when its head says so; fixed: all run every step, without a head."""
    halt_above: Annotated[float, Field(gt=0, lt=1)] = 0.7
    """Probability of being done above which a token halts."""
    halt_head: Literal["shared", "by_step"] = "shared"
    """Whether one head judges the states of all steps, or each step has its own. A shared one can only count the steps
    if the states carry their number, which costs them something else."""
    halt_bias: float = -2.0
    """Of the halting head's logit in the beginning; −2 makes the probability about 0.12."""
    gradient: Literal["all_steps", "last_step"] = "all_steps"
    """Whether the loss reaches back through all steps of a training call, or ends at the beginning of each step, as in
    Cognate, which costs multi-hop reasoning some 40 points (docs/log.md)."""


class Start(NamedTuple):
    """Where a recursion goes on."""

    thought: Thought
    fresh: Tensor
    """[B], the rows that begin anew all the same."""


class Recursed(NamedTuple):
    """What the recursion did."""

    thought: Thought
    """Of every token when it halted."""
    passes: Tensor
    """[B, T] integers, steps that were run."""
    answers: tuple[Tensor, ...]
    """[B, T, D], y before the first step and after each; those who had halted keep theirs. While training only."""
    halts: tuple[Tensor, ...]
    """[B, T] for each step, the halting head's logit, of those who had not halted; empty without a head. The last
    possible step asks nobody where heads decide."""


class Recursion(Compacting):
    """y and z of every token, step by step; a token whose head says so keeps its y and is computed no more.

    Those who go on see the halted as they were in their last step (keys.py). Hence what is computed of the halted
    reaches nobody, and computing only the others is exact.
    """

    def __init__(
        self, width: int, attention: AttentionConfig, activation: Activation, config: RecursionConfig
    ) -> None:
        super().__init__()
        self.config = config
        self.networks: TwoNetworks | OneNetwork = (
            TwoNetworks(width, attention, config.networks)
            if isinstance(config.networks, TwoNetworksConfig)
            else OneNetwork(width, attention, activation, config.networks)
        )
        self.halt = None
        if config.halting == "learned":
            self.halt = mark_by_entry(nn.Linear(width, config.steps if config.halt_head == "by_step" else 1))

    def init_parameters(self) -> None:
        """Called by nn.init."""
        if self.halt is not None:
            self.halt.weight.normal_(std=0.02)
            self.halt.bias.fill_(self.config.halt_bias)

    @property
    def places(self) -> int:
        """Layers of a cache: one for the text and those of each step."""
        return 1 + self.config.steps * self.networks.per_step

    def forward(
        self,
        f: Float[Tensor, "B T D"],
        visibility: Visibility,
        effort: Effort,
        cache: tuple[Cache, int] | None = None,
        start: Start | None = None,
    ) -> Recursed:
        """Think about what was read.

        Args:
            cache: of the positions before, and the number of the first of its layers that is ours.
            start: what the tokens thought in a call before; None begins anew.
        """
        limit, forced = self._limits(effort, f)
        keys = Keys(visibility, self.networks.per_step, *(cache or (None, 0)))
        self.networks.fix(f, keys)
        y, z = self._begin(f, start)
        alive = torch.ones(f.shape[:2], dtype=torch.bool, device=f.device)
        passes = torch.zeros_like(alive, dtype=torch.long)
        company: Everyone | Packed = keys.company
        answers = [y] if self.training else []
        halts: list[Tensor] = []
        for step in range(limit):
            if step:
                f, y, z = self._cut(f, y, z, keys)
                if not forced:
                    count, widest = remaining(alive)
                    if not count:
                        break
                    company = self._company(company, alive, count, widest, visibility, f.shape[-1])
            keys.begin_step(step, company, None if forced else alive)
            one = y is z
            taken_f, taken_y = company.take(f), company.take(y)
            rows = self.networks(taken_f, taken_y, taken_y if one else company.take(z), keys)
            passes = passes + alive
            if forced or step == 0:
                y, z = rows
            else:
                y = company.put(y, rows.y, alive)
                z = y if one else company.put(z, rows.z, alive)
            if self.halt is not None and (self.training or forced or step + 1 < limit):
                halts.append(company.spread(self._logit(rows.z, step)) * alive)
            alive = self._stay(alive, halts, passes, effort, forced)
            if self.training:
                # Without gradients later steps write into y.
                answers.append(y if torch.is_grad_enabled() else y.clone())
        keys.end(self.config.steps)
        # Where all halted early, the answers stay what they are.
        answers += [y] * (limit + 1 - len(answers)) if self.training else []
        return Recursed(Thought(y, z), passes, tuple(answers), tuple(halts))

    def _begin(self, f: Tensor, start: Start | None) -> Thought:
        new = self.networks.begin(f)
        if start is None:
            return new
        fresh = start.fresh[:, None, None]
        return Thought(*(torch.where(fresh, x, held) for x, held in zip(new, start.thought, strict=True)))

    def _limits(self, effort: Effort, f: Tensor) -> tuple[int, bool]:
        if effort.readout is not None:
            raise ConfigError(
                "A recursive_lm halts by its own head, not by a readout.",
                "Leave --readout out; --threshold and --max-passes work.",
            )
        return limits(effort, f.shape[:2], self.config.steps, gated=self.halt is not None)

    def _cut(self, f: Tensor, y: Tensor, z: Tensor, keys: Keys) -> tuple[Tensor, Tensor, Tensor]:
        """What the next step begins with: as it is, or without its history."""
        if self.config.gradient == "all_steps" or not self.training:
            return f, y, z
        f = f.detach()
        self.networks.cut(f, keys)
        return f, y.detach(), z.detach()

    def _company(
        self,
        company: Everyone | Packed,
        alive: Tensor,
        count: int,
        widest: int,
        visibility: Visibility,
        width: int,
    ) -> Everyone | Packed:
        """Those who are computed in the next step: those who are alive alone, where that is faster."""
        if self.execution == "masked":
            return company
        if isinstance(company, Packed):
            return company if len(company.tokens) == count else Packed(alive, count, widest, visibility)
        if self.execution == "auto" and not pays(
            (count, widest), visibility, len(alive), width, self.networks.step_flops(0)
        ):
            return company
        return Packed(alive, count, widest, visibility)

    def _logit(self, z: Tensor, step: int) -> Float[Tensor, "*rows"]:
        """In at least float32: the sigmoid of a bfloat16 logit could not tell 0.99 from 1."""
        assert self.halt is not None
        wide, head = torch.promote_types(z.dtype, torch.float32), min(step, self.halt.out_features - 1)
        weight, bias = (p[head : head + 1].to(wide) for p in (self.halt.weight, self.halt.bias))
        with torch.autocast(z.device.type, enabled=False):
            return F.linear(z.to(wide), weight, bias).squeeze(-1)

    def _stay(
        self, alive: Tensor, halts: list[Tensor], passes: Tensor, effort: Effort, forced: bool
    ) -> Bool[Tensor, "B T"]:
        """Who goes on."""
        if effort.plan is not None:
            return alive & (effort.plan > passes)
        if forced or not halts:
            return alive
        return alive & ~(halts[-1].detach().sigmoid() > self.halt_above(effort))

    def halt_above(self, effort: Effort | None) -> float:
        """The probability above which a token halts.

        An effort's threshold is that of the survival, 1 − q, under which a token leaves, as in every family.
        """
        asked = None if effort is None else effort.threshold
        return self.config.halt_above if asked is None else 1 - asked

    def step_flops(self, context: float) -> float:
        """FLOPs of a token in one step, its halting head included."""
        head = 2 * self.halt.in_features if self.halt is not None else 0
        return self.networks.step_flops(context) + head
