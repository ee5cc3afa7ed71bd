"""How long decoding a token takes: one text at a time, with the cache, the draw of the token included."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from ourospec.contracts import Effort, LanguageModel, Stepper
from ourospec.device import DevicePolicy
from ourospec.serve.sampling import Sampling, choose
from ourospec.serve.session import DecodingSession

PROMPT = 64
"""Tokens read before the first that is timed, at most."""
TIMED = 48
"""Tokens timed in each text, at most."""
TEXTS = 7
"""Texts timed, at most: as many repeats."""


class DecodingPace(NamedTuple):
    """Of one effort."""

    ms: float
    """Milliseconds a token, median over the texts."""
    spread: float
    """Interquartile range over the texts, milliseconds; 0 for a single one."""
    repeats: int
    """Texts timed."""
    mean_passes: float
    """Executed per token and layer, over the tokens timed."""


class Document(Protocol):
    """What a text is taken from."""

    @property
    def tokens(self) -> np.ndarray: ...


def pick_texts(documents: Iterable[Document], end_id: int, max_length: int) -> list[list[int]]:
    """Beginnings of up to TEXTS documents, the end token in front: the longest, up to what is timed.

    Args:
        max_length: positions that the model reads at once; no text is longer.
    """
    length = min(PROMPT + TIMED, max_length)
    texts = [[end_id, *document.tokens[: length - 1].tolist()] for document in documents]
    longest = sorted(texts, key=len, reverse=True)[:TEXTS]
    return [text for text in longest if len(text) > 1] or [[end_id, end_id]]


def decoding_pace(
    model: LanguageModel,
    policy: DevicePolicy,
    texts: Sequence[Sequence[int]],
    efforts: Sequence[Effort | None],
    stepper: Stepper | None = None,
) -> list[DecodingPace]:
    """Time each effort on the same given texts, one repeat a text.

    The texts' own tokens are fed, not those drawn: every effort then reads the same. What else the machine does
    meanwhile falls on all efforts alike, since they take turns within a text. An untimed text goes before.

    Args:
        texts: tokens, at least two each; their first PROMPT, or half if they are shorter, are the prompt.
        stepper: with which to decode, see serve.session.Engine.
    """
    times: list[list[float]] = [[] for _ in efforts]
    passes: list[list[float]] = [[] for _ in efforts]
    for repeat, text in enumerate([texts[0], *texts]):
        for number, effort in enumerate(efforts):
            ms, mean = _time_text(model, policy, text, effort, stepper)
            if repeat > 0:
                times[number].append(ms)
                passes[number].append(mean)
    return [
        DecodingPace(statistics.median(ms), _spread(ms), len(ms), statistics.fmean(mean))
        for ms, mean in zip(times, passes, strict=True)
    ]


def _time_text(
    model: LanguageModel,
    policy: DevicePolicy,
    text: Sequence[int],
    effort: Effort | None,
    stepper: Stepper | None,
) -> tuple[float, float]:
    """Milliseconds a token, and mean passes."""
    split = min(PROMPT, len(text) // 2)
    timed = text[split : split + min(TIMED, len(text) - split)]
    session = DecodingSession(model, policy, split + len(timed), effort, stepper)
    generator, sampling = torch.Generator().manual_seed(0), Sampling()
    session.feed(text[:split])
    policy.synchronize()
    readings = []
    start = time.perf_counter()
    for token in timed:
        readings.append(session.feed([token]))
        choose(readings[-1].logits, sampling, generator)
    policy.synchronize()
    seconds = time.perf_counter() - start
    depth = statistics.fmean(statistics.fmean(reading.passes) for reading in readings)
    return 1000 * seconds / len(timed), depth


def _spread(times: list[float]) -> float:
    if len(times) < 2:
        return 0.0
    low, _, high = statistics.quantiles(times, n=4)
    return high - low
