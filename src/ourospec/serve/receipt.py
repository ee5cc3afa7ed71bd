"""What a text cost, and what was kept of its budget. Letters: L layers, n generated tokens."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from ourospec.contracts import Stepper, StepWeights
from ourospec.nn.cost import FlopTable
from ourospec.serve.budget import Governor, Unit
from ourospec.serve.session import Work
from ourospec.serve.source import Plain, SourceMaker
from ourospec.serve.speculation import Speculation


class Machinery(NamedTuple):
    """With what a text is decoded: nothing of it changes the text's meaning."""

    stepper: Stepper | None = None
    """Made of the model's weights, see serve.session.Engine."""
    weights: StepWeights = "float32"
    """In what the stepper keeps the weights."""
    table: FlopTable | None = None
    """By which the receipt counts FLOPs; None leaves them out."""
    open_source: SourceMaker = Plain
    """What gives the tokens."""


@dataclass(frozen=True)
class Receipt:
    """Measured while the text was made; None where there is nothing to say."""

    passes: float | None
    """Executed per token and layer, mean over the tokens of the text."""
    flops: float | None
    """Forward FLOPs executed, those of the prompt and of drafts included."""
    prompt_tokens: int
    """Read before the first token was chosen, the end token in front included."""
    prompt_seconds: float
    """Wall time of that."""
    seconds: float
    """Wall time from then to the end of the text; in a batch, shared with the other texts."""
    ms_per_token: float | None
    """Of decoding: those seconds by the forward passes' worth of tokens that followed the prompt."""
    budget: float | None
    """What was asked for, in its unit."""
    unit: Unit | None
    """passes or ms."""
    kept: float | None
    """What it came to, in the budget's unit; in a batch, over all its texts."""
    thresholds: tuple[float, float] | None
    """With which the budget's loop began and ended."""
    weights: StepWeights
    """In what the weights were read while decoding."""
    stepped: float
    """Share of the forward passes after the prompt that the compiled step did, 0 to 1."""

    speculation: Speculation | None = None
    """What drafting came to, where there was any."""

    def as_data(self) -> dict[str, Any]:
        """JSON-ready."""
        drafts = self.speculation
        if drafts is None:
            return asdict(self)
        shares = {
            name: getattr(drafts, name) for name in ("acceptance", "mean_draft", "tokens_per_verification")
        }
        return asdict(self) | {"speculation": drafts._asdict() | shares}


@dataclass(frozen=True)
class Clocked:
    """How long a text took, and how much of it was read and written."""

    prompt_tokens: int
    prompt_seconds: float
    seconds: float
    chosen: int
    """Tokens, the end token included."""


def write_receipt(
    clocked: Clocked,
    passes: Sequence[Sequence[int]],
    work: Sequence[Work],
    machinery: Machinery,
    governor: Governor | None = None,
    speculation: Speculation | None = None,
) -> Receipt:
    """Draw up the receipt of a text.

    Args:
        passes: [n][L], at the positions that chose the tokens of the text.
        work: all forward passes, the prompt's first.
    """
    mean = mean_passes(passes)
    # What chose the first token was read with the prompt.
    ms = 1000 * clocked.seconds / (clocked.chosen - 1) if clocked.chosen > 1 else None
    allowance = governor.allowance if governor is not None else None
    return Receipt(
        passes=mean,
        flops=_flops(machinery.table, work) if machinery.table is not None else None,
        prompt_tokens=clocked.prompt_tokens,
        prompt_seconds=clocked.prompt_seconds,
        seconds=clocked.seconds,
        ms_per_token=ms,
        budget=allowance.amount if allowance else None,
        unit=allowance.unit if allowance else None,
        kept=None if allowance is None else mean if allowance.unit == "passes" else ms,
        thresholds=(governor.first, governor.threshold) if governor is not None else None,
        weights=machinery.weights,
        stepped=statistics.fmean(one.stepped for one in work[1:]) if len(work) > 1 else 0.0,
        speculation=speculation,
    )


def mean_passes(passes: Sequence[Sequence[int]]) -> float | None:
    """Mean over tokens and layers, passes [n][L]; None where there are none."""
    return statistics.fmean(count for layers in passes for count in layers) if passes else None


def _flops(table: FlopTable, work: Sequence[Work]) -> float:
    return float(sum(float(table.of(one.passes, one.past).sum()) for one in work))
