"""calibration.json of a run: which threshold met which budget, with which weights. Written whole."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from ourospec.config import Config
from ourospec.contracts import Effort
from ourospec.errors import ConfigError
from ourospec.measure.likelihood import Likelihood
from ourospec.runs import RunDirectory
from ourospec.storage import write_whole

VERSION = 1

Unit = Literal["passes", "ms"]


class Budget(NamedTuple):
    """What a token may cost on average."""

    amount: float
    unit: Unit = "passes"
    """passes: executed per token and layer; ms: milliseconds of decoding a token, on the machine that calibrated."""
    readout: str | None = None
    """What decides in place of the learned gates, see contracts.Effort; None for the gates."""

    def describe(self) -> str:
        """1.3 passes, 12 ms, 1.3 passes by direction."""
        by = f" by {self.readout}" if self.readout else ""
        return f"{self.amount:g} {self.unit}{by}"

    def command(self, run: Path) -> str:
        """What to type to have it calibrated."""
        option = "--budget" if self.unit == "passes" else "--budget-ms"
        readout = f" --readout {self.readout}" if self.readout else ""
        return f"ouro calibrate {shlex.quote(str(run))} {option} {self.amount:g}{readout}"


class Weights(NamedTuple):
    """The weights that a threshold was found for."""

    step: int
    """Optimiser steps behind them."""
    digest: str
    """Changes with any of them."""


class Figures(Config):
    """What the sample came to at one threshold; errors are standard errors over documents, None for a single one."""

    mean_passes: float
    """Executed per token and layer."""
    mean_passes_se: float | None
    """Its standard error."""
    loss: float
    """Nats per token."""
    loss_se: float | None
    """Its standard error."""
    bits_per_byte: float
    """Of raw text."""
    bits_per_byte_se: float | None
    """Its standard error."""
    flops_per_token: float
    """Forward FLOPs, executed."""

    @classmethod
    def of(cls, likelihood: Likelihood) -> Figures:
        """Those of a scored sample."""
        summary = likelihood.summary()
        fields: dict[str, Any] = {name: finite(summary[name]) for name in cls.model_fields}
        return cls(**fields)


class Pace(Config):
    """Decoding one text, a token at a time."""

    ms: float
    """Milliseconds a token, median over the repeats."""
    spread: float
    """Interquartile range of the repeats, milliseconds."""
    repeats: int
    """Texts timed."""
    mean_passes: float
    """Executed per token and layer while decoding."""


class Calibrated(Config):
    """A budget, the threshold found for it, and what was measured there and as trained on the same sample."""

    amount: float
    """Of the budget, in its unit."""
    unit: Unit
    """passes or ms, see Budget."""
    readout: str | None
    """What decides in place of the learned gates."""
    threshold: float
    """Survival under which a token leaves its layer."""
    met: bool
    """Whether what was measured comes within the tolerance of the budget."""
    figures: Figures
    """At the threshold."""
    as_trained: Figures
    """At the threshold of the training."""
    loss_change: float
    """loss at the threshold − loss as trained, nats per token."""
    loss_change_se: float | None
    """Its standard error over documents, which are the same in both."""
    pace: Pace | None
    """Of decoding at the threshold, where it was timed."""
    pace_as_trained: Pace | None
    """The same as trained."""
    documents: int
    """In the sample."""
    tokens: int
    """Targets in the sample."""
    machine: str
    """What it was timed on."""

    @property
    def budget(self) -> Budget:
        """What was asked for."""
        return Budget(self.amount, self.unit, self.readout)

    @property
    def achieved(self) -> float:
        """What was measured, in the budget's unit."""
        return self.pace.ms if self.unit == "ms" and self.pace else self.figures.mean_passes

    def effort(self) -> Effort:
        """How a model is to think to stay in the budget."""
        return effort_at(self.threshold, self.readout)


class CalibrationRecord(Config):
    """Everything that was calibrated for one checkpoint's weights."""

    version: Literal[1] = VERSION
    """Layout of this file."""
    step: int
    """Optimiser steps behind the weights."""
    weights: str
    """Digest of the weights."""
    budgets: tuple[Calibrated, ...]
    """In the order of unit, readout and amount; one for each budget."""

    def fits(self, weights: Weights) -> bool:
        """Whether the thresholds were found for these very weights."""
        return (self.step, self.weights) == weights

    def find(self, budget: Budget) -> Calibrated | None:
        """The entry of exactly this budget."""
        same = (entry for entry in self.budgets if _key(entry.budget) == _key(budget))
        return next(same, None)


