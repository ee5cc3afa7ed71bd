"""adaptive_lm: each token runs 1 to K passes per layer. Letters: B rows, T positions, D width, L layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.contracts import Effort, Output, Rehearsal, Stepper, StepWeights
from ourospec.errors import ConfigError
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.cache import Cache
from ourospec.nn.cost import ModelCost, matmul_flops
from ourospec.nn.depth import AdaptiveLayer, DepthConfig
from ourospec.nn.embed import EmbeddingConfig, TableConfig, build_embedding, tied_table
from ourospec.nn.head import Head
from ourospec.nn.init import initialise
from ourospec.nn.layer_trace import LayerTrace
from ourospec.nn.mlp import Activation
from ourospec.nn.moe import MoEConfig
from ourospec.nn.reading import look
from ourospec.nn.step import adaptive_halting, adaptive_parts, build_stepper


class AdaptiveConfig(Config):
    """The shape of an adaptive_lm."""

    width: Annotated[int, Field(ge=8)] = 256
    """Width of the residual stream."""
    layers: Annotated[int, Field(ge=1)] = 6
    """Adaptive layers."""
    attention: AttentionConfig = AttentionConfig()
    """Heads, rotary embedding, window."""
    mlp_hidden: Annotated[int, Field(ge=1)] = 704
    """Inner width of the position-wise network."""
    activation: Activation = "swiglu"
    """Kind of the position-wise network."""
    moe: MoEConfig | None = None
    """A mixture of experts in place of the position-wise network, or none."""
    depth: DepthConfig = DepthConfig()
    """How often a layer may run and what decides it."""
    embedding: EmbeddingConfig = TableConfig()
    """How tokens become vectors."""
    vocab_size: Annotated[int, Field(ge=0)] = 0
    """Rows of embedding and head; 0: as many as the tokenizer has tokens."""
    max_length: Annotated[int, Field(ge=2)] = 1024
    """Positions that the model may be asked to read at once."""
    baton: bool = True
    """Whether each position is handed a share of the embedding before it."""
    tied: bool = False
    """Whether the head uses the embedding's table."""

    @model_validator(mode="after")
    def _one_number_a_layer(self) -> AdaptiveConfig:
        if self.depth.by_layer and len(self.depth.by_layer) != self.layers:
            raise ValueError(
                f"depth.by_layer has {len(self.depth.by_layer)} numbers for {self.layers} layers"
            )
        return self


