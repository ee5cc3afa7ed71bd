"""Which drafted tokens may stay, so that the text is distributed as if nobody had drafted, and how many to draft.

Letters: V vocabulary, n drafted tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ourospec.serve.sampling import draw

LONGEST_DRAFT = 8
"""Drafted tokens before a verification, at most."""
BELIEVED_KEPT, BELIEVED_REFUSED = 4.0, 1.0
"""Drafts that are taken for kept and for refused before any was judged."""
MEMORY = 0.9
"""What a verification leaves of the weight of those before it: some ten count."""
PATIENCE = 16
"""Tokens chosen without a draft, where drafting does not pay, before one is tried again."""


def judge(
    drafts: Sequence[int],
    guesses: Sequence[Float[Tensor, " V"]],
    targets: Sequence[Float[Tensor, " V"]],
    generator: torch.Generator,
) -> list[int]:
    """The drafts that may stay, from the first on, and one token more: 1 to n + 1 tokens.

    A draft x from q stays with probability min(1, p(x)/q(x)); where one is refused, a token is drawn in its place from
    max(p − q, 0), normalised, and the rest is forgotten. If all stay, one more is drawn from the p behind them. Each
    token is then distributed by its p, whatever q is (Leviathan et al. 2023, arXiv 2211.17192, appendix A.1). With
    one-hot p, as at temperature 0, a draft stays exactly if it is what p says.

    Args:
        drafts: n tokens, each drawn from its guess.
        guesses: n distributions q, float64 on the CPU.
        targets: n + 1 distributions p: of each draft's place, given the drafts before it, and of the place behind.
        generator: a CPU generator; a certain decision takes no number of it.
    """
    chosen: list[int] = []
    for token, q, p in zip(drafts, guesses, targets, strict=False):
        if not _stays(float(p[token]), float(q[token]), generator):
            return [*chosen, _draw(left_over(p, q), generator)]
        chosen.append(token)
    return [*chosen, _draw(targets[len(drafts)], generator)]


def left_over(p: Float[Tensor, " V"], q: Float[Tensor, " V"]) -> Float[Tensor, " V"]:
    """max(p − q, 0), not normalised: what drafts from q, kept as far as p allows, leave of p.

    Where rounding leaves nothing, p and q are equal but for that, and it is p.
    """
    rest = (p - q).clamp(min=0)
    return rest if bool(rest.sum() > 0) else p


def _stays(p: float, q: float, generator: torch.Generator) -> bool:
    if p >= q or p == 0.0:
        return p >= q
    return float(torch.rand((), generator=generator, dtype=torch.float64)) * q < p


def _draw(probabilities: Tensor, generator: torch.Generator) -> int:
    """As `draw`, but where one token has all the probability no number is taken."""
    likeliest = int(probabilities.argmax())
    if float(probabilities[likeliest]) == float(probabilities.sum()):
        return likeliest
    return draw(probabilities, generator)


class Costs(NamedTuple):
    """What drafting costs, in units of decoding one position without drafts."""

    draft: float
    """One drafted token."""
    verification: float = 1.0
    """Verifying one position, in a forward pass that could take more."""
    further: float = 0.0
    """Each further position of that forward pass."""


class DraftLength:
    """How many tokens to draft: as many as give most tokens for what they cost, going by the share that stayed so far.

    With n drafts, each of which stays with probability a, a verification gives 1 + a + … + aⁿ tokens on average
    (arXiv 2211.17192, equation 1). Costs are told and not timed: the same seed gives the same text however busy the
    machine is.
    """

    def __init__(self, longest: int = LONGEST_DRAFT) -> None:
        self.longest = longest
        self._kept, self._refused = BELIEVED_KEPT, BELIEVED_REFUSED
        self._idle = 0

    @property
    def acceptance(self) -> float:
        """The estimate of a."""
        return self._kept / (self._kept + self._refused)

    def choose(self, costs: Costs, room: int) -> int:
        """How many to draft now, 0 to `room`; 0 where plain decoding gives as many tokens for its cost."""
        longest = min(self.longest, room)
        best = _best(self.acceptance, costs, longest)
        # Where even drafts that all stay would not pay there is nothing to try.
        if best == 0 and self._idle >= PATIENCE and _best(1.0, costs, longest) > 0:
            return 1
        return best

    def hear(self, drafted: int, kept: int) -> None:
        """How a verification ended."""
        if drafted == 0:
            self._idle += 1
            return
        self._idle = 0
        refused = min(1, drafted - kept)
        # The belief of the beginning fades like everything else.
        self._kept = MEMORY * self._kept + kept
        self._refused = MEMORY * self._refused + refused


def _best(acceptance: float, costs: Costs, longest: int) -> int:
    """The number of drafts that gives most tokens for its cost."""
    best, most = 0, 1.0
    for n in range(1, longest + 1):
        tokens = sum(acceptance**i for i in range(n + 1))
        rate = tokens / (costs.verification + n * (costs.draft + costs.further))
        if rate > most:
            best, most = n, rate
    return best
