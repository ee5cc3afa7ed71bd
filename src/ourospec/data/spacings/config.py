"""Which spacings there are to learn from, and which of them are held out."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ourospec.config import Config, absolute

Seed = Annotated[int, Field(ge=0, lt=2**31)]
Count = Annotated[int, Field(ge=2, le=100_000_000)]


class ZerosSource(Config):
    """Zeros of the zeta function, computed here (once; then they lie in the cache)."""

    kind: Literal["zeros"] = "zeros"
    """Which source."""
    count: Count = 2_001_052
    """How many zeros; the default is those below 1,132,490.66, which the document used."""
    start: Annotated[int, Field(ge=1)] = 1
    """Number of the first one, from 1."""

    def describe(self) -> str:
        return f"zeros number {self.start:,} to {self.start + self.count - 1:,}"


class TableSource(Config):
    """Heights from a file, one a line."""

    kind: Literal["table"] = "table"
    """Which source."""
    path: Annotated[str, AfterValidator(absolute)]
    """The file."""
    check: bool = True
    """Whether every height is held against the zero that is computed here, as `ouro zeros --check` does: a zero that is
    missing would be a spacing of 2. Without, the heights may be those of anything, and have to rise."""

    def describe(self) -> str:
        return f"table {self.path}"


ZetaSource = Annotated[ZerosSource | TableSource, Field(discriminator="kind")]


class GueSource(Config):
    """A null: spacings of simulated matrices of the Gaussian unitary ensemble, from the bulk, unfolded exactly."""

    kind: Literal["gue"] = "gue"
    """Which source."""
    count: Count = 2_000_000
    """How many spacings."""
    seed: Seed = 0
    """Of the matrices."""

    def describe(self) -> str:
        return f"{self.count:,} spacings of simulated GUE matrices, seed {self.seed}"


class WignerSource(Config):
    """A null: independent spacings from Wigner's surmise for the GUE, (32/π²) s² exp(−4s²/π)."""

    kind: Literal["wigner"] = "wigner"
    """Which source."""
    count: Count = 2_000_000
    """How many spacings."""
    seed: Seed = 0
    """Of the draws."""

    def describe(self) -> str:
        return f"{self.count:,} independent spacings of Wigner's surmise, seed {self.seed}"


class ShuffledSource(Config):
    """A null: the zeros' own spacings in a random order, so that nothing but their distribution is left."""

    kind: Literal["shuffled"] = "shuffled"
    """Which source."""
    of: ZetaSource = ZerosSource()
    """Whose spacings."""
    seed: Seed = 0
    """Of the order."""

    def describe(self) -> str:
        return f"{self.of.describe()}, spacings shuffled with seed {self.seed}"


class PhaseRandomisedSource(Config):
    """A null: the zeros' spectrum of spacings with random phases, so that nothing but linear memory is left."""

    kind: Literal["phase_randomised"] = "phase_randomised"
    """Which source."""
    of: ZetaSource = ZerosSource()
    """Whose spacings."""
    seed: Seed = 0
    """Of the phases."""

    def describe(self) -> str:
        return f"{self.of.describe()}, phases of the spacings random with seed {self.seed}"


SpacingSource = Annotated[
    ZerosSource | TableSource | GueSource | WignerSource | ShuffledSource | PhaseRandomisedSource,
    Field(discriminator="kind"),
]


class SpacingData(Config):
    """Spacings, and how they are split."""

    source: SpacingSource = ZerosSource()
    """Where they come from."""
    split: Literal["tail", "interleaved"] = "tail"
    """What is held out: "tail" the last tenth of all windows, an extrapolation in height; "interleaved" every tenth
    block."""
    window: Annotated[int, Field(ge=2)] = 256
    """Spacings of a window: the tail is counted in them, as in the document (781 of 7,816)."""
    block: Annotated[int, Field(ge=2)] = 25_600
    """Spacings of a block of the interleaved split."""
