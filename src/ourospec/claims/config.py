"""What a claim file says: which models are trained, how they are used, and which sentence is to be tested."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, JsonValue, Tag, ValidationError, model_validator

from ourospec.config import Config
from ourospec.errors import ConfigError

Axis = Literal["executed_flops", "parameters", "training_flops", "wall_clock"]
AXES: dict[str, str] = {
    "executed_flops": "executed FLOPs",
    "parameters": "parameters",
    "training_flops": "training FLOPs",
    "wall_clock": "scoring time",
}
"""In words."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=40)]


class Limit(Config):
    """As trained, with at most so many passes."""

    kind: Literal["limit"] = "limit"
    max_passes: Annotated[int, Field(ge=1)]
    """Per token and layer."""


class Forced(Config):
    """Every token runs exactly so many passes in every layer."""

    kind: Literal["forced"] = "forced"
    passes: Annotated[int, Field(ge=1)]
    """Per token and layer."""


class Threshold(Config):
    """The gates decide, by another threshold than the trained one."""

    kind: Literal["threshold"] = "threshold"
    threshold: Annotated[float, Field(ge=0, le=1)]
    """Survival under which a token leaves its layer."""


class Matched(Config):
    """The threshold at which as many FLOPs are executed as by another arm of the same seed.

    It is searched on the documents of the comparison themselves; the search reads how long the model thinks there,
    never how well it does.
    """

    kind: Literal["matched"] = "matched"
    to: Name
    """The other arm."""
    readout: str | None = None
    """A statistic of the update that decides in place of the gates, see nn.gate.READOUTS; None: the gates."""


