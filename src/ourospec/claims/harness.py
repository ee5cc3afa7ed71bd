"""From a claim file to findings: tune, train, score, test, time, compare."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ourospec.claims import scoring
from ourospec.claims.config import PLAIN, Claim, Matched, MixedArm, TrainedArm, UsedArm
from ourospec.claims.parts import Part, Workshop
from ourospec.claims.recipes import recipe_of, refuse_unlike
from ourospec.claims.verdict import Rival, Verdict
from ourospec.errors import ConfigError, DivergedError
from ourospec.measure.significance import Comparison, compare

Scores = dict[str, Any]
"""See scoring.by_document."""
BESIDE = 0.03
"""Of the distance of two mixed arms, by which a third may lie outside."""


@dataclass
class Findings:
    """Everything that was found. Lists by arm run over the claim's seeds."""

    claim: Claim
    trials: dict[str, dict[float, float | None]] = field(default_factory=dict)
    """Arm -> learning rate -> loss on the documents for tuning; None where it diverged."""
    rates: dict[str, float] = field(default_factory=dict)
    """The learning rates chosen."""
    warnings: list[str] = field(default_factory=list)
    trained: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """See training.Trained."""
    leaks: dict[str, list[list[dict[str, Any]]]] = field(default_factory=dict)
    scores: dict[str, list[Scores]] = field(default_factory=dict)
    curves: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Arm -> points, means over seeds; only arms with gates."""
    times: dict[str, list[float]] = field(default_factory=dict)
    """Arm -> seconds per 1,000 positions read, by round."""

    def comparison(self, ours: str, theirs: str) -> Comparison:
        """By how much the first arm loses less."""
        one, other = (np.array([seed["nats"] for seed in self.scores[name]]) for name in (ours, theirs))
        tokens = np.array(self.scores[ours][0]["tokens"])
        return compare(one, other, tokens, 1 - self.claim.statement.p)

    def total(self, name: str, quantity: str, per: str = "tokens") -> list[float]:
        """By seed: a sum over documents, by another one."""
        return [sum(seed[quantity]) / sum(seed[per]) for seed in self.scores[name]]

    @property
    def asks(self) -> bool:
        """Whether the documents are puzzles."""
        return "answers" in self.scores[self.claim.statement.better][0]

    def exact_match(self, name: str) -> list[float]:
        """By seed; empty where it is not known: of text, and of an oracle."""
        return self.total(name, "right", "answers") if "answers" in self.scores[name][0] else []

    def exact_by_bin(self, name: str) -> dict[str, float]:
        """The same by difficulty, easiest first, all seeds together."""
        seeds = [seed["bins"] for seed in self.scores[name] if "bins" in seed]
        sums = {label: np.sum([bins[label] for bins in seeds], axis=0) for label in seeds[0]} if seeds else {}
        return {label: float(right / answers) for label, (right, answers) in sums.items()}

    def cost(self, name: str, axis: str) -> float | None:
        """Of an arm on an axis, a mean over seeds; None where there is none."""
        if axis == "executed_flops":
            return float(np.mean(self.total(name, "flops", "positions")))
        if axis == "wall_clock":
            return scoring.middle(self.times, name)
        arm = self.claim.arm(name)
        if isinstance(arm, MixedArm):
            both = [self.cost(of, axis) for of in arm.mix]
            # A mixture needs both of its models; one trained arm used in two ways is one model.
            if self._root(arm.mix[0]) == self._root(arm.mix[1]):
                return both[0]
            return None if None in both else float(sum(cost or 0 for cost in both))
        trained = self.trained[self.claim.root(name).name]
        wanted = {"parameters": "parameters", "training_flops": "flops"}[axis]
        return float(np.mean([run[wanted] for run in trained]))

    def _root(self, name: str) -> str:
        return name if isinstance(self.claim.arm(name), MixedArm) else self.claim.root(name).name

    def verdict(self, quick: bool) -> Verdict:
        """What may be said of the statement."""
        statement = self.claim.statement
        rivals = [
            Rival(
                name,
                self.comparison(statement.better, name),
                {axis: (self.cost(statement.better, axis), self.cost(name, axis)) for axis in statement.axes},
            )
            for name in statement.than
        ]
        failed = [
            f"{name}, seed {seed}: {leak['name']}"
            for name, runs in self.leaks.items()
            for seed, tests in zip(self.claim.seeds, runs, strict=True)
            for leak in tests
            if not leak["held"]
        ]
        obstacles = ("a quick run shows nothing but that everything works",) if quick else ()
        return Verdict(statement, tuple(rivals), tuple(failed), obstacles)


class Harness:
    """Puts a claim to the test in a folder, going on where an earlier attempt stopped."""

    def __init__(self, claim: Claim, workshop: Workshop) -> None:
        self.claim, self.workshop = claim, workshop
        self.found = Findings(claim)
        self.recipes: dict[tuple[str, int], str] = {}
        """(arm, seed) -> recipe as JSON."""

    def run(self) -> Findings:
        """Do all that is not done yet.

        Raises:
            OuroError: an arm that cannot be meant, a run that diverged or was interrupted, too little text.
        """
        refuse_unlike(self.claim)
        self._tune()
        self._train()
        self._score_trained()
        for wave in self.claim.waves():
            self._score_used(wave)
        self._draw_curves()
        self._take_time()
        return self.found

    def _tune(self) -> None:
        claim, tuning = self.claim, self.claim.tuning
        tried = [(arm, rate) for arm in claim.trained for rate in tuning.learning_rates]
        parts = []
        for arm, rate in tried:
            recipe = recipe_of(claim, arm, claim.seeds[0], rate, tuning.steps)
            inputs = {"recipe": recipe.to_json(), "tokens": tuning.tokens}
            parts.append(Part(f"try {arm.name} lr {rate:g}", scoring.tune, inputs))
        for (arm, rate), result in zip(tried, self.workshop.do(parts), strict=True):
            self.found.trials.setdefault(arm.name, {})[rate] = result["loss"]
        if len(tuning.learning_rates) == 1:
            self.found.warnings.append("Learning rates were not tuned: one was given for all arms.")
        for name, trials in self.found.trials.items():
            self.found.rates[name] = self._choose(name, trials)

    def _choose(self, name: str, trials: dict[float, float | None]) -> float:
        losses = {rate: loss for rate, loss in trials.items() if loss is not None}
        if not losses:
            raise DivergedError(
                f"Arm {name} diverged at every learning rate tried.", "Try lower ones: tuning.learning_rates"
            )
        best = min(losses, key=lambda rate: losses[rate])
        self.workshop.tell(f"{name}: learning rate {best:g} of {', '.join(f'{rate:g}' for rate in trials)}")
        if len(trials) > 1 and best in (min(trials), max(trials)):
            self.found.warnings.append(
                f"The learning rate of {name}, {best:g}, is at the edge of the grid: beyond may lie one that loses "
                "less."
            )
        return best

    def _train(self) -> None:
        claim, parts, owners = self.claim, [], []
        for arm in claim.trained:
            for seed in claim.seeds:
                recipe = recipe_of(claim, arm, seed, self.found.rates[arm.name])
                self.recipes[arm.name, seed] = recipe.to_json()
                owners.append((arm.name, seed))
                parts.append(
                    Part(f"train {arm.name} seed {seed}", scoring.train, {"recipe": recipe.to_json()})
                )
        for (name, seed), result in zip(owners, self.workshop.do(parts), strict=True):
            if result["trained"] is None:
                raise DivergedError(
                    f"Arm {name} diverged with seed {seed}.",
                    "Lower tuning.learning_rates, or clip more: optim.clip_norm",
                )
            self.found.trained.setdefault(name, []).append(result["trained"])

    def _score_trained(self) -> None:
        claim = self.claim
        runs = [(arm.name, seed) for arm in claim.trained for seed in claim.seeds]
        told = {run: {"recipe": self.recipes[run], "tokens": claim.eval_tokens} for run in runs}
        scored = [
            Part(f"score {name} seed {seed}", scoring.score, {**told[name, seed], "use": {"kind": "trained"}})
            for name, seed in runs
        ]
        leaks = [
            Part(f"test {name} seed {seed}", scoring.check_leaks, told[name, seed]) for name, seed in runs
        ]
        results = self.workshop.do([*scored, *leaks])
        for at, (name, _) in enumerate(runs):
            self.found.scores.setdefault(name, []).append(results[at])
            self.found.leaks.setdefault(name, []).append(results[len(runs) + at])

    def _score_used(self, wave: list[UsedArm | MixedArm]) -> None:
        parts, owners = [], []
        for arm in wave:
            for index, seed in enumerate(self.claim.seeds):
                if isinstance(arm, UsedArm):
                    owners.append(arm.name)
                    parts.append(self._part(arm, index, seed))
        for name, result in zip(owners, self.workshop.do(parts), strict=True):
            self.found.scores.setdefault(name, []).append(result)
        for arm in wave:
            if isinstance(arm, MixedArm):
                three = [self.found.scores[name] for name in (*arm.mix, arm.to)]
                self.found.scores[arm.name] = [mixed(arm, *seeds) for seeds in zip(*three, strict=True)]

    def _part(self, arm: UsedArm, index: int, seed: int) -> Part:
        use = arm.effort.model_dump(mode="json")
        inputs: dict[str, Any] = {
            "recipe": self.recipes[self.claim.root(arm.name).name, seed],
            "tokens": self.claim.eval_tokens,
            "use": use,
        }
        if not isinstance(arm.effort, PLAIN):
            use["policy"] = self.found.scores[arm.of][index]["effort"]
        if isinstance(arm.effort, Matched):
            other = self.found.scores[arm.effort.to][index]
            inputs["flops"] = sum(other["flops"]) / sum(other["positions"])
            del use["to"]
        return Part(f"score {arm.name} seed {seed}", scoring.score, inputs)

    def _draw_curves(self) -> None:
        asked, parts, owners = self.claim.curve, [], []
        if not asked.thresholds and not asked.max_passes:
            return
        for arm in self.claim.trained:
            for seed in self.claim.seeds:
                inputs = {
                    "recipe": self.recipes[arm.name, seed],
                    "tokens": self.claim.eval_tokens,
                    "thresholds": list(asked.thresholds),
                    "max_passes": list(asked.max_passes),
                }
                owners.append(arm.name)
                parts.append(Part(f"draw {arm.name} seed {seed}", scoring.draw_curve, inputs))
        by_arm: dict[str, list[list[dict[str, Any]]]] = {}
        for name, points in zip(owners, self.workshop.do(parts), strict=True):
            by_arm.setdefault(name, []).append(points)
        for name, seeds in by_arm.items():
            if all(seeds):
                self.found.curves[name] = [mean_point(points) for points in zip(*seeds, strict=True)]

    def _take_time(self) -> None:
        claim = self.claim
        if not claim.clock_rounds:
            return
        timed: list[TrainedArm | UsedArm] = [
            arm
            for arm in claim.arms
            if isinstance(arm, TrainedArm) or (isinstance(arm, UsedArm) and isinstance(arm.effort, PLAIN))
        ]
        uses = [
            {
                "name": arm.name,
                "recipe": self.recipes[claim.root(arm.name).name, claim.seeds[0]],
                "effort": self.found.scores[arm.name][0]["effort"],
            }
            for arm in timed
        ]
        inputs = {"uses": uses, "tokens": claim.eval_tokens, "rounds": claim.clock_rounds}
        self.found.times = self.workshop.do([Part("take the time", scoring.clock, inputs)])[0]


def mixed(arm: MixedArm, cheap: Scores, dear: Scores, to: Scores) -> Scores:
    """Expected losses and costs when each document is read by one of two arms, so that FLOPs are those of a third.

    A third that lies beyond one of them by no more than a few hundredths of their distance is met by that one alone.

    Raises:
        ConfigError: the third does not lie between them.
    """
    low, high, wanted = (sum(one["flops"]) for one in (cheap, dear, to))
    share = (wanted - low) / (high - low) if high != low else math.nan
    if not -BESIDE <= share <= 1 + BESIDE:
        raise ConfigError(
            f"Arm {arm.name}: {arm.to} executes {wanted:.4g} FLOPs, which is not between {arm.mix[0]} ({low:.4g}) and "
            f"{arm.mix[1]} ({high:.4g}).",
            "Mix arms on both sides of it.",
        )
    share = min(max(share, 0.0), 1.0)
    told: Scores = {name: cheap[name] for name in ("tokens", "positions", "bytes")}

    def between(one: Sequence[float], other: Sequence[float]) -> list[float]:
        return [(1 - share) * a + share * b for a, b in zip(one, other, strict=True)]

    told |= {name: between(cheap[name], dear[name]) for name in ("nats", "flops", "passes")}
    if "answers" in cheap and "answers" in dear:
        told |= {"answers": cheap["answers"], "right": between(cheap["right"], dear["right"])}
        told["bins"] = {name: between(pair, dear["bins"][name]) for name, pair in cheap["bins"].items()}
    return {**told, "effort": None, "share": share}


def mean_point(points: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    """The mean of the same effort's figures over seeds."""
    numbers = {name: float(np.mean([p[name] for p in points])) for name in points[0] if name != "effort"}
    return {"effort": points[0]["effort"], **numbers}
