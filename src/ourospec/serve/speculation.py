"""Self-speculation: the model drafts tokens with few passes, and verifies them all in one forward at its full depth.

Nothing about the text changes. Greedy, it is that of plain decoding, token by token, up to what rounding does where two
tokens are as likely as each other; drawn, it has the same distribution, though the same seed draws another text of it.
The verification starts from the cache as it was before the draft, so that no key or value of a draft is ever seen.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from torch import Tensor

from ourospec.contracts import Effort
from ourospec.serve.acceptance import Costs, DraftLength, judge
from ourospec.serve.sampling import distribution, draw
from ourospec.serve.session import DecodingSession, Reading
from ourospec.serve.source import Chosen, Draw

ONE_PASS = Effort(forced_passes=1)
"""As cheap as a layer can be: one pass, and no gate is asked."""


FIXED, FIRST_DRAFT = 0.2, 0.5
"""Of a position's cost, the share that no pass changes (head, embedding, the call); and a draft's cost, in units of a
token of full passes, before any was run. On one core, adaptive_lm/small and tiny took 0.46 of three passes for one."""
BY_MODEL = Costs(FIRST_DRAFT, verification=1.0, further=0.08)
"""Verifying by a forward pass of the model where single positions are its own, too: there, nine took 1.5 to 1.65 times
as long as one."""
BESIDE_STEPPER = Costs(FIRST_DRAFT, verification=3.5, further=0.4)
"""The same beside a compiled step, which takes single positions only and is 3.5 times as fast: drafts do not pay."""


class Speculation(NamedTuple):
    """What drafting came to in one text."""

    drafted: int
    """Tokens drafted."""
    kept: int
    """Of these, those that the verification let stay."""
    verifications: int
    """Forward passes at full depth that judged at least one draft."""
    plain: int
    """Tokens decoded without a draft: there was no room for one, or none would have paid."""

    @property
    def acceptance(self) -> float:
        """Share of the drafts that stayed; NaN where there were none."""
        return self.kept / self.drafted if self.drafted else float("nan")

    @property
    def mean_draft(self) -> float:
        """Tokens in a draft; NaN where there were none."""
        return self.drafted / self.verifications if self.verifications else float("nan")

    @property
    def tokens_per_verification(self) -> float:
        """The drafts that stayed and the token that each verification adds; NaN where there were none."""
        return 1 + self.kept / self.verifications if self.verifications else float("nan")


class Speculative:
    """A serve.source.TokenSource that drafts and verifies.

    The passes that it tells of are those of the verification: as many as plain decoding runs.

    Args:
        session: has read the prompt; its effort is that of the verification, and stays as it is.
        reading: what it said behind it.
        effort: of the drafts.
    """

    def __init__(
        self, session: DecodingSession, reading: Reading, draw: Draw, effort: Effort = ONE_PASS
    ) -> None:
        self.session, self.draw, self.effort = session, draw, effort
        self.length = DraftLength()
        self._ready = deque([draw.choose(reading)])
        self._last, self._given = -1, 0
        self._drafted = self._kept = self._verifications = self._plain = 0
        self._draft_passes = self._full_passes = self._judged = 0

    @property
    def receipt(self) -> Speculation:
        """Up to here."""
        return Speculation(self._drafted, self._kept, self._verifications, self._plain)

    @property
    def costs(self) -> Costs:
        """By passes: a draft's share of those that the model wants."""
        costs = BY_MODEL if self.session.engine.stepper is None else BESIDE_STEPPER
        if not self._drafted or not self._judged:
            return costs
        share = (self._draft_passes / self._drafted) / (self._full_passes / self._judged)
        return costs._replace(draft=FIXED + (1 - FIXED) * share)

    def __next__(self) -> Chosen:
        if not self._ready:
            self._advance()
        chosen = self._ready.popleft()
        self._last, self._given = chosen.token, self._given + 1
        return chosen

    def _advance(self) -> None:
        """Have at least one token ready."""
        session = self.session
        # The last token that is asked for need not be drafted. And no draft may make the text slide or the cache grow:
        # what is read anew for that would be read with the draft's few passes.
        room = min(session.room, session.capacity - len(session.window), self.draw.most - self._given) - 1
        number = self.length.choose(self.costs, room)
        if number == 0:
            self._plain += 1
            self.length.hear(0, 0)
            self._ready.append(self.draw.choose(session.feed([self._last])))
            return
        before = len(session.window)
        drafts, guesses = self._draft(number)
        session.rewind(before)
        readings = session.read([self._last, *drafts])
        targets = [self._distribution(reading) for reading in readings]
        chosen = judge(drafts, guesses, targets, self.draw.generator)
        # The token that the verification adds is read with the next draft.
        session.rewind(before + len(chosen))
        self._take_down(readings, len(drafts), len(chosen) - 1)
        self._ready.extend(Chosen(*pair) for pair in zip(chosen, (r.passes for r in readings), strict=False))

    def _draft(self, number: int) -> tuple[list[int], list[Tensor]]:
        """So many tokens, and the distributions that they were drawn from."""
        tokens, guesses = [self._last], []
        for _ in range(number):
            (reading,) = self.session.read(tokens[-1:], self.effort)
            self._draft_passes += sum(reading.passes)
            guesses.append(self._distribution(reading))
            tokens.append(draw(guesses[-1], self.draw.generator))
        return tokens[1:], guesses

    def _distribution(self, reading: Reading) -> Tensor:
        return distribution(reading.logits[: self.draw.vocab_size], self.draw.sampling)

    def _take_down(self, readings: list[Reading], drafted: int, kept: int) -> None:
        self.length.hear(drafted, kept)
        self._drafted += drafted
        self._kept += kept
        self._verifications += 1
        self._full_passes += sum(sum(reading.passes) for reading in readings)
        self._judged += len(readings)
