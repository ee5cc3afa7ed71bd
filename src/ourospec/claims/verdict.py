"""What may be said of a claim. Nothing but `Verdict.sentence` ever says that an arm is better."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ourospec.claims.config import AXES, Statement
from ourospec.measure.significance import Comparison


@dataclass(frozen=True)
class Rival:
    """One arm that is compared with: the difference in loss, and what both cost on the axes of the statement."""

    name: str
    comparison: Comparison
    costs: dict[str, tuple[float | None, float | None]]
    """Axis -> of the arm that is claimed for, and of this one; None where it was not measured."""

    def cost_ratio(self, axis: str) -> float:
        """The claimed arm's cost as a share of this one's; NaN where it is not known."""
        ours, theirs = self.costs.get(axis, (None, None))
        return ours / theirs if ours is not None and theirs else math.nan


@dataclass(frozen=True)
class Verdict:
    """The evidence, and what follows from it. There is no other way to make one, so that none can say too much."""

    statement: Statement
    rivals: tuple[Rival, ...]
    leaks: tuple[str, ...]
    """Leak tests that failed, in words."""
    obstacles: tuple[str, ...] = ()
    """What forbids a claim from the outset: a quick run, say."""

    @property
    def reasons(self) -> list[str]:
        """Why the claim is not shown; empty where it is."""
        found = [*self.obstacles, *(f"a leak test failed: {leak}" for leak in self.leaks)]
        if not self.rivals:
            found.append("there is nothing to compare with")
        for rival in self.rivals:
            found += self._of_difference(rival)
            found += [reason for axis in self.statement.axes if (reason := self._of_cost(rival, axis))]
        return found

    @property
    def shown(self) -> bool:
        """Whether the statement may be made."""
        return not self.reasons

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        if not self.shown:
            return f"Not shown: {'; '.join(self.reasons)}."
        parts = [self._confirmed(rival) for rival in self.rivals]
        return f"{self.statement.better} is {'; and '.join(parts)}."

    def _of_difference(self, rival: Rival) -> list[str]:
        told = rival.comparison
        against = f"against {rival.name}"
        if not math.isfinite(told.p):
            return [f"{against}, {told.seeds} seed(s) and {told.documents} document(s) allow no test"]
        found = []
        if told.p >= self.statement.p:
            found.append(
                f"{against}, a difference of {told.difference:+.4f} nats is not significant (p = {told.p:.2g}, "
                f"{self.statement.p:g} is asked for)"
            )
        if not told.difference >= self.statement.by:
            found.append(
                f"{against}, the difference is {told.difference:+.4f} nats per token and {self.statement.by:g} "
                "are claimed"
            )
        return found

    def _of_cost(self, rival: Rival, axis: str) -> str:
        share = rival.cost_ratio(axis)
        if not math.isfinite(share):
            return f"{AXES[axis]} of {self.statement.better} and {rival.name} were not measured"
        if share > 1 + self.statement.tolerance:
            return (
                f"{self.statement.better} has {share:.3f} times the {AXES[axis]} of {rival.name}, and up to "
                f"{1 + self.statement.tolerance:g} counts as equal"
            )
        return ""

    def _confirmed(self, rival: Rival) -> str:
        told = rival.comparison
        costs = ", ".join(f"{rival.cost_ratio(axis):.3f} of its {AXES[axis]}" for axis in self.statement.axes)
        return (
            f"better than {rival.name} by {told.difference:.4f} nats per token (p = {told.p:.2g}; "
            f"{100 * told.level:g}% interval {told.low:.4f} to {told.high:.4f}; {told.seeds} seeds, {told.documents} "
            f"documents) at {costs}"
        )


def question(statement: Statement) -> str:
    """What is under test, without an answer."""
    costs = " and ".join(AXES[axis] for axis in statement.axes)
    return (
        f"{statement.better} against {', '.join(statement.than)}: at least {statement.by:g} nats per token less at no "
        f"more {costs} (up to {statement.tolerance:.0%}), p < {statement.p:g}"
    )
