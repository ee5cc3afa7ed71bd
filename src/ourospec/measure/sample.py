"""A seeded sample of a corpus: whole documents, and of very long ones a piece from anywhere in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ourospec.measure.tokens import ScoredDocument

# A document may fill this share of the sample; of a longer one a piece is taken.
LONGEST_SHARE = 1 / 8
# The sample is full when it lacks less than this share.
CLOSE_ENOUGH = 0.02


class Corpus(Protocol):
    """What sampling needs of one side of the split; see data/shards.py."""

    @property
    def num_documents(self) -> int: ...

    def document(self, number: int) -> ScoredDocument: ...


@dataclass(frozen=True)
class Excerpt:
    """A document, or a piece of one."""

    tokens: np.ndarray
    num_bytes: int


def sample_documents(
    corpus: Corpus, byte_lengths: np.ndarray, most_tokens: int, seed: int = 0
) -> list[ScoredDocument]:
    """Documents in random order until about `most_tokens` targets are there; the same seed draws the same ones.

    Args:
        byte_lengths: [V], bytes of text that each token stands for: a piece's bytes are added up from them.
        most_tokens: targets in all, at least 1; never exceeded but by a first document of a single token.
    """
    generator = np.random.Generator(np.random.Philox(key=seed))
    longest = max(1, int(most_tokens * LONGEST_SHARE))
    chosen: list[ScoredDocument] = []
    left = most_tokens
    for number in generator.permutation(corpus.num_documents).tolist():
        document = corpus.document(number)
        if len(document.tokens) > longest:
            start = int(generator.integers(len(document.tokens) - longest + 1))
            tokens = document.tokens[start : start + longest]
            document = Excerpt(tokens, int(byte_lengths[tokens].sum()))
        length = len(document.tokens) + 1
        if length <= left or not chosen:
            chosen.append(document)
            left -= length
        if left <= CLOSE_ENOUGH * most_tokens:
            break
    return chosen