class Shuffled(Config):
    """The depths that the policy chose, given to other tokens of the same document at random.

    A token's depths in all layers stay together. What is lost by this is what choosing the tokens was worth.
    """

    kind: Literal["shuffled"] = "shuffled"
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the permutations."""


class Even(Config):
    """In each layer and document as many passes as the policy ran there, dealt out evenly, whatever the tokens."""

    kind: Literal["even"] = "even"


class Oracle(Config):
    """The passes of the policy given where they lower the loss most, which takes the targets to know.

    No model: a bound for what choosing tokens could be worth. See measure.oracle.equal_cost.
    """

    kind: Literal["oracle"] = "oracle"


PLAIN = (Limit, Forced, Threshold, Matched)
"""What can be asked of a model before it reads a text."""
Use = Annotated[Limit | Forced | Threshold | Matched | Shuffled | Even | Oracle, Field(discriminator="kind")]


class TrainedArm(Config):
    """A model that is trained, once for each seed, and then used as training left it."""

    name: Name
    """By which the rest of the file and the results speak of it."""
    preset: str
    """What it starts from; see `ouro presets`."""
    set: Annotated[dict[str, JsonValue], Field(default_factory=dict)]
    """Settings of the recipe by dotted path, such as "model.layers": 5; after those of `common`."""


class UsedArm(Config):
    """A trained arm, thinking otherwise."""

    name: Name
    """By which the rest of the file and the results speak of it."""
    of: Name
    """The arm. For shuffled, even and oracle also one that is itself a limit, a threshold or matched."""
    effort: Use
    """How it thinks."""


class MixedArm(Config):
    """Two arms, each read with some probability, so that the expected FLOPs are those of a third.

    What two fixed depths are worth in between: their loss is the same mixture of both losses.
    """

    name: Name
    """By which the rest of the file and the results speak of it."""
    mix: tuple[Name, Name]
    """The cheaper one first, in expectation."""
    to: Name
    """The arm whose executed FLOPs are met."""


def _sort_of(arm: Any) -> str:
    fields = arm if isinstance(arm, dict) else dict(arm)
    return "mixed" if "mix" in fields else "used" if "of" in fields else "trained"


Arm = Annotated[
    Annotated[TrainedArm, Tag("trained")]
    | Annotated[UsedArm, Tag("used")]
    | Annotated[MixedArm, Tag("mixed")],
    Discriminator(_sort_of),
]


class Statement(Config):
    """The sentence under test: `better` loses at least `by` nats per token less than each of `than`, at equal cost."""

    better: Name
    """The arm that is claimed for."""
    than: Annotated[tuple[Name, ...], Field(min_length=1)]
    """The arms that it is compared with; the sentence holds if it holds for all of them."""
    by: Annotated[float, Field(gt=0)] = 0.01
    """Nats per token."""
    axes: Annotated[tuple[Axis, ...], Field(min_length=1)]
    """Costs of which `better` may have no more than the others."""
    tolerance: Annotated[float, Field(ge=0, le=0.1)] = 0.02
    """Share by which a cost may be exceeded and still count as equal."""
    p: Annotated[float, Field(gt=0, le=0.05)] = 0.01
    """Level of significance, two-sided."""


class Tuning(Config):
    """How the learning rate of every trained arm is found: the same grid for all, on text that is not the test's."""

    learning_rates: Annotated[tuple[float, ...], Field(min_length=1)]
    """Values of optim.lr, tried with the first seed."""
    steps: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps of each trial; schedules shrink with them. 0: the whole run."""
    tokens: Annotated[int, Field(ge=1)] = 20_000
    """Held-out tokens on which they are compared, at most; of the quarter of the documents kept for that."""


class Curve(Config):
    """Which further efforts are drawn in the picture, for every trained arm that has gates."""

    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    """Thresholds of survival."""
    max_passes: tuple[Annotated[int, Field(ge=1)], ...] = (1, 2, 3, 4)
    """Limits; those beyond what a model runs are left out."""


class Claim(Config):
    """A claim file."""

    about: str = ""
    """For readers of the file; nothing prints it."""
    statement: Statement
    """The sentence under test."""
    arms: Annotated[tuple[Arm, ...], Field(min_length=2)]
    """Models and ways of using them."""
    common: Annotated[dict[str, JsonValue], Field(default_factory=dict)]
    """Settings of every trained arm's recipe by dotted path."""
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...], Field(min_length=1)]
    """Of the recipes: initial weights and the order of the data."""
    tuning: Tuning
    """How learning rates are found."""
    eval_tokens: Annotated[int, Field(ge=1)] = 100_000
    """Held-out tokens of the comparison, at most: whole documents."""
    curve: Curve = Curve()
    """What else the picture shows."""
    clock_rounds: Annotated[int, Field(ge=0)] = 3
    """How often scoring is timed, the arms taking turns; 0: not at all."""

    @property
    def trained(self) -> tuple[TrainedArm, ...]:
        """In the file's order."""
        return tuple(arm for arm in self.arms if isinstance(arm, TrainedArm))

    def arm(self, name: str) -> TrainedArm | UsedArm | MixedArm:
        """By its name."""
        return next(arm for arm in self.arms if arm.name == name)

    def root(self, name: str) -> TrainedArm:
        """The trained arm behind a trained or a used one."""
        arm = self.arm(name)
        while isinstance(arm, UsedArm):
            arm = self.arm(arm.of)
        assert isinstance(arm, TrainedArm)
        return arm

    def waves(self) -> list[list[UsedArm | MixedArm]]:
        """The arms that are not trained, in groups each of which needs only the groups before it.

        Raises:
            ValueError: arms that need each other.
        """
        known = {arm.name for arm in self.trained}
        left = [arm for arm in self.arms if not isinstance(arm, TrainedArm)]
        waves = []
        while left:
            ready = [arm for arm in left if known.issuperset(needs(arm))]
            if not ready:
                raise ValueError(f"arms need each other: {', '.join(arm.name for arm in left)}")
            waves.append(ready)
            known.update(arm.name for arm in ready)
            left = [arm for arm in left if arm not in ready]
        return waves

    @model_validator(mode="after")
    def _known_names(self) -> Self:
        names = [arm.name for arm in self.arms]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two arms are called {', '.join(sorted(twice))}")
        for arm in self.arms:
            _refuse_strangers(f"arm {arm.name}", needs(arm), names)
        _refuse_strangers("statement", (self.statement.better, *self.statement.than), names)
        if self.statement.better in self.statement.than:
            raise ValueError(f"statement: {self.statement.better} is compared with itself")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: a seed stands there twice; a repeated run is no further evidence")
        self.waves()
        return self

    @model_validator(mode="after")
    def _possible_arms(self) -> Self:
        for arm in self.arms:
            if not isinstance(arm, UsedArm):
                continue
            base = self.arm(arm.of)
            if isinstance(base, MixedArm):
                raise ValueError(
                    f"arm {arm.name}: {arm.of} is a mixture of models, not one that could think otherwise"
                )
            if isinstance(base, UsedArm) and (
                isinstance(arm.effort, PLAIN) or not isinstance(base.effort, PLAIN)
            ):
                raise ValueError(f"arm {arm.name}: name the trained arm behind {arm.of} as `of`")
        better = self.arm(self.statement.better)
        if isinstance(better, UsedArm) and isinstance(better.effort, Oracle):
            raise ValueError(f"statement: {better.name} reads the targets; it is a bound and can win nothing")
        return self


