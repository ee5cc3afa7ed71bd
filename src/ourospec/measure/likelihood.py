"""How well a model predicts documents: nats per token, bits per byte, and what it spent on them.

Letters: B rows, T positions, L layers, V vocabulary, N documents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ourospec.contracts import Clock, Effort, Output
from ourospec.device import DevicePolicy
from ourospec.errors import DataError
from ourospec.measure.cost import CostedModel, FlopTable

# Elements of logits held at a time: 16 Mi in float32 are 64 MiB.
LOGIT_ELEMENTS = 1 << 24
# Chunks sorted by length together, in batches: enough that rows of a batch are nearly of one length.
SORTED_BATCHES = 16
# Positions per forward pass of an evaluation during training.
PROBE_POSITIONS = 4096
IGNORED = -100


class ScoredDocument(Protocol):
    """What scoring needs of a document; see data/shards.py."""

    @property
    def tokens(self) -> np.ndarray: ...

    @property
    def num_bytes(self) -> int: ...


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


@dataclass(frozen=True)
class Likelihood:
    """Sums by document. A document's end is one of its tokens and none of its bytes."""

    nats: np.ndarray
    """[N] float64, −ln p of all targets."""
    tokens: np.ndarray
    """[N] int64, targets."""
    bytes: np.ndarray
    """[N] int64, exact bytes of the raw text."""
    passes: np.ndarray
    """[N, L] int64, passes run over the positions that predicted a target."""
    flops: np.ndarray
    """[N] float64, forward FLOPs of the passes that were run for those positions."""

    def summary(self) -> dict[str, Any]:
        """The figures, each ratio with its standard error over documents under `<name>_se`.

        loss is in nats per token; bits_per_byte compares models whatever their tokenizers; mean_passes is per
        token and layer; flops_per_token is of the forward pass. An error that cannot be had (one document)
        is NaN.
        """
        layers = self.passes.shape[1]
        loss = ratio(self.nats, self.tokens)
        perplexity = math.exp(loss.value) if loss.value < 700 else math.inf
        bits = ratio(self.nats / math.log(2), self.bytes)
        passes = ratio(self.passes.sum(1) / layers, self.tokens)
        flops = ratio(self.flops, self.tokens)
        return {
            "loss": loss.value,
            "loss_se": loss.error,
            "perplexity": perplexity,
            "perplexity_se": perplexity * loss.error,
            "bits_per_byte": bits.value,
            "bits_per_byte_se": bits.error,
            "mean_passes": passes.value,
            "mean_passes_se": passes.error,
            "passes_by_layer": (self.passes.sum(0) / self.tokens.sum()).tolist(),
            "flops_per_token": flops.value,
            "flops_per_token_se": flops.error,
            "documents": len(self.tokens),
            "tokens": int(self.tokens.sum()),
            "bytes": int(self.bytes.sum()),
        }


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
    scorer = _Scorer(model, policy, effort, end_id)
    tally = _Tally()
    chunks = _chunks(documents, end_id, window, tally)
    while group := list(islice(chunks, batch_rows * SORTED_BATCHES)):
        group.sort(key=lambda chunk: len(chunk.inputs))
        for start in range(0, len(group), batch_rows):
            tally.add(*scorer.score(group[start : start + batch_rows]))
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


class _Chunk(NamedTuple):
    document: int
    inputs: np.ndarray
    targets: np.ndarray


def _chunks(documents: Iterable[ScoredDocument], end_id: int, window: int, tally: _Tally) -> Iterator[_Chunk]:
    for number, document in enumerate(documents):
        tally.open(document.num_bytes)
        stream = np.concatenate(([end_id], document.tokens, [end_id])).astype(np.int64)
        for start in range(0, len(stream) - 1, window):
            end = min(start + window, len(stream) - 1)
            yield _Chunk(number, stream[start:end], stream[start + 1 : end + 1])


@dataclass
class _Scorer:
    """Runs batches of chunks through the model."""

    model: CostedModel
    policy: DevicePolicy
    effort: Effort | None
    end_id: int

    def __post_init__(self) -> None:
        self.flops = FlopTable(self.model)

    def score(self, chunks: list[_Chunk]) -> tuple[list[_Chunk], np.ndarray, np.ndarray, np.ndarray]:
        """Nats [B], passes [B, L] and FLOPs [B] of each chunk."""
        longest = max(len(chunk.inputs) for chunk in chunks)
        inputs = torch.full((len(chunks), longest), self.end_id)
        targets = torch.full_like(inputs, IGNORED)
        for row, chunk in enumerate(chunks):
            inputs[row, : len(chunk.inputs)] = torch.from_numpy(chunk.inputs)
            targets[row, : len(chunk.targets)] = torch.from_numpy(chunk.targets)
        with self.policy.inference(self.model):
            output: Output = self.model(inputs.to(self.policy.device), effort=self.effort)
            # Single values are exact in float32; every sum is taken in float64, which not all devices have.
            nats = self._nats(output.states, targets.to(self.policy.device)).cpu().double()
        passes = output.passes.cpu()
        scored = targets != IGNORED
        flops = (self.flops.of(passes) * scored).sum(1)
        return chunks, nats.sum(1).numpy(), (passes * scored).sum(2).T.numpy(), flops.numpy()

    def _nats(self, states: Tensor, targets: Tensor) -> Tensor:
        """−ln p of each target [B, T], 0 where there is none, a few rows of logits at a time."""
        flat, wanted = states.flatten(0, 1), targets.flatten()
        vocabulary = self.model.logits(flat[:1]).shape[-1]
        size = max(1, LOGIT_ELEMENTS // vocabulary)
        parts = [
            F.cross_entropy(self.model.logits(rows), target, reduction="none", ignore_index=IGNORED)
            for rows, target in zip(flat.split(size), wanted.split(size), strict=True)
        ]
        return torch.cat(parts).view(targets.shape)


class _Tally:
    """Adds chunks up by document."""

    def __init__(self) -> None:
        self.bytes: list[int] = []
        self.nats: list[float] = []
        self.tokens: list[int] = []
        self.flops: list[float] = []
        self.passes: list[np.ndarray | int] = []

    def open(self, num_bytes: int) -> None:
        """A further document begins."""
        self.bytes.append(num_bytes)
        for sums in (self.nats, self.tokens, self.flops, self.passes):
            sums.append(0)

    def add(self, chunks: list[_Chunk], nats: np.ndarray, passes: np.ndarray, flops: np.ndarray) -> None:
        """Take in the sums of some chunks."""
        for row, chunk in enumerate(chunks):
            self.nats[chunk.document] += float(nats[row])
            self.tokens[chunk.document] += len(chunk.targets)
            self.flops[chunk.document] += float(flops[row])
            self.passes[chunk.document] = self.passes[chunk.document] + passes[row]

    def result(self) -> Likelihood:
        """The sums, or an error when there is nothing to speak of."""
        if not self.bytes:
            raise DataError(
                "There are no documents to score.", "Name a file or folder that holds text, with --data PATH."
            )
        return Likelihood(
            nats=np.array(self.nats, dtype=np.float64),
            tokens=np.array(self.tokens, dtype=np.int64),
            bytes=np.array(self.bytes, dtype=np.int64),
            passes=np.array(self.passes, dtype=np.int64),
            flops=np.array(self.flops, dtype=np.float64),
        )
