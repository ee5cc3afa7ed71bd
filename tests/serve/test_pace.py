"""Decoding is timed on the texts that are given, with the passes that were asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ourospec.contracts import Effort
from ourospec.data.shards import Document
from ourospec.serve.pace import PROMPT, TEXTS, TIMED, decoding_pace, pick_texts

from .conftest import MAX_LENGTH, build

END = 256


def test_each_effort_is_timed_with_its_own_depth(policy: Any) -> None:
    model: Any = build("adaptive_lm")
    texts = [list(range(10 + 5 * i, 40 + 5 * i)) for i in range(3)]
    efforts = [Effort(forced_passes=1), None, Effort(threshold=0.0)]
    one, free, most = decoding_pace(model, policy, texts, efforts)
    assert one.mean_passes == 1
    assert 1 < free.mean_passes < 4
    assert most.mean_passes == 4
    for pace in (one, free, most):
        assert pace.repeats == len(texts)
        assert pace.ms > 0
        assert pace.spread >= 0


def test_a_single_text_has_no_spread(policy: Any) -> None:
    model: Any = build("dense_lm")
    (pace,) = decoding_pace(model, policy, [[1, 2, 3]], [None])
    assert (pace.repeats, pace.spread, pace.mean_passes) == (1, 0, 1)


@pytest.mark.parametrize("most", [MAX_LENGTH, 10_000])
def test_texts_are_the_longest_documents_begun(most: int) -> None:
    documents = [Document(np.arange(length) % 256, length) for length in (3, 900, 0, 40, *range(50, 70))]
    texts = pick_texts(documents, END, most)
    assert len(texts) == TEXTS
    assert all(text[0] == END for text in texts)
    assert len(texts[0]) == min(most, PROMPT + TIMED)
    assert all(len(text) >= 40 for text in texts)


def test_there_is_always_something_to_decode() -> None:
    assert all(len(text) > 1 for text in pick_texts([Document(np.arange(0), 0)], END, 48))