def needs(arm: TrainedArm | UsedArm | MixedArm) -> tuple[str, ...]:
    """Names of the arms that have to be scored before this one."""
    if isinstance(arm, TrainedArm):
        return ()
    if isinstance(arm, MixedArm):
        return (*arm.mix, arm.to)
    return (arm.of, arm.effort.to) if isinstance(arm.effort, Matched) else (arm.of,)


def read_claim(path: Path) -> Claim:
    """The claim in a file.

    Raises:
        ConfigError: there is none, or it is not one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror or error}.",
            "Name a claim file, such as benchmarks/claims/smoke.json; what stands in one: docs/claim.md",
        ) from error
    try:
        return Claim.model_validate_json(text)
    except ValidationError as error:
        lines = [explain(problem["loc"], problem["msg"]) for problem in error.errors()]
        raise ConfigError(
            f"{path} is not a claim that can be tested:\n" + "\n".join(lines),
            "What stands in one: docs/claim.md",
        ) from None


def quickened(claim: Claim) -> Claim:
    """The same claim in little, to see that it works: two seeds, two learning rates, 20 steps, few documents."""
    first = claim.tuning.learning_rates[:2]
    return claim.model_copy(
        update={
            "seeds": claim.seeds[:2],
            "common": {**_without_length(claim.common), "train.steps": 20},
            "tuning": claim.tuning.model_copy(update={"learning_rates": first, "steps": 10, "tokens": 2_000}),
            "arms": tuple(_of_usual_length(arm) for arm in claim.arms),
            "eval_tokens": min(claim.eval_tokens, 6_000),
            "clock_rounds": min(claim.clock_rounds, 1),
        }
    )


def _of_usual_length(arm: TrainedArm | UsedArm | MixedArm) -> TrainedArm | UsedArm | MixedArm:
    if not isinstance(arm, TrainedArm):
        return arm
    return arm.model_copy(update={"set": _without_length(arm.set)})


def _without_length(settings: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {path: value for path, value in settings.items() if path not in ("train.steps", "train.epochs")}


def as_json(claim: Claim) -> Any:
    """JSON-ready."""
    return json.loads(claim.model_dump_json())


def _refuse_strangers(where: str, named: Iterable[str], names: list[str]) -> None:
    strangers = [name for name in named if name not in names]
    if strangers:
        raise ValueError(f"{where}: there is no arm {strangers[0]!r}; there are {', '.join(names)}")


def explain(location: tuple[int | str, ...], why: str) -> str:
    """A line about one thing that pydantic refuses."""
    where = ".".join(str(part) for part in location)
    why = why.removeprefix("Value error, ")
    return f"  {where}: {why}" if where else f"  {why}"