class Baton(nn.Module):
    """x'_t = x_t + σ(λ) ⊙ x_{t−1}, not recursive; nothing is handed over a document's border."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(width))

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        documents: Int[Tensor, "B T"] | None,
        before: Float[Tensor, "B 1 D"] | None,
    ) -> Float[Tensor, "B T D"]:
        """`before` is the embedding of the position in front of x, where there is one (a cache's)."""
        first = torch.zeros_like(x[:, :1]) if before is None else before
        previous = torch.cat([first, x[:, :-1]], dim=1)
        if documents is not None:
            same = torch.ones_like(documents, dtype=torch.bool)
            same[:, 1:] = documents[:, 1:] == documents[:, :-1]
            previous = previous * same[..., None]
        return x + self.strength.sigmoid() * previous

    @torch.no_grad()
    def readings(self, x: Float[Tensor, "B T D"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """RMS of what is handed on over that of what receives it, and the mean of σ(λ); x before the baton."""
        gate = self.strength.sigmoid()
        handed = (gate * x[:, :-1]).float().square().mean().sqrt()
        return handed / (x[:, 1:].float().square().mean().sqrt() + 1e-6), gate.mean()


class AdaptiveLM(nn.Module):
    """Embedding, baton, L adaptive layers, norm, head; a contracts.LanguageModel.

    The output's trace is a tuple of LayerTrace, one a layer.
    """

    def __init__(self, config: AdaptiveConfig, vocab_size: int, pieces: Sequence[bytes]) -> None:
        super().__init__()
        self.max_length, self.depth = config.max_length, config.depth
        self.embedding = build_embedding(config.embedding, vocab_size, config.width, pieces)
        self.baton = Baton(config.width) if config.baton else None
        self.layers = nn.ModuleList(
            AdaptiveLayer(
                config.width,
                config.attention,
                config.mlp_hidden,
                config.activation,
                config.depth.of_layer(index),
                config.moe,
            )
            for index in range(config.layers)
        )
        self.head = Head(config.width, vocab_size, tied_table(self.embedding) if config.tied else None)
        # Later passes write into the stream too, each by its scale.
        passes = sum(config.depth.scales[: config.depth.max_passes])
        initialise(self, residual_branches=round(2 * config.layers * passes))

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
        effort: Effort | None = None,
    ) -> Output:
        visibility = look(tokens, documents, cache, self.max_length)
        x = self.embedding(tokens)
        if self.baton is not None:
            embedded = x
            x = self.baton(x, documents, cache.last_embedded() if cache is not None else None)
            if cache is not None:
                cache.embed(embedded)
        traces: list[LayerTrace] = []
        losses: list[Tensor] = []
        for index, layer in enumerate(self.layers):
            slot = (cache, index) if cache is not None else None
            x, trace, loss = layer(x, visibility, (effort or Effort()).in_layer(index), slot)
            traces.append(trace)
            if loss is not None:
                losses.append(loss)
        if cache is not None:
            cache.advance(tokens.shape[1])
        aux = torch.stack(losses).sum() if losses else None
        return Output(self.head.norm(x), torch.stack([t.passes for t in traces]), tuple(traces), aux)

    def set_zero_points(self, zero_points: Sequence[float]) -> None:
        """From where each layer's gates count, in logits."""
        for layer, zero_point in zip(self.layers, zero_points, strict=True):
            if isinstance(layer, AdaptiveLayer) and layer.gate is not None:
                layer.gate.zero_point.fill_(zero_point)

    def probe_gain(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None,
        targets: Int[Tensor, "B T"],
        layer: int,
        passes: int,
        effort: Effort | None = None,
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """What one more pass of one layer is worth to each token, and what its gate says of that.

        Args:
            targets: the tokens that follow; below 0 for none.
            layer: by its number from 0.
            passes: after which every token of the layer stops, and in the comparison runs one more.
            effort: how the other layers decide; None as trained.

        Returns:
            The fall of −ln p(target) in nats (0 where there is no target), without gradient; the logit of the gate
            after pass `passes`, with the gate's own; and −ln p(target) without the further pass, without gradient.
        """
        effort = (effort or Effort())._replace(training=None)
        probed = self.layers[layer]
        with torch.no_grad():
            visibility = look(tokens, documents, None, self.max_length)
            x = self.embedding(tokens)
            if self.baton is not None:
                x = self.baton(x, documents, None)
            for below in self.layers[:layer]:
                x = below(x, visibility, effort)[0]
            stopped = probed(x, visibility, Effort(forced_passes=passes))[0]
        more = Effort(forced_passes=passes + 1, training=Rehearsal())
        continued, trace, _ = probed(x, visibility, more)
        with torch.no_grad():
            both = torch.cat([stopped, continued.detach()])
            twice = documents.repeat(2, 1) if documents is not None else None
            visibility = look(tokens.repeat(2, 1), twice, None, self.max_length)
            for above in self.layers[layer + 1 :]:
                both = above(both, visibility, effort)[0]
            nll = self.head.judge(self.head.norm(both), targets.repeat(2, 1))[0]
            at_stake, left = nll.chunk(2)
        return at_stake - left, trace.bids[passes - 1], at_stake

    def logits(self, states: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        """In at least float32."""
        return self.head.logits(states)

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Empty; any number of rows fits, since it opens with the first keys."""
        del batch
        if self.depth.kv != "first" and self.depth.max_passes > 1:
            raise ConfigError(
                "Keys and values that change in every pass cannot be cached, one per layer and token.",
                "Train with model.depth.kv set to first for decoding; per_pass is for comparison.",
            )
        return Cache(len(self.layers), capacity)

    def stepper(self, weights: StepWeights = "float32") -> Stepper | None:
        """The compiled twin; None with experts, attention statistics, keys anew in each pass, or off the CPU."""
        if self.depth.kv != "first" and self.depth.max_passes > 1:
            return None
        layers = [layer for layer in self.layers if isinstance(layer, AdaptiveLayer)]
        baton = None if self.baton is None else self.baton.strength.detach().sigmoid()
        parts = [adaptive_parts(layer) for layer in layers]
        return build_stepper(
            parts, self.head, self.embedding, baton, adaptive_halting(layers[0]), self.max_length, weights
        )

    def cost(self, context: float) -> ModelCost:
        """FLOPs per token at `context` visible keys."""
        layers = [layer for layer in self.layers if isinstance(layer, AdaptiveLayer)]
        keys_again = self.depth.kv == "per_pass"
        return ModelCost(
            matmul_flops(self.embedding) + matmul_flops(self.head),
            tuple(layer.pass_flops(context, first=True) for layer in layers),
            tuple(layer.pass_flops(context, first=keys_again) for layer in layers),
        )