def budget_beside(budget: float | Budget, asked: Effort | None) -> Budget:
    """The budget that is meant: a number means passes, and `asked` may say what decides, but not how deep.

    Raises:
        ConfigError: a depth was asked for as well.
    """
    asked = asked or Effort()
    wanted = budget if isinstance(budget, Budget) else Budget(float(budget))
    if asked != Effort(readout=asked.readout):
        raise ConfigError(
            f"A budget of {wanted.describe()} and a depth were asked for together: the budget is met by a threshold of "
            "its own.",
            "Leave out the threshold and the number of passes, or the budget.",
        )
    return wanted._replace(readout=asked.readout or wanted.readout)


def effort_at(threshold: float, readout: str | None) -> Effort:
    """A threshold, and what decides."""
    return Effort(threshold=threshold, readout=readout)


def read_calibration(run: RunDirectory) -> CalibrationRecord | None:
    """What was calibrated in a run, None where nothing was.

    Raises:
        ConfigError: the file is none that this version can read.
    """
    path = run.calibration
    if not path.is_file():
        return None
    try:
        return CalibrationRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ConfigError(
            f"{path} is not a calibration that this version reads: {where}: {first['msg']}",
            f"Remove it and calibrate again: {Budget(1.3).command(run.path)}",
        ) from error


def keep_calibrated(run: RunDirectory, weights: Weights, found: Iterable[Calibrated]) -> CalibrationRecord:
    """Add entries to the run's calibration.json, in the place of those of the same budgets.

    What was calibrated for other weights, or is of no version that we read, goes.
    """
    try:
        before = read_calibration(run)
    except ConfigError:
        before = None
    kept = before.budgets if before is not None and before.fits(weights) else ()
    entries = {_key(entry.budget): entry for entry in (*kept, *found)}
    ordered = tuple(entries[key] for key in sorted(entries))
    record = CalibrationRecord(step=weights.step, weights=weights.digest, budgets=ordered)
    write_whole(run.calibration, (record.model_dump_json(indent=2) + "\n").encode())
    return record


def look_up(run: RunDirectory, weights: Weights, budget: Budget) -> Calibrated:
    """The stored calibration of a budget. Nothing is interpolated: what was not measured is not promised.

    Raises:
        ConfigError: it was not calibrated, or for other weights; the message has the command that does it.
    """
    advice = f"Run: {budget.command(run.path)}"
    record = read_calibration(run)
    if record is None:
        raise ConfigError(
            f"{run.path} is not calibrated for {budget.describe()}: it has no calibration.", advice
        )
    if not record.fits(weights):
        raise ConfigError(
            f"{run.path} was calibrated for the weights after step {record.step:,}; these are those after step "
            f"{weights.step:,}, whose gates answer otherwise.",
            advice,
        )
    entry = record.find(budget)
    if entry is None:
        there = ", ".join(known.budget.describe() for known in record.budgets)
        raise ConfigError(f"{run.path} is not calibrated for {budget.describe()}, only for {there}.", advice)
    return entry


def nearest_calibrated(run: RunDirectory, weights: Weights, budget: Budget) -> Calibrated | None:
    """What was calibrated for these weights nearest to a budget, in its unit and with its readout; None for nothing."""
    record = read_calibration(run)
    if record is None or not record.fits(weights):
        return None
    alike = [one for one in record.budgets if (one.unit, one.readout) == (budget.unit, budget.readout)]
    return min(alike, key=lambda one: abs(one.amount - budget.amount), default=None)


def finite(number: float) -> float | None:
    """JSON has no NaN."""
    return float(number) if math.isfinite(number) else None


def _key(budget: Budget) -> tuple[str, str, float]:
    """Amounts are equal as they are printed: 1.3 is 1.3 however it was computed."""
    return budget.unit, budget.readout or "", float(f"{budget.amount:g}")
