"""What a rule is: a condition that has to last, and the words for it when it has."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from ourospec.telemetry.reading import Reading, as_number

Severity = Literal["warning", "severe"]


class Finding(NamedTuple):
    """Something that goes wrong, as a rule found it."""

    rule: str
    severity: Severity
    """severe: what is trained from here on is probably lost; warning: worth a look."""
    step: int
    """When it was noticed."""
    since: int
    """When it began."""
    title: str
    evidence: str
    """The numbers."""
    cause: str
    """The likely one."""
    command: str
    """To try while the run can go on; RUN stands for its directory."""
    afterwards: str
    """To try once the run is complete, where the command no longer acts on it; often the same."""

    def advice(self, run: str, *, complete: bool = False) -> str:
        """The command for a run directory, as it can be typed; NEW becomes a directory beside it."""
        command = self.afterwards if complete else self.command
        names = {"RUN": shlex.quote(run), "NEW": shlex.quote(f"{run.rstrip('/')}-2")}
        return " ".join(names.get(word, word) for word in command.split(" "))


class Words(NamedTuple):
    """What a rule has to say of its finding. Without `afterwards` the command serves then, too."""

    title: str
    evidence: str
    cause: str
    command: str
    afterwards: str = ""


@dataclass
class Episode:
    """A finding and the step at which it was over; None: it never was."""

    finding: Finding
    until: int | None = None


@dataclass
class Setting:
    """What rules know of a run besides its events.

    Args:
        recipe: as recipe.json has it; empty where it is not at hand. Rules look for fields, not for families.
        total_steps: optimiser steps of the whole run, 0 while unknown.
    """

    recipe: Mapping[str, Any] = field(default_factory=dict)
    total_steps: int = 0

    def scaled(self, share: float, least: int, most: int) -> int:
        """So many steps: a share of the run, within bounds; the geometric middle of these while it is unknown."""
        if not self.total_steps:
            return round((least * most) ** 0.5)
        return min(most, max(least, round(share * self.total_steps)))

    def number(self, *path: str) -> float | None:
        """A number of the recipe by its path, None where there is none."""
        found: Any = self.recipe
        for name in path:
            if not isinstance(found, Mapping):
                return None
            found = found.get(name)
        return as_number(found)


class Rule(ABC):
    """One kind of trouble. Subclasses judge single events; that it lasts, and is told once, is seen to here."""

    name: ClassVar[str]
    severity: ClassVar[Severity] = "warning"
    explained_by: ClassVar[frozenset[str]] = frozenset()
    """Rules that, while they hold, explain what this one would see."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.active = False
        self._lasting = 0
        self._calm = 0
        self._since = 0
        self._level: Severity = self.severity

    @property
    def patience(self) -> int:
        """Judged steps in a row that the condition has to hold, and to be absent before the episode is over."""
        return self.setting.scaled(0.03, 20, 200)

    @abstractmethod
    def judge(self, reading: Reading) -> bool | None:
        """Whether the condition holds now; None where this event says nothing about it."""

    @abstractmethod
    def words(self) -> Words:
        """What was found; called at the event that was judged last."""

    def take(self, reading: Reading, explained: bool = False) -> Finding | None:
        """Take in the next event; a finding where an episode begins.

        Args:
            explained: a rule of `explained_by` is active: look, but count nothing; an episode passes into its own.
        """
        ill = self.judge(reading)
        if explained:
            self.active, self._lasting = False, 0
        if ill is None or explained:
            return None
        if not ill:
            self._lasting = 0
            self._calm += 1
            self.active = self.active and self._calm < self.patience
            return None
        self._since = reading.step if not self._lasting else self._since
        self._lasting, self._calm = self._lasting + 1, 0
        if self.active or self._lasting < self.patience:
            return None
        self.active = True
        words = self.words()
        return Finding(
            rule=self.name, severity=self._level, step=reading.step, since=self._since, title=words.title,
            evidence=words.evidence, cause=words.cause, command=words.command,
            afterwards=words.afterwards or words.command,
        )  # fmt: skip
