"""The rule about what a model writes: its samples."""

from __future__ import annotations

from typing import ClassVar

from ourospec.telemetry.alarms.learning import LearningRule
from ourospec.telemetry.alarms.rule import Words
from ourospec.telemetry.reading import Reading


class Repetition(LearningRule):
    """The likeliest tokens after all prompts together are mostly one and the same, or only two are different.

    Greedy text of a sound small model goes in circles, too (Holtzman et al. 2020, arXiv 1904.09751): dense_lm/smoke,
    trained for 1,000 steps on Python source, writes "the the the" after every prompt, which is 4 different bytes of
    128, the most frequent one a quarter to 44% of them. At step 50 it wrote one byte alone: every model begins so, and
    the beginning of a run is not judged. Nor are fewer tokens than `LEAST`, since short answers may well be alike.
    """

    name = "repetition"
    TOP: ClassVar[float] = 0.6
    """Share of the most frequent token."""
    DISTINCT: ClassVar[float] = 0.02
    """Share of the different ones: two of 128. The smallest sudoku has four digits, a way through a maze four moves."""
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
            cause="It has fallen back on what is most frequent, whatever came before: the learning rate is too high, "
            "or the data hold little else.",
            command=self.slower(),
        )
