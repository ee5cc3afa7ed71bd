"""The protocols by which the rooms speak: what a family gives to the verbs, and what the verbs give back.

Letters in shapes: B rows of a batch, T positions, D model width, V vocabulary, L layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class Clock(NamedTuple):
    """Where training stands: `step` counts finished optimiser steps (0 before the first)."""

    step: int
    total: int

    @property
    def fraction(self) -> float:
        """Share of the run that is done, 0 to 1."""
        return self.step / max(self.total, 1)


class Mean(NamedTuple):
    """A metric on its way to being averaged: totals and weights add up over micro-batches and ranks.

    `total` may have any shape (a depth histogram by layer, say); `weight` is a number or a tensor that divides it.
    """

    total: Tensor
    weight: Tensor | float


class Step(NamedTuple):
    """What an objective says of one micro-batch.

    `loss_sum` is the sum over targets in nats, so that dividing the gradient by the global number of
    targets makes accumulation exact. `carry` goes back into the next call, unread by the trainer.
    """

    loss_sum: Tensor
    num_targets: int
    metrics: Mapping[str, Mean]
    carry: Any = None


class Batch(Protocol):
    """One micro-batch. `num_targets` is known on the host, so nobody waits for the device to count."""

    @property
    def num_targets(self) -> int: ...

    def to(self, device: torch.device) -> Self: ...


class Stream(Protocol):
    """Training data whose order is a pure function of (seed, step): its whole position is one integer."""

    @property
    def fingerprint(self) -> str:
        """Changes when the data, its order or its tokenizer does; a checkpoint refuses another one."""
        ...

    def batches(self, step: int) -> Sequence[Batch]:
        """The micro-batches of optimiser step `step` (from 0), for this rank."""
        ...


@runtime_checkable
class Repeating(Protocol):
    """A stream that may go through the same data again and again."""

    @property
    def steps_per_epoch(self) -> float | None:
        """Optimiser steps, not always whole, after which it has given all of it once; None where that never is."""
        ...


@runtime_checkable
class Described(Protocol):
    """A stream whose steps are not all of one kind."""

    def about(self, step: int) -> Mapping[str, Any]:
        """What step events say of optimiser step `step` (from 0), JSON-ready; empty where there is nothing to say."""
        ...


class Objective(Protocol):
    """Turns a model and a micro-batch into a loss. May keep a state of its own (a price, say)."""

    def __call__(self, model: Any, batch: Any, carry: Any, clock: Clock) -> Step: ...

    def update(self, metrics: Mapping[str, Any], clock: Clock) -> Mapping[str, Any]:
        """Told once per optimiser step the globally reduced metrics; returns its own readings."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """JSON-ready state."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Stateless:
    """For an objective that keeps nothing from step to step."""

    def update(self, metrics: Mapping[str, Any], clock: Clock) -> Mapping[str, Any]:
        """Nothing to learn from the metrics."""
        del metrics, clock
        return {}

    def state_dict(self) -> dict[str, Any]:
        """No state."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """No state."""
        del state


class Event(NamedTuple):
    """One thing that happened in a run. `kind`: start, step, eval, sample, checkpoint, warning or end."""

    kind: str
    step: int
    data: Mapping[str, Any]


class Observer(Protocol):
    """Watches a run. It can neither change nor break it."""

    def on_event(self, event: Event) -> None: ...

    def close(self) -> None: ...


class Probe(NamedTuple):
    """Something measured or drawn from the model in the middle of training, emitted as an event.

    `run` sees the weights that would be kept (EMA where there is one), in eval mode, and draws no number
    from the global generators: watching changes nothing.
    """

    kind: str
    every: int
    """Optimiser steps between two runs; 0 means only at the end."""
    run: Callable[[nn.Module, Clock], Mapping[str, Any]]


class Measure(Protocol):
    """A figure about a model: names to numbers, with standard errors where they can be had."""

    def __call__(self, model: Any) -> Mapping[str, Any]: ...


class Fitted(Protocol):
    """A trained run in use that reads something else than text: what every verb may ask of it."""

    @property
    def origin(self) -> Any:
        """Which checkpoint it comes from: `step`, and `skipped`, what was wrong with newer ones."""
        ...

    def evaluate(self, *, tell: Callable[[str], None] | None = None) -> Mapping[str, Any]:
        """Figures on held-out data, JSON-ready: `loss` in nats per target, `loss_se`, and others by their names."""
        ...

    def rows(self, figures: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
        """The figures of `evaluate` as names and values for a person."""
        ...

    def references(self) -> Mapping[str, float]:
        """Losses on the same held-out data that stand for something, by what they stand for, in nats per target."""
        ...

    def diagnose(self, *, most: int, tell: Callable[[str], None] | None = None) -> Mapping[str, Any]:
        """What the family asks of its models, on `most` held-out targets, JSON-ready: `targets`, `findings` (for each
        `letter`, `name`, `value`, `error`, `threshold`, `passed`, `evidence`, those that do not apply being None), and
        `details`."""
        ...

    def figures(self, found: Mapping[str, Any]) -> Sequence[Any]:
        """What `diagnose` found as measure.report's figures."""
        ...


