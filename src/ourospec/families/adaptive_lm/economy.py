"""The market for passes: a controller that moves the price until tokens buy as much depth as they should.

A price is in nats per pass. What it does to the gates is the business of credit.py; here is how it is found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ourospec.config import Config

BAND_ABOVE, BAND_BELOW = 1.05, 0.98


class DualAscentConfig(Config):
    """price ← price + rate · scale · (executed passes − target), after every step that the gates decided.

    The passes are those that the gates asked for, mean over tokens and layers: what exploration and audits add is not
    held against them. `scale` is the credit's (credit.py): the spread of what tokens bid, or a typical price.

    Deadband: once the smoothed error has stayed within `tolerance` for `patience` steps, the price rests while the
    depth is between −2% and +5% of the target, and moves at half the rate towards the nearer edge outside. It is
    released when the smoothed error leaves 1.5 times the tolerance.
    """

    kind: Literal["dual"] = "dual"
    target: Annotated[float, Field(ge=1)] = 1.3
    """Executed passes per token and layer that are to be spent."""
    start: float = 0.0
    """Price with which the market opens, in nats per pass."""
    floor: float = -0.5
    """Least price. A negative one is a subsidy: tokens run passes that promise them nothing."""
    ceiling: float = 0.5
    """Greatest price."""
    rate: Annotated[float, Field(gt=0)] = 0.15
    """Price change per pass of error, in units of the credit's scale."""
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.02
    """Smoothed error, relative to the target, within which the deadband engages."""
    patience: Annotated[int, Field(ge=1)] = 20
    """Steps that the error must stay within the tolerance."""
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Decay per step of the smoothed error."""

    @model_validator(mode="after")
    def _bounds(self) -> DualAscentConfig:
        if not self.floor <= self.start <= self.ceiling:
            raise ValueError("floor <= start <= ceiling is needed")
        return self


class ConstantPriceConfig(Config):
    """The price stands still, and the depth is whatever it buys."""

    kind: Literal["constant"] = "constant"
    price: Annotated[float, Field(ge=0)] = 0.02
    """Nats per pass."""


class LegacyConfig(Config):
    """The literal rules of Ouro-Spec 1.0, kept for comparison.

    Their defects, each seen in its author's own log: the soft depth is held at the target, so that the executed one may
    be half a pass above it; the bill is a sum over layers of 0.85 · soft + 0.15 · deepest token, whose second part has
    no gradient; the deadband engages when the *price* has been above the middle of its range for 100 steps, not when
    the depth is near its target, and never releases; its rate of 5e-5 is the same whatever the depth costs.
    """

    kind: Literal["legacy"] = "legacy"
    target: Annotated[float, Field(ge=1)] = 1.3
    """Soft passes per token and layer."""
    rate: Annotated[float, Field(gt=0)] = 5e-5
    """Price change per pass of error."""
    floor: Annotated[float, Field(ge=0)] = 1e-4
    """Least price, with which it starts, too."""
    ceiling: Annotated[float, Field(gt=0)] = 5e-2
    """Greatest price."""

    @model_validator(mode="after")
    def _bounds(self) -> LegacyConfig:
        if not self.floor < self.ceiling:
            raise ValueError("floor < ceiling is needed")
        return self


class QuotaConfig(Config):
    """No price: each layer's passes are rationed, and go to those of its tokens whose gates ask loudest.

    A gate's logit counts from its layer's zero point, which after every step, forced ones too, moves towards the place
    from which that step's tokens would have run the target. So all layers hold the same target, whatever the gates have
    learned, and none can shut. Meant for gates that learn through the survival (credit none): there a price in the loss
    moves all gates of a layer together, and it swings between open and shut (docs/log.md).

    The idea of moving a bias instead of billing is that of the balancing of experts without a loss (arXiv 2408.15664).
    """

    kind: Literal["quota"] = "quota"
    target: Annotated[float, Field(ge=1)] = 1.3
    """Executed passes per token that each layer is to spend."""
    rate: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the way that a zero point goes in a step."""


PriceConfig = Annotated[
    DualAscentConfig | ConstantPriceConfig | LegacyConfig | QuotaConfig, Field(discriminator="kind")
]


