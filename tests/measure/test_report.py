"""The report: it stands on its own, says what the run said, and nothing in a run can turn it against its reader."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ourospec.contracts import Event
from ourospec.errors import DataError, ResourceError
from ourospec.measure.report import write_report
from ourospec.measure.report.figures import draw_figures
from ourospec.measure.report.history import Moment, read_history
from ourospec.measure.report.ramp import COLOURS, ramp_index
from ourospec.measure.report.series import Series, smooth
from ourospec.measure.report.texts import ROUNDS, choose_rounds, scale_of
from ourospec.runs import RunDirectory
from ourospec.telemetry.events import encode

from .illnesses import PASSES
from .synthetic_run import TARGET, write_run

VOID = {"meta", "input", "link", "br", "img", "hr"}
THINKING = {"depth", "histogram", "survival", "layers", "layer-histogram", "layer-survival", "classes"}
MARKET = {"price", "error", "gain", "wins", "confidence"}
OTHERS = {
    f"other-{name}" for name in ("gate", "near_floor", "aux_loss", "aux_per_call", "ponder", "baton_ratio")
}
ALWAYS = {"loss", "bits", "rate", "gradient", "speed"}


class Page(HTMLParser):
    """A page taken apart: its elements, its visible text, its scripts. Asserts that tags are balanced."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] in ("script", "style"):
            self.scripts.append(data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)

    @property
    def figures(self) -> list[dict[str, Any]]:
        return json.loads(next(script for script in self.scripts if script.startswith("[")))

    def with_class(self, name: str) -> list[dict[str, str | None]]:
        return [attrs for _, attrs in self.elements if name in (attrs.get("class") or "").split()]


