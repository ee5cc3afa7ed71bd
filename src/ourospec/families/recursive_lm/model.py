"""recursive_lm: a backbone reads, a memory keeps what its window loses, a recursion thinks.

Letters: B rows, T positions, D width, V vocabulary, L blocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, NamedTuple, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.contracts import Effort, Output, Stepper, StepWeights
from ourospec.families.recursive_lm.cache import RecursiveCache
from ourospec.families.recursive_lm.networks import Thought
from ourospec.families.recursive_lm.recursion import Recursion, RecursionConfig, Start
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.block import Block
from ourospec.nn.cost import ModelCost, matmul_flops
from ourospec.nn.embed import EmbeddingConfig, TableConfig, build_embedding, tied_table
from ourospec.nn.head import Head
from ourospec.nn.init import initialise
from ourospec.nn.memory import (
    MemoryConfig,
    MemoryGate,
    MemoryGateConfig,
    MemoryState,
    Mixed,
    NormalisedGateConfig,
    build_memory,
)
from ourospec.nn.mlp import Activation
from ourospec.nn.norm import RMSNorm
from ourospec.nn.reading import look
from ourospec.nn.visibility import Visibility

MemoryUse = Literal["as trained", "off", "shuffled"]


class RecursiveConfig(Config):
    """The shape of a recursive_lm."""

    width: Annotated[int, Field(ge=8)] = 128
    """Width of the states."""
    layers: Annotated[int, Field(ge=0)] = 2
    """Blocks of the backbone."""
    attention: AttentionConfig = AttentionConfig(heads=4)
    """Heads, rotary embedding and window, of the backbone and of the recursion: what neither sees only the memory can
    bring back."""
    mlp_hidden: Annotated[int, Field(ge=1)] = 352
    """Inner width of the backbone's position-wise networks."""
    activation: Activation = "swiglu"
    """Kind of the position-wise networks."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of each backbone branch's coordinates that training leaves out."""
    memory: MemoryConfig | None = None
    """The long-term memory behind the backbone, or none."""
    memory_gate: MemoryGateConfig = NormalisedGateConfig()
    """How much of each coordinate the memory gives."""
    recursion: RecursionConfig = RecursionConfig()
    """The steps that follow, and how they end."""
    embedding: EmbeddingConfig = TableConfig()
    """How tokens become vectors."""
    learned_positions: Annotated[int, Field(ge=0)] = 0
    """Vectors of a table that is added to the embedding by place in the document, at least max_length (with
    attention.rotary_fraction 0 there are no other positions); 0: none."""
    vocab_size: Annotated[int, Field(ge=0)] = 0
    """Rows of embedding and head; 0: as many as the tokenizer has tokens."""
    max_length: Annotated[int, Field(ge=2)] = 1024
    """Positions that the model may be asked to read at once."""
    tied: bool = False
    """Whether the head uses the embedding's table."""

    @model_validator(mode="after")
    def _positions_reach(self) -> Self:
        if 0 < self.learned_positions < self.max_length:
            raise ValueError(
                f"learned_positions has {self.learned_positions} vectors for max_length {self.max_length}"
            )
        return self


class RecursiveTrace(NamedTuple):
    """What happened in a forward pass."""

    answers: tuple[Tensor, ...]
    """[B, T, D], y before the first step and after each; while training only."""
    halts: tuple[Tensor, ...]
    """[B, T] for each step that was asked, the logit of being done, 0 of those who had halted."""
    thought: Thought
    """Of each token when it halted: what a next call can start from."""
    mixed: Mixed | None
    """What the memory's gate did; None without a memory."""


