"""Puzzles by the verbs: trained on, resumed, measured by task and difficulty, all by any family of text."""

import json
import math

import pytest
import torch

from ourospec import api
from ourospec.contracts import Clock
from ourospec.data.puzzles.config import PuzzleSource
from ourospec.data.puzzles.lookup import PointerTask
from ourospec.data.puzzles.sudoku import SudokuTask
from ourospec.data.text import TextData
from ourospec.data.tokenizers import ByteTokenizerConfig
from ourospec.errors import Interrupted
from ourospec.recipe import TextRecipe, read_recipe
from ourospec.runs import RunDirectory
from ourospec.train.loop import fit
from ourospec.train.weights import load_weights

STAGES = [
    {"from_step": 0, "parts": [{"task": {"kind": "copy", "least": 1, "most": 2}}]},
    {"from_step": 3, "parts": [{"task": {"kind": "pointer"}}]},
]
SMALL = (
    "--train.eval-tokens",
    "300",
    "--train.sample-every",
    "0",
    "--data.source.heldout-examples",
    "30",
    "--quiet",
)
CURRICULUM = ("--data.source", "puzzle_curriculum", "--data.source.stages", json.dumps(STAGES), *SMALL)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """A short run over a curriculum."""
    from ourospec import cli

    run = tmp_path_factory.mktemp("runs") / "puzzles"
    assert cli.main(["train", "dense_lm/smoke", "--run", str(run), "--train.steps", "6", *CURRICULUM]) == 0
    return run


def test_evaluate_tells_exact_match_by_task_and_difficulty(asked, ouro):
    code, printed, _ = ouro("evaluate", str(asked))
    assert code == 0 and "exact match" in printed
    figures = json.loads(ouro("evaluate", str(asked), "--json")[1])
    assert [task["task"] for task in figures["tasks"]] == ["copy", "pointer"]
    for task in figures["tasks"]:
        assert sum(one["answers"] for one in task["bins"]) == task["answers"] == 30
        for one in task["bins"]:
            assert any(task["task"] in line and one["bin"] in line for line in printed.splitlines())
    assert figures["answers"] == figures["documents"] == 60


def test_the_events_tell_the_same_while_training(asked):
    events = list(RunDirectory(asked).read_events())
    start = events[0]
    assert start["data"]["source"] == "puzzles: copy, pointer" and 0 < start["tokens_per_step"] < 8 * 64
    (*_, last) = (event for event in events if event["kind"] == "eval")
    assert {"exact_match", "exact_match_se", "answers", "tasks"} <= last.keys()
    assert [len(event["tasks"]) for event in events if event["kind"] == "eval"][-1] == 2


def test_a_run_stopped_inside_a_stage_ends_like_one_that_was_not(asked, tmp_path):
    run = RunDirectory(tmp_path / "again")

    class Stopping:
        """Stops the run in the second stage, which began at step 3."""

        def on_event(self, event):
            if event.kind == "step" and event.step == 5:
                (run.path / ".pause").touch()

        def close(self):
            """Nothing is held open."""

    recipe = read_recipe(asked / "recipe.json")
    with pytest.raises(Interrupted, match="after step 5 of 6"):
        fit(recipe.assemble(run, (Stopping(),)))
    fit(recipe.assemble(run, ()))
    ends = [load_weights(place)[0] for place in (run, RunDirectory(asked))]
    assert ends[0].keys() == ends[1].keys() and all(
        torch.equal(ends[0][name], ends[1][name]) for name in ends[0]
    )


def test_a_trained_model_is_asked_other_puzzles_than_its_own(asked):
    harder = TextData(
        source=PuzzleSource(task=PointerTask(nodes=9, least_hops=5, most_hops=8), heldout_examples=10),
        tokenizer=ByteTokenizerConfig(),
    )
    found = api.load(asked).evaluate(harder)
    assert {one["bin"] for one in found["tasks"][0]["bins"]} <= {f"hops {hops}" for hops in range(5, 9)}
    assert found["answers"] == 10


def test_every_family_of_text_reads_them(tmp_path):
    """The loss of a step is of the answers alone, whoever the model is."""
    data = TextData(source=PuzzleSource(task=SudokuTask(size=4)), tokenizer=ByteTokenizerConfig())
    for name, preset in api.presets().items():
        if not name.endswith("/smoke") or not isinstance(preset(), TextRecipe):
            continue
        job = preset().model_copy(update={"data": data}).assemble(RunDirectory(tmp_path / "run"), ())
        (batch, *_) = job.stream.batches(0)
        step = job.objective(job.model, batch, None, Clock(0, 20))
        # Sixteen digits and an end for each puzzle, one of which fits into a row of 64.
        assert batch.num_targets == step.num_targets == 17 * len(batch.tokens)
        assert step.metrics["lm_loss"].total / step.num_targets == pytest.approx(math.log(257), rel=0.3)


def test_what_a_puzzle_needs_is_said(ouro):
    code, _, told = ouro("train", "dense_lm/smoke", "--data.source", "puzzle", "--data.tokenizer", "bpe")
    assert code == 2 and "--data.tokenizer byte" in told
    code, _, told = ouro("train", "dense_lm/smoke", "--data.source", "puzzle", "--data.source.task", "maze")
    assert code == 2 and "--train.window 116" in told