def report(run: RunDirectory) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def told(folder: Path, *events: Event, recipe: dict | None = None) -> RunDirectory:
    run = RunDirectory(folder / "run")
    run.path.mkdir()
    run.recipe.write_text(json.dumps(recipe or {"family": "dense_lm", "name": "smoke"}), encoding="utf-8")
    run.events.write_text("".join(encode(event, 1.79e9 + event.step) for event in events), encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def adaptive(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return write_run(tmp_path_factory.mktemp("adaptive"), steps=200)


@pytest.fixture(scope="module")
def page(adaptive: RunDirectory) -> Page:
    return report(adaptive)


def test_the_page_loads_nothing(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base", "img")
        assert not {"src", "href", "action", "srcset"} & set(attributes), (tag, attributes)
    policies = [a["content"] for tag, a in page.elements if tag == "meta" and "http-equiv" in a]
    assert policies and "default-src 'none'" in str(policies[0]), "and the browser is told to see to it"
    assert any("plotly.js" in script[:500] for script in page.scripts), "the plots' code is in it"


def test_headline(page: Page, adaptive: RunDirectory) -> None:
    score = [json.loads(line) for line in adaptive.events.open(encoding="utf-8")]
    last = [event for event in score if event["kind"] == "eval"][-1]
    assert "adaptive_lm / tiny" in page.text
    assert "complete" in page.text
    for number in (
        f"{last['bits_per_byte']:.3f}",
        "± 0.019",
        f"{last['loss']:.3f}",
        "2.14",
        "13.1",
        "MFLOP/token",
    ):
        assert number in page.text
    assert (
        "5.31 M parameters read 819 k tokens in 1 min 44 s and were tested on 38 held-out documents."
        in page.text
    )


def test_the_text_that_was_read_is_among_the_facts(tmp_path: Path) -> None:
    sides = {side: {"documents": 1, "tokens": 9000, "bytes_per_token": 3.0} for side in ("train", "heldout")}
    start = Event("start", 0, {"data": {"source": "files <b>x</b>", **sides}})
    score = Event("eval", 1, {"loss": 3.0, "bits_per_byte": 1.5, "documents": 1, "tokens": 9000})
    text = report(told(tmp_path, start, score)).text
    assert "files <b>x</b>" in text
    assert text.count("9.00 k tokens in 1 document") == 2
    assert "tested on 1 held-out document." in text


def test_every_plot_has_its_place(page: Page) -> None:
    places = {str(attrs["id"]) for attrs in page.with_class("plot")}
    assert places == {f"plot-{figure['name']}" for figure in page.figures}
    assert {figure["name"] for figure in page.figures} == ALWAYS | THINKING | MARKET | OTHERS


def test_plots_say_what_was_reported(adaptive: RunDirectory) -> None:
    events = [json.loads(line) for line in adaptive.events.open(encoding="utf-8")]
    figures = {figure.name: figure for figure in draw_figures(read_history(adaptive))}
    scored = [event for event in events if event["kind"] == "eval"]
    heldout = figures["loss"].data[-1]
    assert heldout["x"] == [event["step"] for event in scored]
    assert heldout["y"] == pytest.approx([event["loss"] for event in scored], rel=1e-5)
    assert heldout["error_y"]["array"] == pytest.approx([event["loss_se"] for event in scored])
    faint = figures["loss"].data[0]
    steps = [event for event in events if event["kind"] == "step"]
    assert faint["y"] == pytest.approx([event["lm_loss"] for event in steps], rel=1e-5), (
        "without the price of depth"
    )
    shares = np.array([trace["y"] for trace in figures["histogram"].data])
    policy = [event for event in steps if event["step_kind"] == "policy"]
    audits = [event for event in steps if event["step_kind"] == "audit"]
    assert audits
    assert shares.shape == (PASSES, len(steps) - len(audits)), "an audit's extra pass is nobody's choice"
    assert shares.sum(0) == pytest.approx(1, abs=1e-4)
    assert figures["survival"].data[-1]["y"] == pytest.approx(policy[-1]["survival"], rel=1e-4)
    assert figures["survival"].data[0]["y"] == pytest.approx(policy[0]["survival"], rel=1e-4), (
        "no forced step"
    )
    last = policy[-round(0.1 * (len(policy))) :]
    by_layer = np.mean([event["layer_s_trace"] for event in last], axis=0)
    drawn = np.array([trace["y"] for trace in figures["layer-survival"].data])
    assert drawn == pytest.approx(by_layer, rel=0.05)
    stacked = np.array([trace["y"] for trace in figures["layer-histogram"].data])
    assert stacked.sum(0) == pytest.approx(1, abs=1e-4)
    told = [event for event in steps if "control_error" in event]
    assert figures["error"].data[0]["y"] == pytest.approx(
        [e["control_error"] / TARGET for e in told], abs=1e-5
    )
    resting = [shape for shape in figures["price"].layout["shapes"] if shape["type"] == "rect"]
    shaded = {step for shape in resting for step in range(shape["x0"], shape["x1"] + 1)}
    assert shaded == {event["step"] for event in steps if event.get("deadband")}
    wins = [event["delta_ce"] > 0 for event in policy if "delta_ce" in event]
    assert figures["wins"].data[0]["y"][-1] == pytest.approx(np.mean(wins[-round(0.1 * len(wins)) :]))
    heat = figures["layers"].data[0]
    assert np.array(heat["z"]).shape == (4, len(heat["x"]))
    assert heat["z"][3][-1] > heat["z"][0][-1], "one row a layer"


def test_the_red_flags_of_a_run_stand_on_its_page(tmp_path: Path, page: Page) -> None:
    assert "Nothing to complain of." in page.text
    assert not page.with_class("finding")
    ill = report(write_run(tmp_path, steps=200, illness="collapsed"))
    assert "The depth has collapsed to one pass" in ill.text
    assert "ouro calibrate" in ill.text
    assert len(ill.with_class("finding")) == ill.text.count("Likely cause")


def test_a_price_is_drawn_where_somebody_could_move_it(tmp_path: Path) -> None:
    def drawn(**more: Any) -> list[str]:
        steps = [Event("step", n, {"loss": 3.0, "price": 0.01, **more}) for n in range(1, 9)]
        (tmp_path / str(len(more))).mkdir()
        return [f.name for f in draw_figures(read_history(told(tmp_path / str(len(more)), *steps)))]

    assert "price" not in drawn()
    assert "price" in drawn(control_error=0.3), "pinned at a bound"


def test_tokens_are_coloured_by_their_passes(page: Page, adaptive: RunDirectory) -> None:
    events = [json.loads(line) for line in adaptive.events.open(encoding="utf-8")]
    rounds = [event["samples"] for event in events if event["kind"] == "sample"]
    passes = [p for samples in rounds for sample in samples for p in sample["passes"]]
    tokens = page.with_class("t")
    assert [attrs["data-p"] for attrs in tokens] == [f"{p:.2f}" for p in passes]
    low, high = min(passes), max(passes)
    for attrs, p in zip(tokens, passes, strict=True):
        assert attrs["class"] == f"t r{ramp_index((p - low) / (high - low))}"
    assert len([attrs for attrs in page.with_class("round") if "hidden" not in attrs]) == 1, (
        "the last round is shown"
    )
    assert "passes a token took" in page.text


def test_a_plain_model_has_no_depth_to_show(tmp_path: Path) -> None:
    page = report(write_run(tmp_path, dense=True, steps=50))
    assert {figure["name"] for figure in page.figures} == ALWAYS
    assert not page.with_class("t")
    assert not page.with_class("legend")
    assert "depth" not in re.sub(r"depth\.\w+", "", page.text), "but for the recipe's own words"
    assert "def _parse_header" in page.text


def test_a_fixed_depth_is_said_in_words(tmp_path: Path) -> None:
    sample = {"prompt": "a", "text": "bc", "pieces": ["b", "c"], "passes": [2.0, 2.0]}
    page = report(told(tmp_path, Event("start", 0, {}), Event("sample", 1, {"samples": [sample]})))
    assert "every token took 2.00 passes" in page.text
    assert not page.with_class("t")


HOSTILE = '</script><script>alert("x")</script><img src=x onerror=alert(1)>&amp;\x1b[2J'


def test_nothing_in_a_run_becomes_part_of_the_page(tmp_path: Path) -> None:
    sample = {"prompt": HOSTILE, "text": HOSTILE, "pieces": [HOSTILE, "b"], "passes": [1.0, 2.0]}
    start = {"family": HOSTILE, "parameters": 1, "device": HOSTILE, "precision": HOSTILE, "total_steps": 1}
    run = told(
        tmp_path,
        Event("start", 0, start),
        Event("step", 1, {"loss": 1.0, HOSTILE: 2.0, "survival": [1.0, 0.5]}),
        Event("sample", 1, {"samples": [sample]}),
        Event("warning", 1, {"message": HOSTILE}),
        Event("end", 1, {"status": HOSTILE}),
        recipe={"family": HOSTILE, "name": HOSTILE, "model": {HOSTILE: HOSTILE}},
    )
    run.environment.write_text(
        json.dumps({"starts": [{"command": [HOSTILE], "packages": {HOSTILE: HOSTILE}}]})
    )
    page = report(run)
    assert [tag for tag, _ in page.elements if tag == "script"] == ["script"] * 3
    assert not any("onerror" in attrs for _, attrs in page.elements)
    assert "\x1b" not in page.text
    assert page.text.count("onerror=alert(1)") >= 8, "it is there to be read"


def test_a_run_that_has_only_started(tmp_path: Path) -> None:
    page = report(told(tmp_path, Event("start", 0, {"parameters": 12, "total_steps": 5})))
    assert "unfinished" in page.text
    assert "0 of 5" in page.text
    assert page.figures == []


def test_a_run_without_evaluations_shows_its_training_loss(tmp_path: Path) -> None:
    steps = [Event("step", n, {"loss": 4.0, "lr": 0.1, "grad_norm": None}) for n in range(1, 9)]
    page = report(told(tmp_path, Event("start", 0, {"total_steps": 8}), *steps))
    assert "4.000" in page.text
    assert "Training loss" in page.text
    assert [figure["name"] for figure in page.figures] == ["loss", "rate"]


def test_numbers_that_are_none_leave_no_nan(tmp_path: Path) -> None:
    score = {"loss": 3.0, "loss_se": float("nan"), "perplexity": float("inf"), "bits_per_byte": float("nan")}
    steps = [Event("step", n, {"loss": float("nan") if n == 2 else 3.0}) for n in range(1, 5)]
    page = report(told(tmp_path, Event("start", 0, {}), *steps, Event("eval", 4, score)))
    assert "nan" not in page.text.lower()
    drawn = json.dumps(page.figures)
    assert "NaN" not in drawn and "Infinity" not in drawn


def test_a_resumed_run_says_so_and_shows_each_round_once(tmp_path: Path) -> None:
    samples = [
        {"prompt": "", "text": text, "pieces": [text], "passes": [1.0]}
        for text in ("first try", "second try")
    ]
    run = told(
        tmp_path,
        Event("start", 0, {"total_steps": 9, "resumed_from": None}),
        Event("sample", 4, {"samples": samples[:1]}),
        Event("start", 4, {"total_steps": 9, "resumed_from": 4}),
        Event("sample", 4, {"samples": samples[1:]}),
        Event("warning", 4, {"message": "A damaged checkpoint was passed over."}),
    )
    text = report(run).text
    assert "Resumed at step 4." in text
    assert "A damaged checkpoint was passed over." in text
    assert "second try" in text
    assert "first try" not in text


def test_a_report_can_be_written_again(adaptive: RunDirectory) -> None:
    first = write_report(adaptive).read_bytes()
    assert write_report(adaptive).read_bytes() == first
    assert not [path for path in adaptive.path.iterdir() if path.name.startswith(".report")]


def test_nothing_to_report_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no events yet") as caught:
        write_report(told(tmp_path))
    assert "ouro train" in caught.value.remedy


@pytest.mark.parametrize("recipe", ["{", "[1]"])
def test_a_broken_recipe_is_an_error(tmp_path: Path, recipe: str) -> None:
    run = told(tmp_path, Event("start", 0, {}))
    run.recipe.write_text(recipe)
    with pytest.raises(DataError, match=r"recipe\.json"):
        write_report(run)


def test_a_report_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    run = told(tmp_path, Event("start", 0, {}))
    run.report.mkdir()
    with pytest.raises(ResourceError, match=r"report\.html"):
        write_report(run)


@given(values=st.lists(st.floats(-1e6, 1e6), max_size=200), half=st.integers(1, 16))
def test_a_long_series_is_thinned_without_bias(values: list[float], half: int) -> None:
    series = Series(capacity=2 * half)
    for step, value in enumerate(values, start=1):
        series.add(step, value)
    assert len(series) < 2 * half or len(series) == len(values) == 0
    each = series.each
    whole = len(values) // each
    assert len(series) == whole
    groups = np.array(values[: whole * each]).reshape(whole, each)
    assert series.values == pytest.approx(groups.mean(1), rel=1e-9, abs=1e-6)
    steps = np.arange(1, whole * each + 1).reshape(whole, each)
    assert series.steps == pytest.approx(steps.mean(1))


def test_a_series_leaves_out_what_it_cannot_hold() -> None:
    series = Series()
    for value in ([1.0, 2.0], [float("nan"), 2.0], [1.0], [3.0, 4.0]):
        series.add(1, value)
    assert series.vectors
    assert series.values.tolist() == [[1.0, 2.0], [3.0, 4.0]]


@given(values=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=40), width=st.integers(0, 50))
def test_smoothing_equals_its_slow_twin(values: list[float], width: int) -> None:
    expected = []
    for centre in range(len(values)):
        near = values[max(0, centre - width // 2) : centre + (width + 1) // 2]
        expected.append(sum(near) / len(near) if width >= 2 and len(values) >= 3 else values[centre])
    assert smooth(np.array(values), width) == pytest.approx(np.array(expected), abs=1e-8)


@given(st.lists(st.integers(0, 500), max_size=80))
def test_rounds_are_few_and_span_the_run(steps: list[int]) -> None:
    samples = [Moment(step, {"samples": [{"passes": [1.0, float(step)]}]}) for step in sorted(steps)]
    chosen = [moment.step for moment in choose_rounds(samples)]
    assert len(chosen) <= ROUNDS
    assert chosen == sorted(set(chosen))
    if steps:
        assert (chosen[0], chosen[-1]) == (min(steps), max(steps))
        assert scale_of(choose_rounds(samples)).high == max(1.0, *chosen)


def test_the_ramp_has_as_many_colours_as_the_style_sheet() -> None:
    css = (Path(__file__).parents[2] / "src/ourospec/measure/report/page.css").read_text(encoding="utf-8")
    assert [f"--r{n}:" in css and f".r{n} {{" in css for n in range(COLOURS + 1)] == [True] * COLOURS + [
        False
    ]
    assert [ramp_index(share) for share in (-1, 0, 0.5, 1, 2)] == [0, 0, 4, 8, 8]
