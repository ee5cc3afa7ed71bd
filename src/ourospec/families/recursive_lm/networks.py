"""What one step of the recursion computes: the two networks of Cognate, or the one of the published TRM.

Letters: B rows, T positions, D width; *rows are [B, T], or [N] where only some tokens go on thinking.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.families.recursive_lm.keys import Keys
from ourospec.nn.attention import Attention, AttentionConfig
from ourospec.nn.cost import matmul_flops
from ourospec.nn.mlp import Activation, build_mlp
from ourospec.nn.norm import RMSNorm


class Thought(NamedTuple):
    """What a token carries from step to step."""

    y: Tensor
    """[*rows, D], the answer: what the head reads."""
    z: Tensor
    """[*rows, D], the reasoning behind it."""


class TwoNetworksConfig(Config):
    """As Cognate has it: one network for the reasoning, which looks at the text and at the answers, one for the answer.

    z ← LN(z + MLP[z; Attention(z → f); Attention(z → y)]) `inner` times, then y ← LN(y + MLP[y; z]);
    before the first step z = A·f, y = B·z.
    """

    kind: Literal["two_networks"] = "two_networks"
    inner: Annotated[int, Field(ge=1, le=64)] = 2
    """Updates of the reasoning in a step, the last one followed by the answer's."""


class OneNetworkConfig(Config):
    """As published: one network for both roles (Jolicoeur-Martineau 2025, arXiv 2510.04871).

    z ← net(f + y + z) `inner` times, then y ← net(y + z); before the first step y and z are learned vectors. With
    `inner` 0 there is no z and y ← net(f + y), a looped transformer. net is a stack of pre-norm blocks and a norm
    behind them; with the published norms after each branch pointer chasing was learned much later (docs/log.md).
    """

    kind: Literal["one_network"] = "one_network"
    inner: Annotated[int, Field(ge=0, le=64)] = 6
    """Updates of the reasoning in a step."""
    layers: Annotated[int, Field(ge=1)] = 2
    """Of the network."""
    mlp_hidden: Annotated[int, Field(ge=1)] = 704
    """Inner width of its position-wise networks."""


NetworksConfig = Annotated[TwoNetworksConfig | OneNetworkConfig, Field(discriminator="kind")]


class TwoNetworks(nn.Module):
    """See TwoNetworksConfig; the maps of all parts have biases, as in the original."""

    per_step = 1
    """Places in Keys."""

    def __init__(self, width: int, attention: AttentionConfig, config: TwoNetworksConfig) -> None:
        super().__init__()
        self.inner = config.inner
        self.begin_z, self.begin_y = nn.Linear(width, width), nn.Linear(width, width)
        self.text, self.answers = (Attention(width, attention, biased=True) for _ in range(2))
        self.think, self.think_norm = _relu_network(3 * width, width), nn.LayerNorm(width)
        self.answer, self.answer_norm = _relu_network(2 * width, width), nn.LayerNorm(width)

    def begin(self, f: Float[Tensor, "B T D"]) -> Thought:
        """Before the first step."""
        z = self.begin_z(f)
        return Thought(self.begin_y(z).to(f.dtype), z.to(f.dtype))

    def fix(self, f: Float[Tensor, "B T D"], keys: Keys) -> None:
        """Show the text to all steps."""
        keys.fix(self.text, f)

    def cut(self, f: Float[Tensor, "B T D"], keys: Keys) -> None:
        """Show it anew, without its history."""
        keys.fix_again(self.text, f)

    def forward(
        self,
        f: Float[Tensor, "*rows D"],
        y: Float[Tensor, "*rows D"],
        z: Float[Tensor, "*rows D"],
        keys: Keys,
    ) -> Thought:
        """One step."""
        del f
        keys.tell(0, self.answers, y)
        for _ in range(self.inner):
            seen = keys.ask_text(self.text, z), keys.ask(0, self.answers, z)
            z = _normalised(
                self.think_norm, z + self.think(torch.cat([z.to(seen[0].dtype), *seen], dim=-1)), z
            )
        y = _normalised(self.answer_norm, y + self.answer(torch.cat([y, z], dim=-1)), y)
        return Thought(y, z)

    def begin_flops(self, context: float) -> float:
        """FLOPs of a token before the first step: both projections, and the keys and values of the text."""
        del context
        return matmul_flops(self.begin_z) + matmul_flops(self.begin_y) + self.text.tell_flops()

    def step_flops(self, context: float) -> float:
        """FLOPs of a token in one step with `context` visible keys."""
        reads = 2 * self.text.pass_flops(context, with_keys=False) + matmul_flops(self.think)
        return self.inner * reads + self.answers.tell_flops() + matmul_flops(self.answer)