class Effort(NamedTuple):
    """How long a model may think, for one call. `None` leaves a setting as it was trained."""

    forced_passes: int | None = None
    """Every token runs exactly this many passes per layer; the gates are not asked."""
    max_passes: int | None = None
    threshold: float | None = None
    """Survival under which a token leaves its layer, 0 to 1."""
    readout: str | None = None
    """A statistic of the update that decides in place of the learned gate, see nn.gate.READOUTS."""
    plan: Tensor | None = None
    """[L, B, T] integers from 1, or [B, T] for a single layer: the passes that each token runs. The gates decide
    nothing; where passes are weighed by the survival, they still weigh."""
    training: Rehearsal | None = None
    """What is done otherwise while training; None in use."""

    def in_layer(self, index: int) -> Effort:
        """The same for the layer of that number, from 0."""
        mine = self if self.plan is None else self._replace(plan=self.plan[index])
        if self.training is None or self.training.audited_layer is None:
            return mine
        audited = self.training.audited_layer == index
        return mine._replace(training=self.training._replace(audited=audited))


class Rehearsal(NamedTuple):
    """What training does to the gates' decisions, so that they and the model can learn from it."""

    floor: float = 0.0
    """Least continue probability; the gradient is not held."""
    ceiling: float = 1.0
    """Greatest continue probability."""
    exploration: float = 0.0
    """Share of the tokens about to leave that run one more pass all the same."""
    audited: bool = False
    """Every token runs one more pass than its gates want."""
    audited_layer: int | None = None
    """The layer that is audited, by its number from 0: what a model makes `audited` of, layer by layer."""
    watched_rows: int = 0
    """Rows whose attention entropy is measured in the first pass."""


class Output(NamedTuple):
    """What a language model says of a batch of tokens."""

    states: Tensor
    """[B, T, D], after the final norm: what the head reads."""
    passes: Tensor
    """[L, B, T] integers: passes really run for each token in each layer (1 everywhere in a plain model)."""
    trace: Any = None
    """The family's own record of the forward pass (survival, gates), or None."""
    aux_loss: Tensor | None = None
    """Scalar: auxiliary losses (router balance) in nats per token, already weighted."""


class LanguageModel(Protocol):
    """The one interface by which scoring, decoding and tracing use a model of tokens."""

    max_length: int
    """Positions that the model was built for; longer inputs are refused."""

    def __call__(
        self,
        tokens: Tensor,
        documents: Tensor | None = None,
        cache: Any = None,
        effort: Effort | None = None,
    ) -> Output:
        """tokens [B, T] and documents [B, T] (a running number per row; None: one document a row).

        With a cache, `tokens` continue what the cache holds, and the cache takes them in.
        """
        ...

    def logits(self, states: Tensor) -> Tensor:
        """[..., D] -> [..., V] in float32."""
        ...

    def new_cache(self, batch: int, capacity: int) -> Any:
        """An empty cache for `batch` rows of at most `capacity` positions."""
        ...

    def stepper(self, weights: StepWeights = "float32") -> Stepper | None:
        """A faster twin for decoding position by position; None where this model or its device has none."""
        ...


StepWeights = Literal["float32", "int8"]
"""In what a stepper keeps the weights: as they are, or in 8 bits with a scale for each row of a matrix."""


@runtime_checkable
class Stepper(Protocol):
    """Decodes one position of each row a call, or a few of a single row, on the model's own cache, and means the same
    as the model.

    It has taken the weights in when it was made; training the model further needs another one.
    """

    rows_at_most: int
    """Rows beyond which the model itself is the faster one."""
    positions_at_most: int
    """Positions of a single row beyond which it is."""

    def __call__(self, tokens: Tensor, cache: Any = None, effort: Effort | None = None) -> Output:
        """tokens [B, 1] or [1, T] continue what the cache holds, and the cache takes them in."""
        ...

    def supports(self, effort: Effort | None) -> bool:
        """Whether it can think so; otherwise the model has to be asked."""
        ...

    def logits(self, states: Tensor) -> Tensor:
        """[..., D] -> [..., V] in float32."""
        ...
