"""How well a model predicts documents: nats per token, bits per byte, and what it spent on them.

Letters: B rows, T positions, L layers, N documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ourospec.contracts import Clock, Effort
from ourospec.device import DevicePolicy
from ourospec.errors import DataError
from ourospec.measure.cost import CostedModel
from ourospec.measure.tokens import Chunk, Scored, ScoredDocument, TokenScorer, cut, in_batches, lay_out
from ourospec.nn.cost import FlopTable

# Positions per forward pass of an evaluation during training.
PROBE_POSITIONS = 4096


class Ratio(NamedTuple):
    """Σ numerator / Σ denominator over documents, and its standard error (NaN for a single document)."""

    value: float
    error: float


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> Ratio:
    """The ratio estimator with documents as the independent units (Cochran 1977, section 6.4):

    R = Σy/Σx, se² = N/(N − 1) · Σ(y − R·x)² / (Σx)².
    """
    y, x = numerator.astype(np.float64), denominator.astype(np.float64)
    total, count = float(x.sum()), len(x)
    if total == 0:
        return Ratio(math.nan, math.nan)
    value = float(y.sum()) / total
    if count < 2:
        return Ratio(value, math.nan)
    spread = float(np.square(y - value * x).sum())
    return Ratio(value, math.sqrt(count / (count - 1) * spread) / total)


class Score(NamedTuple):
    """How well a model foretells a text."""

    nats: float
    """−ln p of the whole text and its end."""
    tokens: int
    """Targets, the end included."""
    bits_per_byte: float
    """nats / ln 2 / bytes of the text."""
    mean_passes: float
    """Executed passes per token and layer."""


@dataclass(frozen=True)
class Likelihood:
    """Sums by document. A document's end is one of its tokens and none of its bytes."""

    nats: np.ndarray
    """[N] float64, −ln p of all targets."""
    tokens: np.ndarray
    """[N] int64, targets: what the losses are of."""
    positions: np.ndarray
    """[N] int64, what the costs are of: in text the positions that foretold a target."""
    bytes: np.ndarray
    """[N] int64, exact bytes of the raw text."""
    passes: np.ndarray
    """[N, L] int64, passes run over the positions."""
    flops: np.ndarray
    """[N] float64, forward FLOPs of the passes that were run for the positions."""

    def summary(self) -> dict[str, Any]:
        """The figures, each ratio with its standard error over documents under `<name>_se`.

        loss is in nats per token; bits_per_byte compares models whatever their tokenizers; mean_passes is per
        position and layer; flops_per_token is per position, of the forward pass. An error that cannot be had (one
        document) is NaN.
        """
        layers = self.passes.shape[1]
        loss = ratio(self.nats, self.tokens)
        perplexity = math.exp(loss.value) if loss.value < 700 else math.inf
        bits = ratio(self.nats / math.log(2), self.bytes)
        passes = ratio(self.passes.sum(1) / layers, self.positions)
        flops = ratio(self.flops, self.positions)
        return {
            "loss": loss.value,
            "loss_se": loss.error,
            "perplexity": perplexity,
            "perplexity_se": perplexity * loss.error,
            "bits_per_byte": bits.value,
            "bits_per_byte_se": bits.error,
            "mean_passes": passes.value,
            "mean_passes_se": passes.error,
            "passes_by_layer": (self.passes.sum(0) / self.positions.sum()).tolist(),
            "flops_per_token": flops.value,
            "flops_per_token_se": flops.error,
            "documents": len(self.tokens),
            "tokens": int(self.tokens.sum()),
            "bytes": int(self.bytes.sum()),
        }

    def score(self) -> Score:
        """All documents as one."""
        nats, count, size = float(self.nats.sum()), int(self.tokens.sum()), int(self.bytes.sum())
        bits = nats / math.log(2) / size if size else math.nan
        return Score(nats, count, bits, float(self.passes.sum(0).mean() / count))


