"""The fields of one event, asked for by name: what is missing or no number is None, never an error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

FORCED, POLICY, AUDIT = "forced", "policy", "audit"
"""Kinds of step: passes forced on every token, decided by the gates, or by the gates with one layer probed."""
LIKELIHOODS = ("lm_loss", "nll")
"""Readings of a step that are −ln p of a target and nothing else; `loss` may hold other costs besides."""


class Reading(NamedTuple):
    """An event, read with doubt: a run may be of another family, of another version, or have been cut off."""

    kind: str
    step: int
    data: Mapping[str, Any]

    def number(self, name: str) -> float | None:
        """A finite number, or None."""
        return as_number(self.data.get(name))

    def flag(self, name: str) -> bool:
        """Whether the field is there and true."""
        return self.data.get(name) is True

    def vector(self, name: str) -> list[float] | None:
        """A list of finite numbers, or None; an empty one is None, too."""
        return as_vector(self.data.get(name))

    def matrix(self, name: str) -> list[list[float]] | None:
        """A list of lists of finite numbers, or None."""
        found = self.data.get(name)
        if not isinstance(found, list | tuple) or not found:
            return None
        rows = [as_vector(row) for row in found]
        return None if any(row is None for row in rows) else [row for row in rows if row is not None]

    @property
    def step_kind(self) -> str | None:
        """forced, policy or audit; None in a model without passes to decide on."""
        found = self.data.get("step_kind")
        return found if isinstance(found, str) else None

    @property
    def gated(self) -> bool:
        """Whether gates decided: the only steps whose depth says anything about them.

        A model of fixed depth calls its steps policy, too; it reports no gate.
        """
        return self.kind == "step" and self.step_kind in (POLICY, AUDIT) and "gate" in self.data

    @property
    def depth(self) -> float | None:
        """Passes per token and layer that the gates asked for; None where they were not asked."""
        if not self.gated:
            return None
        wanted = self.number("wanted_passes")
        if wanted is not None or self.step_kind == AUDIT:  # an audit's executed passes hold its own extra one
            return wanted
        return self.number("mean_passes")

    @property
    def target(self) -> float | None:
        """The depth that the controller holds; None without one."""
        return self.number("target_passes") if self.gated else None

    @property
    def most_passes(self) -> int | None:
        """K: the passes that a layer can run."""
        for name in ("depth_histogram", "survival"):
            found = self.vector(name)
            if found is not None:
                return len(found)
        return None

    @property
    def loss(self) -> float | None:
        """Nats per target: its likelihood alone where that is told, else with all costs."""
        found = (self.number(name) for name in LIKELIHOODS)
        return next((number for number in found if number is not None), self.number("loss"))


def unit(start: Mapping[str, Any]) -> str:
    """What the model of a run predicts, one at a time: a token, unless its start event names something else."""
    return str(start.get("unit") or "token")


def as_number(value: Any) -> float | None:
    """The value as a float if it is a finite number (True and False are none)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def as_vector(value: Any) -> list[float] | None:
    """The value as a list of floats if it is a list of finite numbers and not empty."""
    if not isinstance(value, list | tuple) or not value:
        return None
    numbers = [as_number(item) for item in value]
    return None if any(number is None for number in numbers) else [n for n in numbers if n is not None]
