"""dense_lm: a modern plain decoder, every token the same depth. Letters: B rows, T positions, D width, L layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.contracts import Effort, Output, Stepper, StepWeights
from ourospec.errors import ConfigError
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.block import Block
from ourospec.nn.cache import Cache
from ourospec.nn.cost import ModelCost, matmul_flops
from ourospec.nn.embed import EmbeddingConfig, TableConfig, build_embedding, tied_table
from ourospec.nn.head import Head
from ourospec.nn.init import initialise
from ourospec.nn.mlp import Activation
from ourospec.nn.reading import look
from ourospec.nn.step import Halting, build_stepper, plain_parts


class DenseConfig(Config):
    """The shape of a dense_lm."""

    width: Annotated[int, Field(ge=8)] = 256
    """Width of the residual stream."""
    layers: Annotated[int, Field(ge=1)] = 6
    """Blocks."""
    attention: AttentionConfig = AttentionConfig()
    """Heads, rotary embedding, window."""
    mlp_hidden: Annotated[int, Field(ge=1)] = 704
    """Inner width of the position-wise network."""
    activation: Activation = "swiglu"
    """Kind of the position-wise network."""
    embedding: EmbeddingConfig = TableConfig()
    """How tokens become vectors."""
    vocab_size: Annotated[int, Field(ge=0)] = 0
    """Rows of embedding and head; 0: as many as the tokenizer has tokens."""
    max_length: Annotated[int, Field(ge=2)] = 1024
    """Positions that the model may be asked to read at once."""
    tied: bool = False
    """Whether the head uses the embedding's table."""


class DenseLM(nn.Module):
    """Embedding, L blocks, norm, head; a contracts.LanguageModel."""

    def __init__(self, config: DenseConfig, vocab_size: int, pieces: Sequence[bytes]) -> None:
        super().__init__()
        self.max_length = config.max_length
        self.embedding = build_embedding(config.embedding, vocab_size, config.width, pieces)
        self.blocks = nn.ModuleList(
            Block(config.width, config.attention, config.mlp_hidden, config.activation)
            for _ in range(config.layers)
        )
        self.head = Head(config.width, vocab_size, tied_table(self.embedding) if config.tied else None)
        initialise(self, residual_branches=2 * config.layers)

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None = None,
        cache: Cache | None = None,
        effort: Effort | None = None,
    ) -> Output:
        refuse_effort(effort)
        visibility = look(tokens, documents, cache, self.max_length)
        x = self.embedding(tokens)
        for index, block in enumerate(self.blocks):
            x = block(x, visibility, (cache, index) if cache is not None else None)
        if cache is not None:
            cache.advance(tokens.shape[1])
        passes = torch.ones(len(self.blocks), *tokens.shape, dtype=torch.long, device=tokens.device)
        return Output(self.head.norm(x), passes)

    def logits(self, states: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        """In at least float32."""
        return self.head.logits(states)

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """Empty; any number of rows fits, since it opens with the first keys."""
        del batch
        return Cache(len(self.blocks), capacity)

    def stepper(self, weights: StepWeights = "float32") -> Stepper | None:
        """The compiled twin; None off the CPU."""
        blocks = [block for block in self.blocks if isinstance(block, Block)]
        parts = [plain_parts(b.attention_norm, b.attention, b.mlp_norm, b.mlp) for b in blocks]
        return build_stepper(parts, self.head, self.embedding, None, Halting(_once), self.max_length, weights)

    def cost(self, context: float) -> ModelCost:
        """FLOPs per token at `context` visible keys."""
        per_block = tuple(block.pass_flops(context) for block in self.blocks if isinstance(block, Block))
        fixed = matmul_flops(self.embedding) + matmul_flops(self.head)
        return ModelCost(fixed, per_block, tuple(0.0 for _ in per_block))


def _once(effort: Effort) -> tuple[int, bool]:
    """One pass, whoever asks."""
    refuse_effort(effort)
    return 1, True


def refuse_effort(effort: Effort | None) -> None:
    """A plain model has one pass and no gate; asking for anything else is a mistake worth hearing of."""
    if effort is None or (
        effort.threshold is None and {effort.max_passes, effort.forced_passes} <= {None, 1}
    ):
        return
    raise ConfigError(
        "A dense_lm runs every layer exactly once and has no gate.",
        "Leave out --max-passes and --threshold, or use a run of adaptive_lm.",
    )
