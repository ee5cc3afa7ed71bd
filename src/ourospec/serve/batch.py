"""Several texts decoded together, one position of each at a time.

Each prompt is read alone, so that nothing of the other texts is in it; then the caches are put side by side. A token
that halts leaves its layer at once, whatever the other rows do, and a text that ends leaves the batch at once.

Letters: B texts that are still being written.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from ourospec.contracts import Effort, LanguageModel
from ourospec.device import DevicePolicy
from ourospec.serve.budget import Allowance, Governor, open_governor
from ourospec.serve.generation import Generation, Vocabulary, Writer, refuse_nonsense
from ourospec.serve.receipt import Clocked, Machinery, Receipt, mean_passes, write_receipt
from ourospec.serve.sampling import Sampling
from ourospec.serve.session import DecodingSession, Reading
from ourospec.serve.source import Chosen, Draw
from ourospec.serve.text import TextStream


class Batch:
    """Sessions that go on together, on a cache of their own; those of before it are used up.

    Args:
        sessions: of one engine and capacity; each has read something.
    """

    def __init__(self, sessions: Sequence[DecodingSession]) -> None:
        self.sessions = list(sessions)
        self._engine = sessions[0].engine
        self._cache: Any = _join([session.cache for session in sessions])

    def keep(self, rows: Sequence[int]) -> None:
        """Let all other texts go; at least one stays."""
        if len(rows) < len(self.sessions):
            self._cache.keep(rows)
            self.sessions = [self.sessions[row] for row in rows]

    def feed(self, tokens: Sequence[int], effort: Effort | None) -> list[Reading]:
        """Read one token of each text, and say what comes next in each."""
        full = [row for row, session in enumerate(self.sessions) if len(session.window) == session.capacity]
        if not full:
            return self._step(self.sessions, tokens, effort)
        return self._slide(full, tokens, effort)

    def _step(
        self, sessions: Sequence[DecodingSession], tokens: Sequence[int], effort: Effort | None
    ) -> list[Reading]:
        answer = self._engine.read([[token] for token in tokens], self._cache, effort)
        for row, (session, token) in enumerate(zip(sessions, tokens, strict=True)):
            session.took_in([token], answer.work(row, len(session.window)))
        passes = answer.passes[:, :, -1].T.tolist()
        return [
            Reading(logits, tuple(layers))
            for logits, layers in zip(answer.logits[:, -1], passes, strict=True)
        ]

    def _slide(self, full: list[int], tokens: Sequence[int], effort: Effort | None) -> list[Reading]:
        """Texts that fill the cache read their last half again, each alone, and come back to the others."""
        rest = [row for row in range(len(self.sessions)) if row not in full]
        readings: list[Reading] = []
        caches: list[Any] = []
        if rest:
            self._cache.keep(rest)
            readings = self._step([self.sessions[row] for row in rest], [tokens[row] for row in rest], effort)
            caches.append(self._cache)
        for row in full:
            session = self.sessions[row]
            session.effort = effort
            readings.append(session.feed([tokens[row]]))
            caches.append(session.cache)
        self._cache = _join(caches)
        order = [*rest, *full]
        back = sorted(range(len(order)), key=order.__getitem__)
        self._cache.keep(back)
        return [readings[row] for row in back]


def _join(caches: Sequence[Any]) -> Any:
    return type(caches[0]).join(caches)


class _Row:
    """One text in the making."""

    def __init__(self, session: DecodingSession, draw: Draw, writer: Writer, start: list[int]) -> None:
        self.session, self.draw, self.writer = session, draw, writer
        begun = time.perf_counter()
        self.reading = session.feed(start)
        session.engine.policy.synchronize()
        self.prompt_tokens, self.prompt_seconds = len(start), time.perf_counter() - begun
        self.seconds = 0.0
        """From when all prompts were read to the end of this text."""
        self.last = -1

    def write(self) -> Chosen:
        """Choose the next token and take it."""
        chosen = self.draw.choose(self.reading)
        self.last = chosen.token
        self.writer.take(chosen)
        return chosen

    def receipt(self, machinery: Machinery, governor: Governor | None) -> Receipt:
        """Of this text."""
        clocked = Clocked(self.prompt_tokens, self.prompt_seconds, self.seconds, self.writer.chosen)
        return write_receipt(clocked, self.writer.passes, self.session.work, machinery, governor)


def generate_batch(
    model: LanguageModel,
    tokenizer: Vocabulary,
    prompts: Sequence[str],
    *,
    policy: DevicePolicy,
    max_new_tokens: int = 256,
    sampling: Sampling | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    effort: Effort | None = None,
    allowance: Allowance | None = None,
    machinery: Machinery | None = None,
) -> list[Generation]:
    """Continue several prompts together, each at the start of a document of its own.

    Text i is what generation.generate makes of its prompt with the seed `seed + i`, up to rounding: rows of one batch
    take other matrix kernels than a row alone. See there for the arguments.

    Args:
        allowance: a budget that the mean over all texts keeps: they share one threshold.
        machinery: its source is not asked; here each token follows the one before.

    Raises:
        ConfigError: as generation.generate.
        DivergedError: the model's predictions are not finite.
    """
    refuse_nonsense(max_new_tokens, seed)
    machinery = machinery or Machinery()
    if not prompts:
        return []
    governor = open_governor(model, policy, allowance, tokenizer.end_id)
    effort = effort if governor is None else governor.effort
    starts = [[tokenizer.end_id, *tokenizer.encode(prompt)] for prompt in prompts]
    capacity = min(model.max_length, max(map(len, starts)) + max_new_tokens - 1)
    rows = []
    for number, start in enumerate(starts):
        generator = torch.Generator().manual_seed((seed + number) % (1 << 63))
        draw = Draw(sampling or Sampling(), generator, tokenizer.vocab_size, max_new_tokens)
        session = DecodingSession(model, policy, capacity, effort, machinery.stepper)
        writer = Writer(TextStream(stop), tokenizer, max_new_tokens)
        rows.append(_Row(session, draw, writer, start))
    _write(rows, effort, governor)
    receipts = [row.receipt(machinery, governor) for row in rows]
    kept = _kept(rows, governor)
    return [
        row.writer.generation(replace(receipt, kept=kept))
        for row, receipt in zip(rows, receipts, strict=True)
    ]


def _kept(rows: Sequence[_Row], governor: Governor | None) -> float | None:
    """What the budget came to over all texts, in its unit."""
    if governor is None:
        return None
    if governor.allowance.unit == "passes":
        return mean_passes([layers for row in rows for layers in row.writer.passes])
    # What chose the first tokens was read with the prompts.
    decoded = sum(row.writer.chosen - 1 for row in rows)
    return 1000 * max(row.seconds for row in rows) / decoded if decoded else None


def _write(rows: Sequence[_Row], effort: Effort | None, governor: Governor | None) -> None:
    """Decode all rows to their ends."""
    batch, alive = Batch([row.session for row in rows]), list(rows)
    begun = last = time.perf_counter()
    first = True
    while True:
        chosen = [row.write() for row in alive]
        now = time.perf_counter()
        if governor is not None:
            _govern(governor, chosen, None if first else 1000 * (now - last) / len(alive), len(rows))
            effort = governor.effort
        first, last = False, now
        for row in alive:
            if row.writer.finish is not None:
                row.seconds = now - begun
        stay = [index for index, row in enumerate(alive) if row.writer.finish is None]
        if not stay:
            return
        batch.keep(stay)
        alive = [alive[index] for index in stay]
        readings = batch.feed([row.last for row in alive], effort)
        for row, reading in zip(alive, readings, strict=True):
            row.reading = reading


def _govern(governor: Governor, chosen: Sequence[Chosen], ms: float | None, texts: int) -> None:
    """Tell of a step; ms by token, None where no step was timed."""
    share = len(chosen) / texts
    if governor.allowance.unit == "passes":
        governor.hear(statistics.fmean(statistics.fmean(one.passes) for one in chosen), share)
    elif ms is not None:
        governor.hear(ms, share)
