"""All rules over one stream of events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ourospec.telemetry.alarms import depth, economy, learning, writing
from ourospec.telemetry.alarms.rule import Finding, Rule, Setting
from ourospec.telemetry.reading import Reading, as_number

RULES: tuple[type[Rule], ...] = (
    learning.Diverged,
    depth.Collapse,
    depth.Explosion,
    depth.ClosingGates,
    depth.NeverLeaving,
    economy.Oscillation,
    economy.PricePinned,
    economy.BudgetMissed,
    economy.NoBenefit,
    depth.Indiscriminate,
    depth.HardSoftGap,
    learning.ExplodingGradient,
    learning.LossSpike,
    learning.LossNotFalling,
    learning.RouterImbalance,
    writing.Repetition,
    learning.Slow,
)
"""Those that explain others stand before them."""


class Watch:
    """Feeds every event to every rule; remembers a handful of numbers for each, however long the run.

    Args:
        recipe: as recipe.json has it, where it is at hand: some thresholds are settings.
    """

    def __init__(self, recipe: Mapping[str, Any] | None = None) -> None:
        self._setting = Setting(recipe or {}, int(_total(recipe or {})))
        self._rules = [kind(self._setting) for kind in RULES]

    @property
    def active(self) -> frozenset[str]:
        """Names of the rules in whose episode the run is."""
        return frozenset(rule.name for rule in self._rules if rule.active)

    def take(self, kind: str, step: int, data: Mapping[str, Any]) -> list[Finding]:
        """Take in the next event; what begins with it."""
        if kind == "start":
            self._setting.total_steps = int(as_number(data.get("total_steps")) or self._setting.total_steps)
        reading = Reading(kind, step, data)
        found = []
        for rule in self._rules:
            finding = rule.take(reading, explained=bool(rule.explained_by & self.active))
            if finding is not None:
                found.append(finding)
        return found


def _total(recipe: Mapping[str, Any]) -> float:
    return Setting(recipe).number("train", "steps") or 0
