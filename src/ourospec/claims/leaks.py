"""Leak tests: whether a model's figures could come from what it must not know.

In float64 on the CPU, where what is equal but for rounding is equal to many digits. Letters: B rows, T positions.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ourospec.contracts import Effort
from ourospec.errors import ConfigError
from ourospec.nn.compaction import execute

TOLERANCE = 1e-8
"""Greatest difference of logits that is rounding, relative to their spread."""
STEPS = 8
"""Positions that are read one by one with a cache, at most: half of a shorter text."""


@dataclass(frozen=True)
class Leak:
    """One test."""

    name: str
    held: bool
    difference: float
    """Greatest difference of logits, relative to their spread."""
    passes_differ: int
    """(layer, position) pairs whose passes differed."""
    note: str = ""
    """Why the test says nothing, where it could not be made."""


Reading = tuple[Tensor, Tensor]
"""Logits [B, T, V] and passes [L, B, T]."""


def leak_tests(model: Any, tokens: Tensor, effort: Effort | None) -> list[Leak]:
    """Test a language model on rows of text.

    Args:
        model: left as it is.
        tokens: [B, T] with B >= 2 and T >= 4, of real text, without padding.
        effort: how it thinks in the comparison.
    """
    exact = copy.deepcopy(model).cpu().double().eval()
    tests = {
        "a changed suffix leaves the prefix alone": _suffix,
        "batch-mates change nothing": _mates,
        "cached equals uncached": _cached,
        "compacted equals masked": _compacted,
    }
    with torch.no_grad():
        return [_judge(name, test, exact, tokens.cpu(), effort) for name, test in tests.items()]


def as_data(leaks: list[Leak]) -> list[dict[str, Any]]:
    """JSON-ready."""
    return [asdict(leak) for leak in leaks]


Test = Callable[[Any, Tensor, Effort | None], Iterator[tuple[Reading, Reading]]]


def _judge(name: str, test: Test, model: Any, tokens: Tensor, effort: Effort | None) -> Leak:
    worst, differing = 0.0, 0
    try:
        for (logits, passes), (wanted, wanted_passes) in test(model, tokens, effort):
            spread = float(wanted.std().clamp(min=1e-12))
            worst = max(worst, float((logits - wanted).abs().max()) / spread)
            differing += int((passes != wanted_passes).sum())
    except ConfigError as error:
        # A model that cannot be read that way at all, such as one whose keys change from pass to pass.
        return Leak(name, True, 0.0, 0, f"not made: {error.args[0]}")
    return Leak(name, worst <= TOLERANCE and not differing, worst, differing)


def _read(model: Any, tokens: Tensor, effort: Effort | None, cache: Any = None) -> Reading:
    output = model(tokens, cache=cache, effort=effort)
    return model.logits(output.states), output.passes


def _suffix(model: Any, tokens: Tensor, effort: Effort | None) -> Iterator[tuple[Reading, Reading]]:
    """Other tokens after some position, and nothing at all after it."""
    length = tokens.shape[1]
    logits, passes = _read(model, tokens, effort)
    vocabulary = logits.shape[-1]
    for at in sorted({1, length // 3, length // 2, length - 1}):
        wanted = logits[:, :at], passes[:, :, :at]
        changed = tokens.clone()
        changed[:, at:] = (changed[:, at:] + 1 + vocabulary // 3) % vocabulary
        after, ran = _read(model, changed, effort)
        yield (after[:, :at], ran[:, :, :at]), wanted
        yield _read(model, tokens[:, :at], effort), wanted


def _mates(model: Any, tokens: Tensor, effort: Effort | None) -> Iterator[tuple[Reading, Reading]]:
    """Each row alone, and all in another order."""
    logits, passes = _read(model, tokens, effort)
    for row in range(len(tokens)):
        yield _read(model, tokens[row : row + 1], effort), (logits[row : row + 1], passes[:, row : row + 1])
    turned, ran = _read(model, tokens.flip(0), effort)
    yield (turned.flip(0), ran.flip(1)), (logits, passes)


def _cached(model: Any, tokens: Tensor, effort: Effort | None) -> Iterator[tuple[Reading, Reading]]:
    """A long prefix at once, then position by position."""
    length = tokens.shape[1]
    logits, passes = _read(model, tokens, effort)
    cache, start = model.new_cache(len(tokens), length), length - min(STEPS, length // 2)
    yield _read(model, tokens[:, :start], effort, cache), (logits[:, :start], passes[:, :, :start])
    for at in range(start, length):
        one = slice(at, at + 1)
        yield _read(model, tokens[:, one], effort, cache), (logits[:, one], passes[:, :, one])


def _compacted(model: Any, tokens: Tensor, effort: Effort | None) -> Iterator[tuple[Reading, Reading]]:
    """Only the tokens that run a pass, against all of them and a mask."""
    with execute(model, "masked"):
        wanted = _read(model, tokens, effort)
    with execute(model, "compacted"):
        yield _read(model, tokens, effort), wanted