def score_documents(
    model: CostedModel,
    documents: Iterable[ScoredDocument],
    end_id: int,
    window: int,
    policy: DevicePolicy,
    batch_rows: int = 8,
    effort: Effort | None = None,
) -> Likelihood:
    """Score each document as END d END, every target once, the final END included.

    A document longer than `window` positions is read in consecutive chunks, each from an empty context, as in
    training. Rows hold one document each; what is padded to a common length comes after it, where a causal
    model does not see it.

    Args:
        window: positions read at once, at most the model's `max_length`.
        batch_rows: chunks per forward pass; changes speed and memory only.
        effort: how long the model may think; None leaves it as trained.

    Raises:
        DataError: there are no documents.
    """
    window = min(window, model.max_length)
    scorer, flops, tally = TokenScorer(model, policy), FlopTable(model.cost), _Tally()
    for chunks in in_batches(cut(tally.opening(documents), end_id, window), batch_rows):
        grid = lay_out(chunks, end_id)
        found = scorer.score(grid, effort)
        tally.add(chunks, grid.scored, found, flops.of(found.passes))
    return tally.result()


class Corpus(Protocol):
    """What an evaluation needs of held-out text; see data/shards.py."""

    @property
    def num_documents(self) -> int: ...

    def document(self, number: int) -> ScoredDocument: ...


def choose_documents(documents: Iterable[ScoredDocument], most_tokens: int) -> list[ScoredDocument]:
    """Whole documents from the front, each that still fits, with at most `most_tokens` targets in all.

    Where not even one fits, the shortest: something has to be scored.
    """
    chosen: list[ScoredDocument] = []
    shortest: ScoredDocument | None = None
    left = most_tokens
    for document in documents:
        length = len(document.tokens) + 1
        if length <= left:
            chosen.append(document)
            left -= length
        if shortest is None or length <= len(shortest.tokens):
            shortest = document
    return chosen or ([shortest] if shortest is not None else [])


def heldout_probe(
    heldout: Corpus,
    end_id: int,
    window: int,
    most_tokens: int,
    policy: DevicePolicy,
    effort: Callable[[Clock], Effort | None] = lambda _: None,
) -> Callable[[Any, Clock], Mapping[str, Any]]:
    """The `run` of an "eval" contracts.Probe: `Likelihood.summary` of always the same held-out documents.

    Args:
        effort: how long the model may think at a point of the run: while its passes are forced in training, gates
            that have never been asked are not asked here either.
    """
    # Documents lie in the order of their names; a share of them should not be of one corner of the corpus.
    order = np.random.default_rng(0).permutation(heldout.num_documents)
    documents = choose_documents((heldout.document(int(number)) for number in order), most_tokens)
    rows = max(1, PROBE_POSITIONS // window)

    def run(model: Any, clock: Clock) -> Mapping[str, Any]:
        likelihood = score_documents(model, documents, end_id, window, policy, rows, effort(clock))
        return {"split": "heldout", **likelihood.summary()}

    return run


class _Tally:
    """Adds chunks up by document."""

    def __init__(self) -> None:
        self.bytes: list[int] = []
        self.nats: list[float] = []
        self.tokens: list[int] = []
        self.flops: list[float] = []
        self.passes: list[np.ndarray | int] = []

    def opening(self, documents: Iterable[ScoredDocument]) -> Iterator[ScoredDocument]:
        """The documents, each opened as it is taken up."""
        for document in documents:
            self.bytes.append(document.num_bytes)
            for sums in (self.nats, self.tokens, self.flops, self.passes):
                sums.append(0)
            yield document

    def add(self, chunks: list[Chunk], scored: Tensor, found: Scored, flops: Tensor) -> None:
        """Take in some chunks: which positions [B, T] have a target, what was found there, and the FLOPs [B, T]."""
        nats, spent = found.nats.sum(1).tolist(), (flops * scored).sum(1).tolist()
        passes = (found.passes * scored).sum(2).T.numpy()
        for row, chunk in enumerate(chunks):
            self.nats[chunk.document] += nats[row]
            self.tokens[chunk.document] += len(chunk.targets)
            self.flops[chunk.document] += spent[row]
            self.passes[chunk.document] = self.passes[chunk.document] + passes[row]

    def result(self) -> Likelihood:
        """The sums, or an error when there is nothing to speak of."""
        if not self.bytes:
            raise DataError(
                "There are no documents to score.", "Name a file or folder that holds text, with --data PATH."
            )
        tokens = np.array(self.tokens, dtype=np.int64)
        return Likelihood(
            nats=np.array(self.nats, dtype=np.float64),
            tokens=tokens,
            positions=tokens,
            bytes=np.array(self.bytes, dtype=np.int64),
            passes=np.array(self.passes, dtype=np.int64),
            flops=np.array(self.flops, dtype=np.float64),
        )