class OneNetwork(nn.Module):
    """See OneNetworkConfig."""

    def __init__(
        self, width: int, attention: AttentionConfig, activation: Activation, config: OneNetworkConfig
    ) -> None:
        super().__init__()
        self.inner = config.inner
        self.layers = nn.ModuleList(
            RecurringBlock(width, attention, config.mlp_hidden, activation) for _ in range(config.layers)
        )
        self.norm = RMSNorm(width)
        self.first_y = nn.Parameter(torch.zeros(width))
        self.first_z = nn.Parameter(torch.zeros(width)) if config.inner else None

    @property
    def per_step(self) -> int:
        """Places in Keys: each layer of each run of the network."""
        return (self.inner + 1) * len(self.layers)

    def init_parameters(self) -> None:
        """Called by nn.init."""
        self.first_y.normal_(std=1.0)
        if self.first_z is not None:
            self.first_z.normal_(std=1.0)

    def begin(self, f: Float[Tensor, "B T D"]) -> Thought:
        """Before the first step: the same for all tokens."""
        y = self.first_y.expand_as(f)
        return Thought(y, y if self.first_z is None else self.first_z.expand_as(f))

    def fix(self, f: Float[Tensor, "B T D"], keys: Keys) -> None:
        """Nothing: the text comes in with each run of the network."""

    def cut(self, f: Float[Tensor, "B T D"], keys: Keys) -> None:
        """Nothing."""

    def forward(
        self,
        f: Float[Tensor, "*rows D"],
        y: Float[Tensor, "*rows D"],
        z: Float[Tensor, "*rows D"],
        keys: Keys,
    ) -> Thought:
        """One step."""
        if not self.inner:
            y = self._run(f + y, 0, keys)
            return Thought(y, y)
        for index in range(self.inner):
            z = self._run(f + y + z, index, keys)
        return Thought(self._run(y + z, self.inner, keys), z)

    def _run(self, h: Tensor, index: int, keys: Keys) -> Tensor:
        for number, layer in enumerate(self.layers):
            h = layer(h, index * len(self.layers) + number, keys)
        return self.norm.wide(h)

    def begin_flops(self, context: float) -> float:
        """Nothing is computed before the first step."""
        del context
        return 0.0

    def step_flops(self, context: float) -> float:
        """FLOPs of a token in one step with `context` visible keys."""
        layers = [layer for layer in self.layers if isinstance(layer, RecurringBlock)]
        return (self.inner + 1) * sum(layer.pass_flops(context) for layer in layers)


class RecurringBlock(nn.Module):
    """h ← h + Attention(norm h); h ← h + MLP(norm h), over the keys and values of a recursion."""

    def __init__(
        self, width: int, attention: AttentionConfig, mlp_hidden: int, activation: Activation
    ) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, attention)
        self.mlp = build_mlp(activation, width, mlp_hidden)

    def forward(self, h: Float[Tensor, "*rows D"], place: int, keys: Keys) -> Float[Tensor, "*rows D"]:
        h = h + keys.look(place, self.attention, self.attention_norm(h))
        return h + self.mlp(self.mlp_norm(h))

    def pass_flops(self, context: float) -> float:
        """FLOPs per token with `context` visible keys."""
        return self.attention.pass_flops(context, with_keys=True) + matmul_flops(self.mlp)


def _relu_network(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))


def _normalised(norm: nn.LayerNorm, x: Tensor, like: Tensor) -> Tensor:
    """In the type of the stream."""
    return norm(x.to(like.dtype))
