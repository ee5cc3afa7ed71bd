"""The schema in telemetry/events.py is true: a real run writes what it names, and nothing else."""

import re

import pytest

from ourospec import cli
from ourospec.runs import RunDirectory
from ourospec.telemetry import events

OPTIMISERS = {"muon_lr", "max_logit", "clipped_heads"}
BEST = {"best", "best_loss", "best_step"}
SOMETIMES = {
    "aux_loss",
    "aux_per_call",
    "audit_layer",
    "stopped_early",
    "unit",
    "layer_zero_point",
    "stage",
    *BEST,
    *OPTIMISERS,
}
"""Reported with experts, on audits, of which a short run may have none, by runs that ended before their time, by
those whose targets are no tokens, where passes are rationed, in curricula, with best weights kept, or with other
optimisers than AdamW."""
OF_PUZZLES = {"exact_match", "answers", "tasks"}
KINDS = ("start", "step", "eval", "sample", "checkpoint", "warning", "end")


def documented():
    """Kind -> names of the fields that the schema lists under it. What stands in brackets explains."""
    text = events.__doc__.partition("What each kind holds:")[2].partition("A new optional field")[0]
    text = re.sub(r"^  of .*$", ";", text, flags=re.M)
    while (shorter := re.sub(r"\([^()]*\)|\[[^][]*\]", "", text)) != text:
        text = shorter
    sections = re.split(rf"^({'|'.join(KINDS)})\b", text, flags=re.M)[1:]
    lists = dict(zip(sections[::2], sections[1::2], strict=True))
    return {kind: {name.strip() for name in re.split(r"[,;]", listed)} for kind, listed in lists.items()}


def written(run):
    """Kind -> names of all fields that its events hold."""
    found = {}
    for event in RunDirectory(run).read_events():
        found.setdefault(event["kind"], set()).update(event.keys() - set(events.ENVELOPE))
    return found


def test_a_run_writes_exactly_what_the_schema_names(trained):
    schema, found = documented(), written(trained.path)
    assert set(schema) == set(KINDS)
    for kind in found.keys() - {"eval"}:
        assert schema[kind] - SOMETIMES == found[kind] - SOMETIMES, kind
    assert schema["eval"] - OF_PUZZLES - BEST == {name for name in found["eval"] if not name.endswith("_se")}
    assert {"start", "step", "eval", "sample", "checkpoint", "end"} <= set(found)


@pytest.mark.parametrize(
    "name", ["source", "corpus_fingerprint", "split", "near_duplicates", "train", "heldout"]
)
def test_the_data_of_the_start_is_described(trained, name):
    data = next(iter(RunDirectory(trained.path).read_events()))["data"]
    assert name in data
    for told in (data, data["train"], data["heldout"]):
        assert all(re.search(rf"\b{key}\b", events.__doc__) for key in told)


def test_puzzles_report_their_answers(corpus, tmp_path):
    run = tmp_path / "run"
    options = [
        "--train.steps",
        "1",
        "--train.eval-every",
        "1",
        "--data.source",
        "puzzle",
        "--data.tokenizer",
        "byte",
    ]
    options += ["--data.source.heldout-examples", "4"]
    assert cli.main(["train", "dense_lm/smoke", "--quiet", "--run", str(run), *options]) == 0
    told = {name for name in written(run)["eval"] if not name.endswith("_se")}
    assert OF_PUZZLES <= told <= documented()["eval"]


def test_optimisers_report_what_they_do(corpus, tmp_path):
    run = tmp_path / "run"
    options = ["--train.steps", "1", "--prompts", "x", "--optim.muon", "on", "--optim.qk-clip", "on"]
    assert cli.main(["train", "dense_lm/smoke", "--quiet", "--run", str(run), *corpus, *options]) == 0
    assert written(run)["step"] >= OPTIMISERS <= documented()["step"]


def test_rations_are_reported_in_place_of_a_price(corpus, tmp_path):
    run = tmp_path / "run"
    options = [
        "--train.steps",
        "1",
        "--prompts",
        "x",
        "--objective.price",
        "quota",
        "--objective.credit",
        "none",
    ]
    options += ["--model.depth.weight", "survival"]
    assert cli.main(["train", "adaptive_lm/smoke", "--quiet", "--run", str(run), *corpus, *options]) == 0
    assert "layer_zero_point" in written(run)["step"] <= documented()["step"]
    assert not {"price", "price_next", "deadband"} & written(run)["step"]


def test_experts_report_what_balancing_costs(corpus, tmp_path):
    run = tmp_path / "run"
    options = [
        "--run",
        str(run),
        *corpus,
        "--train.steps",
        "1",
        "--prompts",
        "x",
        "--model.moe",
        "on",
        "--quiet",
    ]
    assert cli.main(["train", "adaptive_lm/smoke", *options]) == 0
    assert written(run)["step"] <= documented()["step"]
    assert {"aux_loss", "aux_per_call"} <= written(run)["step"]