class RecursiveLM(nn.Module):
    """x = Emb(ids); L blocks; f = MAG(norm x, memory(norm x)); recursion over f; head. A contracts.LanguageModel.

    Its passes are steps of the recursion, [1, B, T]. The trace is a RecursiveTrace.
    """

    def __init__(self, config: RecursiveConfig, vocab_size: int, pieces: Sequence[bytes]) -> None:
        super().__init__()
        self.max_length, self.config = config.max_length, config
        width, attention = config.width, config.attention
        self.embedding = build_embedding(config.embedding, vocab_size, width, pieces)
        table = config.learned_positions
        self.places = nn.Embedding(table, width) if table else None
        self.blocks = nn.ModuleList(
            Block(width, attention, config.mlp_hidden, config.activation, config.dropout)
            for _ in range(config.layers)
        )
        self.norm = RMSNorm(width)
        self.memory = None if config.memory is None else build_memory(config.memory, width)
        self.memory_gate = None if config.memory is None else MemoryGate(width, config.memory_gate)
        self.recursion = Recursion(width, attention, config.activation, config.recursion)
        # The answers come out of a norm already.
        tied = tied_table(self.embedding) if config.tied else None
        self.head = Head(width, vocab_size, tied, normalised=False)
        self.memory_use: MemoryUse = "as trained"
        initialise(self, residual_branches=max(1, 2 * config.layers))

    def forward(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None = None,
        cache: RecursiveCache | None = None,
        effort: Effort | None = None,
        start: Start | None = None,
    ) -> Output:
        """See contracts.LanguageModel.

        Args:
            start: what the tokens thought in a call before; the recursion goes on from there.
        """
        visibility = look(tokens, documents, cache, self.max_length)
        x = self.embedding(tokens)
        if self.places is not None:
            x = x + self.places(_place_in_document(visibility))
        for index, block in enumerate(self.blocks):
            x = block(x, visibility, (cache, index) if cache is not None else None)
        f, mixed = self._remember(self.norm.wide(x), documents, cache)
        slots = (cache, len(self.blocks)) if cache is not None else None
        found = self.recursion(f, visibility, effort or Effort(), slots, start)
        if cache is not None:
            cache.advance(tokens.shape[1])
        trace = RecursiveTrace(found.answers, found.halts, found.thought, mixed)
        return Output(found.thought.y, found.passes[None], trace)

    def _remember(
        self, f: Tensor, documents: Tensor | None, cache: RecursiveCache | None
    ) -> tuple[Tensor, Mixed | None]:
        """What was read, and beside it what is remembered."""
        if self.memory is None or self.memory_gate is None:
            return f, None
        remembered, state = self.memory(f, cache.memory if cache is not None else None, documents)
        if cache is not None:
            cache.remember(f, state)
        if self.memory_use == "off":
            remembered = torch.zeros_like(remembered)
        elif self.memory_use == "shuffled":
            # Of another row: what such a memory holds, but of another text.
            remembered = remembered.roll(1, 0) if len(f) > 1 else remembered.flip(1)
        mixed = self.memory_gate(f, remembered)
        return mixed.states, mixed

    @property
    def ablations(self) -> tuple[str, ...]:
        """What can be taken from this model to see what it was worth; see `without`."""
        return () if self.memory is None else ("memory off", "memory shuffled")

    @contextlib.contextmanager
    def without(self, ablation: str) -> Iterator[None]:
        """For a while: memory off, which remembers nothing, or memory shuffled, which remembers another row's text."""
        use: dict[str, MemoryUse] = {"memory off": "off", "memory shuffled": "shuffled"}
        before, self.memory_use = self.memory_use, use[ablation]
        try:
            yield
        finally:
            self.memory_use = before

    @torch.no_grad()
    def probe_gain(
        self,
        tokens: Int[Tensor, "B T"],
        documents: Int[Tensor, "B T"] | None,
        targets: Int[Tensor, "B T"],
        layer: int,
        passes: int,
        effort: Effort | None = None,
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """What one more step is worth to each token, and what the halting head says of that; see measure.gates.

        Returns:
            The fall of −ln p(target) in nats, 0 where there is no target; the logit of going on after `passes` steps;
            and −ln p(target) after these.
        """
        del layer, effort  # there is one recursion, and nothing else that could decide
        short, long = (self(tokens, documents, effort=Effort(forced_passes=k)) for k in (passes, passes + 1))
        before, after = (self.head.judge(output.states, targets)[0] for output in (short, long))
        return before - after, -long.trace.halts[passes - 1], before

    def logits(self, states: Float[Tensor, "*rows D"]) -> Float[Tensor, "*rows V"]:
        """In at least float32."""
        return self.head.logits(states)

    def new_cache(self, batch: int, capacity: int) -> RecursiveCache:
        """Empty; any number of rows fits, since it opens with the first keys."""
        del batch
        return RecursiveCache(
            len(self.blocks) + self.recursion.places, capacity, None if self.memory is None else self._recall
        )

    @torch.no_grad()
    def _recall(self, read: Tensor) -> MemoryState:
        assert self.memory is not None
        return self.memory(read)[1]

    def stepper(self, weights: StepWeights = "float32") -> Stepper | None:
        """None: single positions go through the model itself."""
        del weights
        return None

    def cost(self, context: float) -> ModelCost:
        """FLOPs per token at `context` visible keys."""
        blocks = sum(block.pass_flops(context) for block in self.blocks if isinstance(block, Block))
        parts = [self.embedding, self.head, *(part for part in (self.memory, self.memory_gate) if part)]
        fixed = (
            blocks + sum(matmul_flops(part) for part in parts) + self.recursion.networks.begin_flops(context)
        )
        step = self.recursion.step_flops(context)
        return ModelCost(fixed, (step,), (step,))


def _place_in_document(visibility: Visibility) -> Int[Tensor, "*rows T"]:
    """How many positions of its own document stand before each position."""
    positions, documents = visibility.positions, visibility.documents
    if documents is None:
        return positions
    borders = torch.ones_like(documents, dtype=torch.bool)
    borders[:, 1:] = documents[:, 1:] != documents[:, :-1]
    begins = torch.where(borders, positions, 0).cummax(1).values
    return positions - begins
