"""From logits to the next token. Letters: V vocabulary."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from ourospec.config import Config
from ourospec.errors import DivergedError


class Sampling(Config):
    """How the next token is drawn. The filters apply in the order of the fields and may be combined."""

    temperature: Annotated[float, Field(ge=0)] = 0.8
    """Divides the logits: below 1 favours likely tokens, 0 always takes the likeliest one."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Keep only so many of the likeliest tokens; 0: all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Keep the likeliest tokens until their probabilities reach this sum, the one that reaches it included
    (nucleus sampling, arXiv 1904.09751); 1: all."""
    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Keep only tokens at least this share as likely as the likeliest one (arXiv 2407.01082); 0: all."""


FIRST_LOOK = 64
"""Tokens that are ranked first when a nucleus is looked for."""

GREEDY = Sampling(temperature=0.0, top_p=1.0)
"""The likeliest token, always."""


def distribution(logits: Float[Tensor, " V"], sampling: Sampling) -> Float[Tensor, " V"]:
    """The probabilities that a token is drawn with, in float64 on the CPU.

    Tokens of equal probability rank by their number, the lower one first.

    Raises:
        DivergedError: the logits hold NaN or +inf, or are −inf everywhere.
    """
    wide = logits.detach().to("cpu", torch.float64)
    _refuse_damaged(wide)
    if sampling.temperature == 0:
        chosen = torch.zeros_like(wide)
        chosen[wide.argmax()] = 1.0
        return chosen
    # Less the maximum first: dividing by a tiny temperature must not overflow.
    probabilities = ((wide - wide.max()) / sampling.temperature).softmax(-1)
    if sampling.top_k or sampling.top_p < 1:
        probabilities = _keep_likeliest(probabilities, sampling.top_k or len(wide), sampling.top_p)
    if sampling.min_p:
        floor = sampling.min_p * probabilities.max()
        probabilities = probabilities.masked_fill(probabilities < floor, 0.0)
    return probabilities / probabilities.sum()


def _refuse_damaged(logits: Tensor) -> None:
    if not math.isfinite(float(logits.max())):  # NaN is the maximum of anything that holds it
        raise DivergedError(
            "The model's predictions are not finite numbers, so no token can be drawn from them.",
            "Its weights are damaged or its training diverged; go back to an earlier checkpoint.",
        )


def _keep_likeliest(probabilities: Tensor, count: int, mass: float) -> Tensor:
    """Zero all but the likeliest `count`, and of those all but the nucleus of the given mass."""
    count = min(count, len(probabilities))
    total = probabilities.sum() if count == len(probabilities) else probabilities.topk(count).values.sum()
    width = min(FIRST_LOOK, count)
    while True:
        # As many as are likely to be needed are ranked, with all that equal the last of them; sorting a vocabulary
        # would cost more than the step that made it.
        least = probabilities.topk(width).values[-1]
        candidates = (probabilities >= least).nonzero()[:, 0]
        ranked, order = probabilities[candidates].sort(descending=True, stable=True)
        reached = ranked.cumsum(0) / total
        if width == count or float(reached[width - 1]) >= mass:
            break
        width = min(8 * width, count)
    ranked, order, reached = ranked[:count] / total, candidates[order[:count]], reached[:count]
    if mass < 1:
        # A token is in the nucleus when those ranked before it have not reached the mass yet.
        before = reached.roll(1)
        before[0] = 0.0
        ranked = ranked.masked_fill(before >= mass, 0.0)
    return torch.zeros_like(probabilities).scatter(0, order, ranked)


def choose(logits: Float[Tensor, " V"], sampling: Sampling, generator: torch.Generator) -> int:
    """Draw the next token, with one number of the generator (none when the temperature is 0).

    The draw inverts the cumulative distribution, so the same seed gives the same token wherever the logits
    come from, as long as they agree.

    Args:
        generator: a CPU generator; the global one is not touched.
    """
    if sampling.temperature == 0:
        # As by `distribution`, which would write out zeros for all the others.
        _refuse_damaged(logits)
        return int(logits.argmax())
    return draw(distribution(logits, sampling), generator)


def draw(probabilities: Float[Tensor, " V"], generator: torch.Generator) -> int:
    """A token, by one number of the generator: the inverse of the cumulative distribution.

    Args:
        probabilities: float64 on the CPU, at least one above 0; they need not add up to 1.
    """
    cumulative = probabilities.cumsum(0)
    # In float64 the largest draw, 1 − 2⁻⁵³, times the total stays below the total: the point is always inside.
    point = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
    return int(torch.searchsorted(cumulative, point, right=True))
