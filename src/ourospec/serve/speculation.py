"""Self-speculation: the model drafts tokens with few passes, and verifies them all in one forward at its full depth.

Nothing about the text changes. Greedy, it is that of plain decoding, token by token, up to what rounding does where two
tokens are as likely as each other; drawn, it has the same distribution, though the same seed draws another text of it.
The verification starts from the cache as it was before the draft, so that no key or value of a draft is ever seen.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from torch import Tensor

from ourospec.contracts import Effort, Stepper, StepWeights
from ourospec.errors import ConfigError
from ourospec.serve.acceptance import Costs, DraftLength, judge
from ourospec.serve.sampling import distribution, draw
from ourospec.serve.session import DecodingSession, Reading
from ourospec.serve.source import Chosen, Draw

ONE_PASS = Effort(forced_passes=1)
"""As cheap as a layer can be: one pass, and no gate is asked."""


FIRST_SHARE = 0.5
"""Passes of a draft, as a share of a token's full passes, before any was run."""


class Pace(NamedTuple):
    """How the costs of drafting follow from passes; measured on one core with adaptive_lm/small and tiny."""

    fixed: float
    """Of a position's cost, the share that no pass after the first changes: reading the weights, the head, embedding,
    the call."""
    draft: float
    """A draft's cost in units of the same passes without drafting: less than 1 where another stepper drafts."""
    further: float
    """Each further position of a verification, in units of decoding one."""

    def costs(self, share: float) -> Costs:
        """Of drafts that run this share of the full passes."""
        return Costs(self.draft * (self.fixed + (1 - self.fixed) * share), 1.0, self.further)


BY_MODEL = Pace(0.2, 1.0, 0.08)
"""The model's own forward pass does everything: one pass took 0.46 of three, nine positions 1.5 to 1.65 of one."""
BY_STEPPER = Pace(0.55, 1.0, 0.35)
"""A compiled step does: one pass took 0.7 of three; five positions 2.6 times one."""
BY_TWO_STEPPERS = Pace(0.55, 0.32, 0.35)
"""The same, and one with weights in 8 bits drafts, at a third of the time."""


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
        drafter: a stepper that drafts, where the session has one; coarser weights will do. None: the session's own.
    """

    def __init__(
        self,
        session: DecodingSession,
        reading: Reading,
        draw: Draw,
        effort: Effort = ONE_PASS,
        drafter: Stepper | None = None,
    ) -> None:
        self.session, self.draw, self.effort, self.drafter = session, draw, effort, drafter
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
        with_drafter = BY_STEPPER if self.drafter is None else BY_TWO_STEPPERS
        pace = BY_MODEL if self.session.engine.stepper is None else with_drafter
        if not self._drafted or not self._judged:
            return pace.costs(FIRST_SHARE)
        return pace.costs((self._draft_passes / self._drafted) / (self._full_passes / self._judged))

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
            with self.session.engine.stepping_by(self.drafter):
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


def refuse_speculation(budget: bool, weights: StepWeights) -> None:
    """Raise ConfigError for what speculation cannot be combined with: it verifies several tokens by one model."""
    if budget:
        raise ConfigError(
            "Speculation verifies several tokens at one threshold; a budget moves the threshold after each.",
            "Leave --budget or --speculate out.",
        )
    if weights != "float32":
        raise ConfigError(
            f"Speculation verifies with the weights as they are, so that {weights} would only be what drafts.",
            "Leave --weights or --speculate out.",
        )