@dataclass
class Controller:
    """A price that stands still, and what the others have in common with it. All of it goes into checkpoints."""

    price: float
    deadband: bool = False
    deadband_steps: int = 0
    """Steps since the deadband engaged."""
    within: int = 0
    """Steps that the condition of the deadband has held."""
    error: float | None = None
    """Smoothed, relative to the target."""

    target: float | None = None
    floor: float = 0.0
    ceiling: float = float("inf")
    uses_soft_depth: bool = False
    zero_points: list[float] = field(default_factory=list)
    """Of each layer's gates, in logits; empty where passes have a price instead."""

    def update(self, depth: float, scale: float) -> None:
        """Hear the mean depth of a step that the gates decided."""
        del depth, scale

    def inherit(self, state: Mapping[str, Any]) -> None:
        """Begin where another market ended whose gates these are: its target may have been another."""
        self.set(float(state.get("price", self.price)))

    def ration(self, distances: Sequence[float]) -> None:
        """Hear, layer by layer, how far a step's zero points were from where its tokens would have run the target."""
        del distances

    def set(self, price: float) -> float:
        """Take this price, as far as floor and ceiling allow, and find the deadband anew."""
        self.price = self._bounded(price)
        self.deadband, self.deadband_steps, self.within, self.error = False, 0, 0, None
        return self.price

    def _ascend(self, rate: float, target: float, depth: float) -> None:
        """Raise the price where too much is spent, lower it where too little; in the deadband at half the rate, from
        the band's edges."""
        if not self.deadband:
            step = rate * (depth - target)
        elif depth > BAND_ABOVE * target:
            step = rate / 2 * (depth - BAND_ABOVE * target)
        elif depth < BAND_BELOW * target:
            step = rate / 2 * (depth - BAND_BELOW * target)
        else:
            step = 0.0
        self.price = self._bounded(self.price + step)

    def _bounded(self, price: float) -> float:
        return min(max(price, self.floor), self.ceiling)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        kept = ("price", "deadband", "deadband_steps", "within", "error")
        return {name: value for name, value in asdict(self).items() if name in kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the saved one."""
        for name, value in state.items():
            setattr(self, name, value)


@dataclass
class DualAscent(Controller):
    """See DualAscentConfig."""

    config: DualAscentConfig = DualAscentConfig()  # noqa: RUF009  (frozen)

    def update(self, depth: float, scale: float) -> None:
        config = self.config
        error = depth / config.target - 1
        self.error = (
            error if self.error is None else self.error + (1 - config.smoothing) * (error - self.error)
        )
        self._ascend(config.rate * scale, config.target, depth)
        self._engage(abs(self.error))

    def _engage(self, error: float) -> None:
        if self.deadband:
            self.deadband_steps += 1
            if error > 1.5 * self.config.tolerance:
                self.deadband, self.deadband_steps, self.within = False, 0, 0
            return
        self.within = self.within + 1 if error <= self.config.tolerance else 0
        self.deadband = self.within >= self.config.patience


@dataclass
class Legacy(Controller):
    """See LegacyConfig."""

    config: LegacyConfig = LegacyConfig()  # noqa: RUF009  (frozen)

    def update(self, depth: float, scale: float) -> None:
        del scale
        config = self.config
        self._ascend(config.rate, config.target, depth)
        self.deadband_steps += self.deadband
        high = (self.price - config.floor) / (config.ceiling - config.floor) >= 0.5
        self.within = self.within + 1 if high else max(self.within - 1, 0)
        self.deadband = self.deadband or self.within >= 100


@dataclass
class Quota(Controller):
    """See QuotaConfig. The price is 0 throughout."""

    config: QuotaConfig = QuotaConfig()  # noqa: RUF009  (frozen)

    def ration(self, distances: Sequence[float]) -> None:
        pairs = zip(self.zero_points, distances, strict=True)
        self.zero_points = [point + self.config.rate * distance for point, distance in pairs]

    def inherit(self, state: Mapping[str, Any]) -> None:
        self.zero_points = [float(point) for point in state.get("zero_points", self.zero_points)]

    def state_dict(self) -> dict[str, Any]:
        return {"zero_points": self.zero_points}


def open_market(config: PriceConfig, layers: int = 1) -> Controller:
    """The controller that a configuration asks for."""
    if config.kind == "quota":
        return Quota(0.0, target=config.target, zero_points=[0.0] * layers, config=config)
    if config.kind == "dual":
        return DualAscent(
            config.start, target=config.target, floor=config.floor, ceiling=config.ceiling, config=config
        )
    if config.kind == "legacy":
        return Legacy(
            config.floor,
            target=config.target,
            floor=config.floor,
            ceiling=config.ceiling,
            uses_soft_depth=True,
            config=config,
        )
    return Controller(config.price)
