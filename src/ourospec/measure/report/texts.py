"""Generated texts as HTML, each token on the colour of its passes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ourospec.measure.report.history import Moment
from ourospec.measure.report.markup import safe
from ourospec.measure.report.ramp import COLOURS, ramp_index

ROUNDS = 24
"""Rounds of samples shown at most, the first and the last among them."""


@dataclass(frozen=True)
class Scale:
    """From how many passes to how many the colours go: the least and the most of all tokens on the page."""

    low: float
    high: float

    @property
    def flat(self) -> bool:
        """No two tokens differ, so there is nothing to colour."""
        return self.high - self.low < 1e-6

    def colour(self, passes: float) -> int:
        """Number of the colour."""
        return ramp_index((passes - self.low) / (self.high - self.low))


def choose_rounds(samples: Sequence[Moment]) -> list[Moment]:
    """At most ROUNDS of them, evenly spread; of rounds at the same step (a resumed run has two) the later."""
    latest = list({moment.step: moment for moment in samples if moment.data.get("samples")}.values())
    if len(latest) <= ROUNDS:
        return latest
    last = len(latest) - 1
    return [latest[round(index * last / (ROUNDS - 1))] for index in range(ROUNDS)]


def scale_of(rounds: Sequence[Moment]) -> Scale:
    """The scale on which all rounds can be compared."""
    passes = [p for moment in rounds for sample in moment.data["samples"] for p in sample.get("passes") or ()]
    return Scale(min(passes, default=1.0), max(passes, default=1.0))


def render_legend(scale: Scale) -> str:
    """The colours with their numbers."""
    if scale.flat:
        return f'<p class="legend">every token took {scale.low:.2f} passes</p>' if scale.low > 1 else ""
    swatches = "".join(f'<i class="r{index}"></i>' for index in range(COLOURS))
    return (
        '<p class="legend"><span>passes a token took, mean over layers</span>'
        f"<b>{scale.low:.2f}</b><span class='swatches'>{swatches}</span><b>{scale.high:.2f}</b></p>"
    )


def render_round(moment: Moment, scale: Scale) -> str:
    """The samples of one round, a card each."""
    return "".join(
        f'<article class="text">{"".join(_card(sample, scale))}</article>'
        for sample in moment.data["samples"]
    )


def _card(sample: Mapping[str, Any], scale: Scale) -> Iterator[str]:
    prompt, passes = sample.get("prompt", ""), sample.get("passes") or []
    yield "<header>"
    yield f"<span>prompt <code>{safe(prompt)}</code></span>" if prompt else "<span>no prompt</span>"
    if not scale.flat and passes:
        yield f"<span>{sum(passes) / len(passes):.2f} passes</span>"
    yield "</header><pre>"
    yield f'<span class="prompt">{safe(prompt)}</span>'
    pieces = sample.get("pieces")
    if scale.flat or not pieces or len(pieces) != len(passes):
        yield safe(sample.get("text", ""))
    else:
        for piece, number in zip(pieces, passes, strict=True):
            if piece:
                yield f'<span class="t r{scale.colour(number)}" data-p="{number:.2f}">{safe(piece)}</span>'
    yield "</pre>"
