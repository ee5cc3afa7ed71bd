"""The continue gate: from what a pass did to a token, the probability that another pass is wanted."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ourospec.nn.attention import AttentionStatistics

READOUTS = {
    "update": "min(1, 2δ/(1 + δ)), δ = ‖dh‖/‖h‖: go on while passes still change the state",
    "direction": "(1 − cos(dh, dh_previous))/2 from the second pass on: leave when updates point one way",
    "second_difference": "‖dh − dh_previous‖/(‖dh‖ + ‖dh_previous‖) from the second pass on: leave when they repeat",
}
"""Exits without a learned gate: statistics of the update that decide in its place, each a factor of the survival."""

Feature = Literal["state", "update", "direction", "second_difference", "entropy", "top_mass", "agreement"]
ATTENTION_FEATURES: frozenset[str] = frozenset(AttentionStatistics._fields)
PASS_WIDTH = 16
HIDDEN = 32
# An adaptive optimiser moves every weight by about its learning rate; this makes the gate, which has to follow a model
# that is still learning, so many times quicker than the rest.
OUTPUT_GAIN = 4.0


class Update:
    """What a pass did to the tokens: all that a gate may look at, without gradients.

    Args:
        index: passes before this one, from 0.
        state: [*rows, D], the normed state that the pass read.
        h: [*rows, D], the state before the update.
        change: [*rows, D], what the pass adds to it, already scaled.
        previous: the update of the pass before, None in the first.
    """

    def __init__(self, index: int, state: Tensor, h: Tensor, change: Tensor, previous: Update | None) -> None:
        self.index, self.state, self.h, self.change = index, state.detach(), h.detach(), change.detach()
        # One step back is enough; holding on to more would keep all states of the layer in memory.
        self.previous = None if previous is None else (previous.change, previous.step)

    def narrow(self, index: Int[Tensor, " N"]) -> None:
        """Only these of the rows go on; what is remembered of them for the next update is narrowed."""
        self.step = self.step.flatten()[index]
        self.change = self.change.flatten(0, -2).index_select(0, index)

    @cached_property
    def size(self) -> Float[Tensor, "*rows"]:
        """‖h‖."""
        return self._norm(self.h).add_(1e-8)

    @cached_property
    def step(self) -> Float[Tensor, "*rows"]:
        """‖dh‖."""
        return self._norm(self.change)

    @property
    def relative(self) -> Float[Tensor, "*rows"]:
        """‖dh‖/‖h‖, at most 10."""
        return (self.step / self.size).clamp(max=10.0)

    @cached_property
    def turning(self) -> tuple[Tensor, Tensor]:
        """cos(dh, dh_previous) and ‖dh − dh_previous‖/(‖dh‖ + ‖dh_previous‖); 0 and 1 in the first pass."""
        if self.previous is None:
            return torch.zeros_like(self.step), torch.ones_like(self.step)
        change, before = self.previous
        product = (self.change.to(self.step.dtype) * change.to(self.step.dtype)).sum(-1)
        # ‖a − b‖² = ‖a‖² + ‖b‖² − 2ab needs no further pass over the rows.
        apart = (self.step**2 + before**2 - 2 * product).clamp(min=0).sqrt()
        return product / (self.step * before + 1e-8), apart / (self.step + before + 1e-8)

    @staticmethod
    def _norm(x: Tensor) -> Tensor:
        return torch.linalg.vector_norm(x, dim=-1, dtype=torch.promote_types(x.dtype, torch.float32))


def read_out(name: str, update: Update) -> Float[Tensor, "*rows"]:
    """A continue probability without a learned gate, between 0 and 1; see READOUTS."""
    if name == "update":
        return (update.relative / (1 + update.relative)).mul(2).clamp(max=1)
    direction, second = update.turning
    if update.previous is None:
        return torch.ones_like(direction)
    return (1 - direction) / 2 if name == "direction" else second


class ContinueGate(nn.Module):
    """p = σ(MLP[features; pass embedding] − zero point), in at least float32, every feature detached and causal.

    The zero point is not learned: whoever rations the passes sets it (0 where nobody does).

    The features, each optional:
        state: `state_width` learned projections of the normed state before the pass and of its relative update.
        update: RMS(dh)/RMS(h), at most 10.
        direction: cosine of this update and the previous one, 0 in the first pass.
        second_difference: ‖dh − dh_previous‖/(‖dh‖ + ‖dh_previous‖), 1 in the first pass.
        entropy, top_mass, agreement: see AttentionStatistics; these need the attention weights.

    Args:
        bias: the output's initial bias; −2 makes p about 0.12.
    """

    def __init__(
        self, width: int, max_passes: int, features: tuple[Feature, ...], bias: float, state_width: int = 16
    ) -> None:
        super().__init__()
        self.features, self.bias, self.state_width = features, bias, state_width
        self.uses_attention = bool(ATTENTION_FEATURES & set(features))
        self.scalars = tuple(name for name in features if name != "state")
        if "state" in features:
            self.see_state = nn.Linear(width, state_width, bias=False)
            self.see_update = nn.Linear(width, state_width, bias=False)
        self.pass_embedding = nn.Parameter(torch.zeros(max_passes, PASS_WIDTH))
        inputs = len(self.scalars) + PASS_WIDTH + (state_width if "state" in features else 0)
        self.hidden = nn.Linear(inputs, HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)
        self.zero_point: Tensor
        self.register_buffer("zero_point", torch.zeros(()))

    def init_parameters(self) -> None:
        """Called by nn.init: near-constant at the start, yet every weight has a gradient."""
        self.pass_embedding.normal_(std=0.1)
        self.output.weight.normal_(std=0.1 * HIDDEN**-0.5 / OUTPUT_GAIN)
        self.output.bias.fill_(self.bias / OUTPUT_GAIN)

    def forward(self, update: Update, attention: AttentionStatistics | None = None) -> Float[Tensor, "*rows"]:
        """The logit of the probability of another pass."""
        h = update.h
        with torch.autocast(h.device.type, enabled=False):
            wide = torch.promote_types(h.dtype, torch.float32)
            # The first layer is linear, so the pass embedding and each group of features enter as a sum.
            hidden = F.linear(self.pass_embedding[update.index].to(wide), self._columns("pass").to(wide))
            hidden = hidden + self.hidden.bias.to(wide)
            if self.scalars:
                values = self._scalars(update, attention)
                stacked = torch.stack([values[name] for name in self.scalars], dim=-1)
                hidden = hidden + F.linear(stacked.to(wide), self._columns("scalars").to(wide))
            if "state" in self.features:
                hidden = hidden + self._see(update, wide)
            logit = F.linear(F.gelu(hidden), self.output.weight.to(wide), self.output.bias.to(wide))
            return OUTPUT_GAIN * logit.squeeze(-1) - self.zero_point

    def _see(self, update: Update, wide: torch.dtype) -> Tensor:
        seen = F.linear(update.state, self.see_state.weight.to(update.state.dtype)).to(wide)
        relative = F.linear(update.change, self.see_update.weight.to(update.change.dtype)).to(wide)
        relative = relative * (update.change.shape[-1] ** 0.5 / update.size)[..., None]
        return F.linear(seen + relative, self._columns("state").to(wide))

    def _columns(self, group: str) -> Tensor:
        """The first layer's weights for one group of inputs."""
        scalars, passes = len(self.scalars), len(self.scalars) + PASS_WIDTH
        spans = {
            "scalars": slice(0, scalars),
            "pass": slice(scalars, passes),
            "state": slice(passes, passes + self.state_width),
        }
        return self.hidden.weight[:, spans[group]]

    @torch.no_grad()
    def _scalars(self, update: Update, attention: AttentionStatistics | None) -> dict[str, Tensor]:
        direction, second = update.turning
        values = {"update": update.relative, "direction": direction, "second_difference": second}
        return values if attention is None else values | attention._asdict()

    def flops_per_row(self) -> int:
        """Of one call, without the attention statistics."""
        inputs = self.hidden.in_features - PASS_WIDTH
        seen = 4 * self.see_state.weight.numel() if "state" in self.features else 0
        return seen + 2 * HIDDEN * (inputs + 1)
