"""Training FLOPs, counted while they are done: forward, backward, gates, audits, gain probes, all of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ourospec.contracts import Clock, Objective, Step
from ourospec.nn.ragged import FLOPS

COUNTED = "counted_flops"
"""Field of the step events that were counted: FLOPs of the whole step."""
EVERY = 7
"""One step in so many is counted: no multiple of the rounds in which audits and probes go (20, or layers × passes)."""
FEW = 70
"""Runs of fewer steps are counted whole."""


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> float:
    """Q·Kᵀ and P·V over all pairs, as the registry has it for other devices; a kernel may skip hidden ones."""
    return 2.0 * math.prod(query.shape[:3]) * key.shape[2] * (query.shape[3] + value.shape[3])


def _attention_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> float:
    """The scores anew, dP, dV, dQ and dK."""
    return 2.0 * math.prod(query.shape[:3]) * key.shape[2] * (3 * query.shape[3] + 2 * value.shape[3])


FORMULAS: dict[str, Callable[..., float]] = {
    **{packet.__name__: formula for packet, formula in {**flop_registry, **FLOPS}.items()},
    "_scaled_dot_product_flash_attention_for_cpu": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward,
}
"""By the operator's name, without the underscore of one that works in place."""


class FlopCount(TorchDispatchMode):
    """Adds up the FLOPs of matrix products (a multiply-add is two) while it is open, those of autograd too."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        formula = FORMULAS.get(func._overloadpacket.__name__.removesuffix("_"))
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=found)
        return found


class CountedObjective:
    """An objective that also counts the FLOPs of one step in EVERY, and reports them in that step's event.

    It counts from the step's first micro-batch until the objective hears of the step. Counting changes no number of
    the run. Since the counts are events, they survive a kill as the run does.
    """

    def __init__(self, objective: Objective, steps: int) -> None:
        self.objective = objective
        self._every = 1 if steps < FEW else EVERY
        self._open: FlopCount | None = None

    def __call__(self, model: Any, batch: Any, carry: Any, clock: Clock) -> Step:
        if self._open is None and clock.step % self._every == 0:
            self._open = FlopCount()
            self._open.__enter__()
        return self.objective(model, batch, carry, clock)

    def update(self, metrics: Mapping[str, Any], clock: Clock) -> Mapping[str, Any]:
        """The objective's own readings, and the count."""
        counted = {} if self._open is None else {COUNTED: self._open.total}
        self.close()
        return {**self.objective.update(metrics, clock), **counted}

    def close(self) -> None:
        """Count no more; for a step that did not come to its end."""
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self._open = None

    def state_dict(self) -> dict[str, Any]:
        """The objective's."""
        return self.objective.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.objective.load_state_dict(state)
