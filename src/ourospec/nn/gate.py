"""The continue gate: from what a pass did to a token, the probability that another pass is wanted."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ourospec.nn.attention import AttentionStatistics

Feature = Literal["state", "update", "direction", "second_difference", "entropy", "top_mass", "agreement"]
ATTENTION_FEATURES: frozenset[str] = frozenset(AttentionStatistics._fields)
STATE_WIDTH = 16
PASS_WIDTH = 16
HIDDEN = 32


class ContinueGate(nn.Module):
    """p = σ(MLP[features; pass embedding]), in at least float32, every feature detached and causal.

    The features, each optional:
        state: 16 learned projections of the normed state before the pass and of its relative update.
        update: RMS(dh)/RMS(h), at most 10.
        direction: cosine of this update and the previous one, 0 in the first pass.
        second_difference: ‖dh − dh_previous‖/(‖dh‖ + ‖dh_previous‖), 1 in the first pass.
        entropy, top_mass, agreement: see AttentionStatistics; these need the attention weights.

    Args:
        bias: the output's initial bias; −2 makes p about 0.12.
    """

    def __init__(self, width: int, max_passes: int, features: tuple[Feature, ...], bias: float) -> None:
        super().__init__()
        self.features, self.bias = features, bias
        self.uses_attention = bool(ATTENTION_FEATURES & set(features))
        self.scalars = tuple(name for name in features if name != "state")
        if "state" in features:
            self.see_state = nn.Linear(width, STATE_WIDTH, bias=False)
            self.see_update = nn.Linear(width, STATE_WIDTH, bias=False)
        self.pass_embedding = nn.Parameter(torch.zeros(max_passes, PASS_WIDTH))
        inputs = len(self.scalars) + PASS_WIDTH + (STATE_WIDTH if "state" in features else 0)
        self.hidden = nn.Linear(inputs, HIDDEN)
        self.output = nn.Linear(HIDDEN, 1)

    def init_parameters(self) -> None:
        """Called by nn.init: near-constant at the start, yet every weight has a gradient."""
        self.pass_embedding.normal_(std=0.1)
        self.output.weight.normal_(std=0.1 * HIDDEN**-0.5)
        self.output.bias.fill_(self.bias)

    def forward(
        self,
        index: int,
        state: Float[Tensor, "*rows D"],
        h: Float[Tensor, "*rows D"],
        update: Float[Tensor, "*rows D"],
        previous: Float[Tensor, "*rows D"] | None,
        attention: AttentionStatistics | None,
    ) -> Float[Tensor, "*rows"]:
        """The probability of another pass.

        Args:
            index: passes before this one, from 0.
            state: the normed state that the pass read.
            h: the state before the update.
            update: what the pass adds to it, already scaled.
            previous: the update of the pass before, None in the first.
        """
        with torch.autocast(h.device.type, enabled=False):
            wide = torch.promote_types(h.dtype, torch.float32)
            with torch.no_grad():
                size = torch.linalg.vector_norm(h, dim=-1, dtype=wide).add_(1e-8)
                step = torch.linalg.vector_norm(update, dim=-1, dtype=wide)
                scalars = self._scalars(size, step, update, previous, attention)
            # The first layer is linear, so the pass embedding and each group of features enter as a sum.
            hidden = F.linear(self.pass_embedding[index].to(wide), self._columns("pass").to(wide))
            hidden = hidden + self.hidden.bias.to(wide)
            if self.scalars:
                stacked = torch.stack([scalars[name] for name in self.scalars], dim=-1)
                hidden = hidden + F.linear(stacked.to(wide), self._columns("scalars").to(wide))
            if "state" in self.features:
                hidden = hidden + self._see(state.detach(), update.detach(), size, wide)
            logit = F.linear(F.gelu(hidden), self.output.weight.to(wide), self.output.bias.to(wide))
            return logit.squeeze(-1).sigmoid()

    def _see(self, state: Tensor, update: Tensor, size: Tensor, wide: torch.dtype) -> Tensor:
        seen = F.linear(state, self.see_state.weight.to(state.dtype)).to(wide)
        relative = F.linear(update, self.see_update.weight.to(update.dtype)).to(wide)
        relative = relative * (update.shape[-1] ** 0.5 / size)[..., None]
        return F.linear(seen + relative, self._columns("state").to(wide))

    def _columns(self, group: str) -> Tensor:
        """The first layer's weights for one group of inputs."""
        scalars, passes = len(self.scalars), len(self.scalars) + PASS_WIDTH
        spans = {
            "scalars": slice(0, scalars),
            "pass": slice(scalars, passes),
            "state": slice(passes, passes + STATE_WIDTH),
        }
        return self.hidden.weight[:, spans[group]]

    def _scalars(
        self,
        size: Tensor,
        step: Tensor,
        update: Tensor,
        previous: Tensor | None,
        attention: AttentionStatistics | None,
    ) -> dict[str, Tensor]:
        values = {"update": (step / size).clamp(max=10.0)}
        if attention is not None:
            values |= attention._asdict()
        if previous is None:
            return values | {"direction": torch.zeros_like(step), "second_difference": torch.ones_like(step)}
        before = torch.linalg.vector_norm(previous, dim=-1, dtype=step.dtype)
        product = (update.to(step.dtype) * previous.to(step.dtype)).sum(-1)
        # ‖a − b‖² = ‖a‖² + ‖b‖² − 2ab needs no further pass over the rows.
        apart = (step**2 + before**2 - 2 * product).clamp(min=0).sqrt()
        values["direction"] = product / (step * before + 1e-8)
        values["second_difference"] = apart / (step + before + 1e-8)
        return values

    def flops_per_row(self) -> int:
        """Of one call, without the attention statistics."""
        inputs = self.hidden.in_features - PASS_WIDTH
        seen = 4 * self.see_state.weight.numel() if "state" in self.features else 0
        return seen + 2 * HIDDEN * (inputs + 1)
