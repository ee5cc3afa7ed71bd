"""The guarantees that are about runs: held-out data, the metric, and exact resume; see test_guarantees.py."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ourospec import api
from ourospec.data.puzzles.config import CurriculumSource, Part, Stage
from ourospec.data.puzzles.lookup import CopyTask, NeedleTask
from ourospec.data.text import TextData, open_text
from ourospec.data.tokenizers import ByteTokenizerConfig
from ourospec.errors import Interrupted
from ourospec.families import PRESETS
from ourospec.families.recursive_lm.halting import HaltingConfig
from ourospec.families.recursive_lm.recipe import RecursiveRecipe
from ourospec.runs import RunDirectory
from ourospec.train.checkpoint import list_checkpoints


def tiny_run(tmp_path, **objective) -> RecursiveRecipe:
    """A curriculum whose second stage begins at step 4 of 10."""
    base = PRESETS["recursive_lm/smoke"]()
    stages = (
        Stage(from_step=0, parts=(Part(task=CopyTask(least=2, most=3)),)),
        Stage(from_step=4, parts=(Part(task=NeedleTask(length=12)),)),
    )
    data = TextData(
        source=CurriculumSource(stages=stages, heldout_examples=20),
        tokenizer=ByteTokenizerConfig(),
        cache=str(tmp_path / "cache"),
    )
    train = base.train.model_copy(
        update={
            "steps": 10,
            "window": 24,
            "batch_size": 4,
            "micro_batch_size": 2,
            "save_every": 5,
            "precision": "float32",
        }
    )
    model = base.model.model_copy(update={"max_length": 24})
    settings = base.objective.model_copy(update=objective)
    return base.model_copy(update={"data": data, "train": train, "model": model, "objective": settings})


def test_guarantee_8_held_out_puzzles_are_never_trained_on_and_scored_by_the_last_step(tmp_path):
    recipe = tiny_run(tmp_path)
    dataset = open_text(recipe.data)
    held = {bytes(document.tokens.astype("uint8")) for document in dataset.heldout.documents()}
    seen = set()
    for step in range(10):
        for rows in recipe.open_stream(dataset).batches(step):
            for row in rows.tokens.tolist():
                seen |= set(bytes(t if t < 256 else 0 for t in row).split(b"\0"))
    assert held and not held & seen
    api.train(recipe, tmp_path / "run")
    model = api.load(tmp_path / "run")
    figures = model.evaluate()
    puzzle = next(iter(dataset.heldout.documents()))
    stream = torch.tensor([dataset.tokenizer.end_id, *puzzle.tokens.tolist(), dataset.tokenizer.end_id])
    with torch.no_grad():
        output = model.model(stream[None, :-1])
        nats = F.cross_entropy(model.model.logits(output.states[0]), stream[1:], reduction="none")
    asked = puzzle.answers[0].targets(len(puzzle.tokens))
    alone = model.evaluate(most_tokens=1)
    assert alone["documents"] == 1
    assert alone["loss"] == pytest.approx(float(nats[asked].mean()), rel=1e-4)
    assert figures["documents"] == 40


class Pause:
    """Asks for a stop after some step."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_event(self, event):
        if event.kind == "step" and event.step == self.step:
            self.path.touch()

    def close(self):
        """Nothing is open."""


@pytest.mark.parametrize("segments", [1, 3])
def test_guarantee_9_a_run_stopped_within_a_stage_goes_on_bit_for_bit(tmp_path, segments):
    """With rows that are carried on from one optimiser step to the next, and running accuracies."""
    halting = HaltingConfig(target="running_accuracy", starts=0.0)
    recipe = tiny_run(tmp_path, segments=segments, halting=halting)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    api.train(recipe, whole)
    with pytest.raises(Interrupted):
        api.train(recipe, stopped, observers=[Pause(7, stopped / ".pause")])
    saved = list_checkpoints(RunDirectory(stopped))[-1]
    assert saved.name.endswith("7")
    carried = [name for name in load_file(saved / "state.safetensors") if name.startswith("carry/")]
    assert bool(carried) == (segments > 1)
    api.train(recipe, stopped)
    ends = [list_checkpoints(RunDirectory(path))[-1] for path in (whole, stopped)]
    for file in sorted(ends[0].glob("*.safetensors")):
        assert file.read_bytes() == (ends[1] / file.name).read_bytes(), file.name
    losses = [
        [event["loss"] for event in RunDirectory(path).read_events() if event["kind"] == "step"]
        for path in (whole, stopped)
    ]
    assert losses[0] == losses[1]
