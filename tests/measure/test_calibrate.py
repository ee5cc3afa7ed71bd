"""A threshold meets its budget on the sample, or says that none does; what is kept is for these weights alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.contracts import Effort
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.measure.calibrate import (
    MOST_SCORES,
    TOLERANCE,
    Bench,
    DepthCurve,
    calibrate,
    mean_passes,
    refuse_untaught,
)
from ourospec.measure.calibration_record import (
    Budget,
    Calibrated,
    Pace,
    Weights,
    budget_beside,
    keep_calibrated,
    look_up,
    read_calibration,
)
from ourospec.measure.likelihood import Likelihood, score_documents
from ourospec.measure.sample import sample_documents
from ourospec.runs import RunDirectory

from .toy import END, Doc, adaptive, doc

Curve = Callable[[float], float]


def likelihood(passes: float, nats: float = 2.0) -> Likelihood:
    """Two documents of a million tokens, two layers, with a mean depth to six places."""
    count = 1_000_000
    spent = np.full((2, 2), round(passes * count))
    ones = np.ones(2)
    counts = np.full(2, count)
    return Likelihood(nats * count * ones, counts, counts, 3 * counts, spent, passes * ones)


def curve_of(depth: Curve) -> tuple[DepthCurve, list[float]]:
    asked: list[float] = []

    def score(threshold: float) -> Likelihood:
        asked.append(threshold)
        return likelihood(depth(threshold))

    return DepthCurve(score), asked


def logistic(centre: float, slope: float) -> Curve:
    """From 3 passes at threshold 0 to 1 at threshold 1, steepest at the log-odds `centre`."""

    def depth(threshold: float) -> float:
        if threshold in (0, 1):
            return 3.0 - 2 * threshold
        odds = math.log(threshold) - math.log1p(-threshold)
        return 1 + 2 / (1 + math.exp(min(slope * (odds - centre), 700)))

    return depth


@settings(max_examples=60, deadline=None)
@given(wanted=st.floats(1, 3), centre=st.floats(-12, 12), slope=st.floats(0.3, 300))
def test_a_depth_between_the_ends_is_found(wanted: float, centre: float, slope: float) -> None:
    curve, asked = curve_of(logistic(centre, slope))
    found = curve.find(wanted)
    assert abs(curve.depth(found) - wanted) <= TOLERANCE
    assert len(asked) == len(set(asked)) <= MOST_SCORES
    assert 0 <= found <= 1


def test_a_second_budget_uses_what_is_known() -> None:
    curve, asked = curve_of(logistic(0.0, 1.0))
    curve.find(1.7)
    before = len(asked)
    curve.find(1.7)
    assert len(asked) == before


def test_where_the_depth_jumps_the_nearer_side_is_taken() -> None:
    curve, asked = curve_of(lambda threshold: 2.5 if threshold <= 0.37 else 1.2)
    assert curve.depth(curve.find(1.5)) == 1.2
    assert curve.depth(curve.find(2.2)) == 2.5
    assert len(asked) <= 2 * MOST_SCORES


@pytest.mark.parametrize("wanted", [0.9, 1.05, 2.6, 4.0])
def test_a_depth_beyond_the_ends_is_refused_with_the_ends(wanted: float) -> None:
    curve, _ = curve_of(lambda threshold: 2.5 - 1.3 * threshold)
    with pytest.raises(ConfigError, match=r"1\.200 to 2\.500"):
        curve.find(wanted)


def texts(number: int = 40) -> list[Doc]:
    generator = np.random.default_rng(5)
    return [
        doc(*generator.integers(0, END, length).tolist()) for length in generator.integers(10, 60, number)
    ]


def no_pace(efforts: Sequence[Effort | None]) -> list[Pace]:
    raise AssertionError("a budget of passes is not timed")


@pytest.mark.parametrize("readout", [None, "update"])
def test_a_models_depth_meets_its_budget_on_the_sample(policy: DevicePolicy, readout: str | None) -> None:
    model, documents = adaptive(), texts()

    def score(effort: Effort | None) -> Likelihood:
        return score_documents(model, documents, END, 32, policy, effort=effort)

    least, most = (mean_passes(score(Effort(threshold=t, readout=readout))) for t in (1.0, 0.0))
    assert most > least + 0.2
    budgets = [Budget(least + share * (most - least), "passes", readout) for share in (0, 0.3, 0.7, 1)]
    for budget, entry in zip(budgets, calibrate(budgets, Bench(score, no_pace, "here")), strict=True):
        again = score(entry.effort())
        assert entry.effort().readout == readout
        assert entry.figures.mean_passes == mean_passes(again)
        assert abs(mean_passes(again) - budget.amount) <= TOLERANCE
        assert entry.met
        trained = score(None)
        assert entry.as_trained.loss == pytest.approx(trained.summary()["loss"])
        assert entry.loss_change == pytest.approx(entry.figures.loss - entry.as_trained.loss)
        assert (entry.documents, entry.tokens) == (len(documents), int(trained.tokens.sum()))


def test_a_model_without_gates_cannot_be_calibrated() -> None:
    def score(effort: Effort | None) -> Likelihood:
        if effort is not None:
            raise ConfigError("no threshold here")
        return likelihood(1.0)

    with pytest.raises(ConfigError, match="no gates"):
        calibrate([Budget(1.3)], Bench(score, no_pace, "here"))
    with pytest.raises(ConfigError, match="no threshold here"):
        calibrate([Budget(1.3, readout="update")], Bench(score, no_pace, "here"))


def test_gates_that_were_never_asked_are_not_calibrated() -> None:
    forced = Effort(forced_passes=2)
    with pytest.raises(ConfigError, match="forces its passes"):
        refuse_untaught([Budget(1.3, readout="update"), Budget(1.3)], forced, 10)
    refuse_untaught([Budget(1.3, readout="update")], forced, 10)
    refuse_untaught([Budget(1.3)], Effort(threshold=0.3), 10)
    refuse_untaught([Budget(1.3)], None, 10)


@pytest.mark.parametrize("amount", [0.5, 0.0, -1.0, math.nan, math.inf])
def test_what_is_no_budget_is_refused_before_anything_is_measured(amount: float) -> None:
    def score(effort: Effort | None) -> Likelihood:
        raise AssertionError("nothing needs to be measured for this")

    with pytest.raises(ConfigError, match="cannot be met"):
        calibrate([Budget(2.0), Budget(amount)], Bench(score, no_pace, "here"))


class Clockwork:
    """Takes 2 ms a token and 3 ms a pass, and more or less by a share drawn anew each time."""

    def __init__(self, noise: float = 0.0) -> None:
        self.generator, self.noise = np.random.default_rng(1), noise
        self.depth = logistic(0.5, 2.0)

    def score(self, effort: Effort | None) -> Likelihood:
        return likelihood(self.depth(0.3 if effort is None or effort.threshold is None else effort.threshold))

    def pace(self, efforts: Sequence[Effort | None]) -> list[Pace]:
        found = []
        for effort in efforts:
            passes = mean_passes(self.score(effort))
            ms = (2 + 3 * passes) * (1 + self.noise * float(self.generator.uniform(-1, 1)))
            found.append(Pace(ms=ms, spread=2 * self.noise * ms, repeats=5, mean_passes=passes))
        return found

    def meet(self, ms: float) -> Calibrated:
        return calibrate([Budget(ms, "ms")], Bench(self.score, self.pace, "clockwork"))[0]


@pytest.mark.parametrize("noise", [0.0, 0.04])
@pytest.mark.parametrize("ms", [5.0, 6.2, 7.5, 9.1, 11.0])
def test_a_budget_of_time_is_met_by_what_was_timed(ms: float, noise: float) -> None:
    entry = Clockwork(noise).meet(ms)
    assert entry.pace is not None
    assert entry.pace_as_trained is not None
    assert entry.met
    assert entry.achieved == entry.pace.ms
    assert abs(entry.pace.ms - ms) <= max(0.03 * ms, entry.pace.spread / 3)
    assert entry.figures.mean_passes == pytest.approx((ms - 2) / 3, abs=0.1 + noise * ms)
    assert entry.machine == "clockwork"


def test_a_budget_of_time_beyond_the_models_own_is_refused_with_the_model_s_own() -> None:
    with pytest.raises(ConfigError, match=r"takes 5\.00 ms already"):
        Clockwork().meet(4.0)
    with pytest.raises(ConfigError, match=r"takes 11\.00 ms"):
        Clockwork().meet(15.0)


WEIGHTS = Weights(100, "ab" * 32)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path)


def entry_of(
    amount: float, unit: str = "passes", readout: str | None = None, threshold: float = 0.4
) -> Calibrated:
    found = Clockwork().meet(6.0)
    return found.model_copy(
        update={"amount": amount, "unit": unit, "readout": readout, "threshold": threshold}
    )


def test_what_is_kept_comes_back_as_it_was(run: RunDirectory) -> None:
    assert read_calibration(run) is None
    entries = [entry_of(1.3), entry_of(2.0), entry_of(12.0, "ms"), entry_of(1.3, readout="update")]
    record = keep_calibrated(run, WEIGHTS, entries)
    assert read_calibration(run) == record
    for entry in entries:
        assert look_up(run, WEIGHTS, entry.budget) == entry
    assert look_up(run, WEIGHTS, Budget(0.1 + 1.2)).amount == 1.3
    assert json.loads(run.calibration.read_text())["version"] == 1
    assert [path.name for path in run.path.iterdir()] == ["calibration.json"], "nothing half-written stays"


def test_a_budget_calibrated_again_takes_the_old_ones_place(run: RunDirectory) -> None:
    keep_calibrated(run, WEIGHTS, [entry_of(1.3), entry_of(2.0)])
    record = keep_calibrated(run, WEIGHTS, [entry_of(1.3, threshold=0.7)])
    assert [(entry.amount, entry.threshold) for entry in record.budgets] == [(1.3, 0.7), (2.0, 0.4)]


@pytest.mark.parametrize("newer", [Weights(200, "cd" * 32), Weights(100, "cd" * 32)])
def test_a_calibration_of_other_weights_is_refused_and_replaced(run: RunDirectory, newer: Weights) -> None:
    keep_calibrated(run, WEIGHTS, [entry_of(1.3), entry_of(2.0)])
    with pytest.raises(ConfigError, match="after step 100") as refused:
        look_up(run, newer, Budget(1.3))
    assert f"ouro calibrate {run.path} --budget 1.3" in str(refused.value)
    record = keep_calibrated(run, newer, [entry_of(1.5)])
    assert [entry.amount for entry in record.budgets] == [1.5]
    assert look_up(run, newer, Budget(1.5)).threshold == 0.4


@pytest.mark.parametrize(
    ("budget", "command"),
    [
        (Budget(1.4), "--budget 1.4"),
        (Budget(12, "ms"), "--budget-ms 12"),
        (Budget(1.3, readout="update"), "--budget 1.3 --readout update"),
    ],
)
def test_a_budget_that_was_not_calibrated_names_the_command(
    run: RunDirectory, budget: Budget, command: str
) -> None:
    for there in ("has no calibration", "only for 1.3 passes"):
        with pytest.raises(ConfigError, match=there) as refused:
            look_up(run, WEIGHTS, budget)
        assert str(refused.value).endswith(f"ouro calibrate {run.path} {command}")
        keep_calibrated(run, WEIGHTS, [entry_of(1.3)])


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2, "step": 1, "weights": "x", "budgets": []}'])
def test_a_file_that_is_no_calibration_is_refused_and_replaced(run: RunDirectory, text: str) -> None:
    run.calibration.write_text(text)
    with pytest.raises(ConfigError, match=r"calibration\.json is not a calibration") as refused:
        look_up(run, WEIGHTS, Budget(1.3))
    assert str(refused.value).endswith(f"ouro calibrate {run.path} --budget 1.3")
    keep_calibrated(run, WEIGHTS, [entry_of(1.3)])
    assert look_up(run, WEIGHTS, Budget(1.3)).threshold == 0.4


def test_a_budget_stands_alone_but_for_what_decides() -> None:
    assert budget_beside(1, None) == Budget(1.0)
    assert budget_beside(1.3, Effort()) == Budget(1.3)
    assert budget_beside(1.3, Effort(readout="update")) == Budget(1.3, readout="update")
    for depth in (Effort(threshold=0.3), Effort(max_passes=2), Effort(forced_passes=1)):
        with pytest.raises(ConfigError, match="together"):
            budget_beside(1.3, depth)


class Corpus:
    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = lengths

    @property
    def num_documents(self) -> int:
        return len(self.lengths)

    def document(self, number: int) -> Doc:
        return Doc(np.full(self.lengths[number], number), 3 * self.lengths[number])


def test_a_sample_is_of_whole_documents_and_of_pieces_of_long_ones() -> None:
    lengths = [*range(1, 40), 5_000]
    three = np.full(50, 3)
    seen_long = False
    for seed in range(20):
        chosen = sample_documents(Corpus(lengths), three, 400, seed)
        numbers = [int(document.tokens[0]) for document in chosen]
        assert len(set(numbers)) == len(numbers)
        assert 350 <= sum(len(document.tokens) + 1 for document in chosen) <= 400
        for number, document in zip(numbers, chosen, strict=True):
            assert len(document.tokens) == min(lengths[number], 50)
            assert document.num_bytes == 3 * len(document.tokens)
        seen_long |= 39 in numbers
        again = sample_documents(Corpus(lengths), three, 400, seed)
        assert [int(document.tokens[0]) for document in again] == numbers
    assert seen_long


def test_a_sample_of_a_single_endless_text_is_a_piece_of_it() -> None:
    (piece,) = sample_documents(Corpus([1_000_000]), np.full(3, 3), 800)
    assert len(piece.tokens) == 100
