"""The rule about what a model writes: its samples."""

from __future__ import annotations

from typing import ClassVar

from ourospec.telemetry.alarms.learning import LearningRule
from ourospec.telemetry.alarms.rule import Words
from ourospec.telemetry.reading import Reading


class Repetition(LearningRule):
    """The likeliest tokens after all prompts together are nearly all one and the same, or only two or three.

    Greedy text of a sound small model goes in circles, too (Holtzman et al. 2020, arXiv 1904.09751), but in another one
    after each prompt, and each holds a few words: of 4 times 32 bytes some twenty are different, and a blank is a third.
    Every model begins by writing the most frequent token alone, so the beginning of a run is not judged; nor are fewer
    tokens than `LEAST`, since short answers may well be alike.
    """

    name = "repetition"
    TOP: ClassVar[float] = 0.6
    """Share of the most frequent token."""
    DISTINCT: ClassVar[float] = 0.03
    """Share of the different ones: three of 128. A way through a maze has four moves."""
    LEAST: ClassVar[int] = 32

    @property
    def patience(self) -> int:
        return 2

    def judge(self, reading: Reading) -> bool | None:
        if reading.kind == "step":
            self.warming_up(reading)  # for the learning rate, which the advice names
        total, distinct, top = map(
            reading.number, ("greedy_tokens", "distinct_token_ratio", "top_token_share")
        )
        if reading.kind != "sample" or total is None or distinct is None or top is None:
            return None
        if total < self.LEAST or reading.step <= self.setting.scaled(0.3, 500, 20_000):
            return None
        self._told = total, distinct, top
        return top > self.TOP or distinct < self.DISTINCT

    def words(self) -> Words:
        total, distinct, top = self._told
        return Words(
            title="The model repeats itself",
            evidence=f"Of the {total:.0f} likeliest tokens after the prompts {top:.0%} are one and the same, and "
            f"{round(distinct * total)} are different.",
            cause="It has fallen back on what is most frequent, whatever came before: the learning rate is too high, or "
            "the data hold little else.",
            command=self.slower(),
        )
