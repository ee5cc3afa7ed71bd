"""The report of a run whose targets are no tokens."""

from pathlib import Path

from ourospec.contracts import Event
from ourospec.measure.report.figures import draw_figures
from ourospec.measure.report.history import read_history

from .test_report import report, told


def test_a_run_that_reads_no_text_is_told_in_its_own_unit(tmp_path: Path) -> None:
    side = {"spacings": 9000, "where": "heights 14 to 9,878"}
    about = {"unit": "spacing", "data": {"source": "zeros", "train": side, "heldout": side}}
    readings = {"loss": 2.0, "nll": 1.5, "tokens": 64, "tokens_per_second": 100.0, "seconds": 1.0}
    score = {"loss": 1.25, "loss_se": 0.03, "crps": 0.21, "crps_se": 0.01, "targets": 384}
    events = [Event("start", 0, about), *(Event("step", step, readings) for step in (1, 2))]
    run = told(tmp_path, *events, Event("eval", 2, score))
    page = report(run)
    text = page.text.replace("\n", " ")
    for words in (
        "nats per spacing",
        "9.00 k spacings, heights 14 to 9,878",
        "64 spacings",
        "0.210 ± 0.010",
        "384",
    ):
        assert words in text, words
    assert "1.500 nats per spacing" in text, "the likelihood alone, not all costs"
    for word in ("token", "perplexity", "bits", "document", "FLOP", "passes", "texts"):
        assert word not in text, word
    drawn = {figure.name: figure for figure in draw_figures(read_history(run))}
    assert list(drawn["loss"].data[0]["y"]) == [1.5, 1.5]
    assert "other-nll" not in drawn
