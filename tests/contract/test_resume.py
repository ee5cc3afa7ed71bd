"""Stopping and going on, with every family's own model and data: the end is the same, bit for bit."""

import importlib.util
import json
import os
import random
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ourospec import api
from ourospec.contracts import Event
from ourospec.data.corpus import FilesSource
from ourospec.data.text import TextData
from ourospec.data.tokenizers import BpeConfig, ByteTokenizerConfig
from ourospec.errors import ConfigError, DataError, Interrupted
from ourospec.optim.config import GrokfastConfig, MuonConfig, QKClipConfig
from ourospec.recipe import Recipe, TextRecipe, read_recipe
from ourospec.runs import RunDirectory
from ourospec.train.checkpoint import list_checkpoints
from ourospec.train.loop import fit
from ourospec.train.weights import load_weights

spec = importlib.util.spec_from_file_location("miniature", Path(__file__).parent / "miniature.py")
miniature = importlib.util.module_from_spec(spec)
spec.loader.exec_module(miniature)

SMOKES = [name for name in miniature.miniatures() if name.endswith("/smoke")]
STEPS = 6


def write_text(path: Path, seed: int) -> None:
    """A text that is like no other."""
    chance = random.Random(seed)
    path.write_text("\n".join(f"{chance.random()} and {chance.random()}" for _ in range(40)) + "\n")


@pytest.fixture
def folder(tmp_path):
    """A dozen texts."""
    place = tmp_path / "texts"
    place.mkdir()
    for number in range(12):
        write_text(place / f"{number:02}.txt", number)
    return place


@pytest.fixture
def small(folder, tmp_path):
    """Makes a family's smoke preset over that text, small enough to be run many times."""

    def make(name: str, tokenizer=None, precision: str = "float32", average: float = 0.0) -> TextRecipe:
        recipe = miniature.miniatures([name])[name]
        data = TextData(
            source=FilesSource(paths=(str(folder),)),
            tokenizer=tokenizer or ByteTokenizerConfig(),
            heldout_fraction=0.2,
            cache=str(tmp_path / "cache"),
        )
        train = {
            "steps": STEPS, "save_every": 2, "batch_size": 4, "micro_batch_size": 2, "window": 24,
            "eval_every": 4, "eval_tokens": 200, "sample_every": 0, "device": "cpu", "precision": precision,
        }  # fmt: skip
        optim = recipe.optim.model_copy(update={"ema_decay": average})
        return recipe.model_copy(
            update={
                "data": data,
                "prompts": ("0.",),
                "train": type(recipe.train)(**train),
                "optim": optim,
            }
        )

    return make


class Acting:
    """An observer that does something when a step is finished."""

    def __init__(self, step, act):
        self.step, self.act = step, act

    def on_event(self, event: Event) -> None:
        if event.kind == "step" and event.step == self.step:
            self.act()

    def close(self) -> None:
        """Nothing is held open."""


def end_of(path: Path) -> dict[str, torch.Tensor]:
    """Weights, their average, optimiser state, generators and carry at the end of a run."""
    last = list_checkpoints(RunDirectory(path))[-1]
    assert last.name == f"step-{STEPS:08d}"
    return {
        f"{file.name}:{name}": tensor
        for file in sorted(last.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert differing == []


@pytest.mark.parametrize(("precision", "average"), [("float32", 0.9), ("bfloat16", 0.0)])
@pytest.mark.parametrize("name", SMOKES)
def test_a_run_stopped_twice_ends_like_one_that_was_not(small, tmp_path, name, precision, average):
    recipe = small(name, precision=precision, average=average)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    api.train(recipe, whole)
    with pytest.raises(Interrupted, match=r"\.pause after step 3 of 6"):
        api.train(recipe, stopped, observers=[Acting(3, (stopped / ".pause").touch)])
    with pytest.raises(Interrupted, match="SIGINT after step 5 of 6"):
        api.train(recipe, stopped, observers=[Acting(5, lambda: os.kill(os.getpid(), signal.SIGINT))])
    assert api.train(recipe, stopped).status == "complete"
    end = end_of(stopped)
    assert_equal(end, end_of(whole))
    kinds = {name.split(":")[0] for name in end}
    assert ("average.safetensors" in kinds) == (average > 0)
    assert any("exp_avg" in name for name in end)
    # What was trained is what was asked for: the two precisions do not compute the same.
    (start, *_) = RunDirectory(stopped).read_events()
    assert start["precision"] == precision


def test_a_run_of_a_version_that_knew_fewer_fields_goes_on(small, tmp_path, monkeypatch):
    recipe = small("dense_lm/smoke", precision="float32")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    api.train(recipe, whole)

    def of_before(recipe: Recipe) -> str:
        fields = json.loads(recipe.model_dump_json())
        del fields["model"]["tied"], fields["train"]["keep_checkpoints"]
        return json.dumps(fields)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(Recipe, "to_json", of_before)
        api.train(recipe, stopped, observers=[Acting(3, (stopped / ".pause").touch)])
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"keep_checkpoints": 9})})
    with pytest.raises(ConfigError, match="keep_checkpoints: absent there, 9 here"):
        api.train(other, stopped)
    assert api.train(recipe, stopped).status == "complete"
    assert_equal(end_of(stopped), end_of(whole))
    assert "keep_checkpoints" not in (stopped / "recipe.json").read_text()


@pytest.mark.parametrize("damage", [b"\xff\xfe", b"{", b"{}"])
def test_a_damaged_recipe_is_told_and_left_alone(small, tmp_path, damage):
    (tmp_path / "recipe.json").write_bytes(damage)
    with pytest.raises(ConfigError, match=r"cannot be read|different recipe"):
        api.train(small("dense_lm/smoke", precision="float32"), tmp_path)
    assert (tmp_path / "recipe.json").read_bytes() == damage


@pytest.mark.parametrize("name", SMOKES)
def test_muon_grokfast_and_qk_clip_stop_and_go_on_likewise(small, tmp_path, name):
    recipe = small(name, precision="bfloat16")
    clip = QKClipConfig(limit=0.05)  # so low that heads are limited from the first step
    optim = {"muon": MuonConfig(), "grokfast": GrokfastConfig(), "qk_clip": clip}
    recipe = recipe.model_copy(update={"optim": recipe.optim.model_copy(update=optim)})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    api.train(recipe, whole)
    with pytest.raises(Interrupted):
        api.train(recipe, stopped, observers=[Acting(3, (stopped / ".pause").touch)])
    api.train(recipe, stopped)
    assert_equal(end_of(stopped), end_of(whole))
    steps = [event for event in RunDirectory(whole).read_events() if event["kind"] == "step"]
    assert len(steps) == STEPS
    for event in steps:
        assert event["muon_lr"] == pytest.approx(event["lr"] * 0.02 / recipe.optim.lr)
        assert event["max_logit"] > 0.05 and event["clipped_heads"] > 0


@pytest.mark.parametrize("name", SMOKES)
def test_epochs_and_best_weights_stop_and_go_on_likewise(small, tmp_path, name):
    recipe = small(name, average=0.9)
    changes = {"epochs": 0.1, "steps": 999, "eval_every": 2, "keep_best": True, "patience": 100}
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    end = api.train(recipe, whole).step
    assert 3 < end < 100
    with pytest.raises(Interrupted, match=f"after step 3 of {end}"):
        api.train(recipe, stopped, observers=[Acting(3, (stopped / ".pause").touch)])
    assert api.train(recipe, stopped).status == "complete"
    assert api.train(recipe, stopped).status == "already complete"
    assert read_recipe(stopped / "recipe.json").train.steps == end
    for which in ("newest", "best"):
        (one, came), (other, from_) = (load_weights(RunDirectory(run), which) for run in (whole, stopped))
        assert_equal(one, other)
        assert came.step == from_.step and came.averaged
    assert api.load(whole, which="best").origin.step == came.step
    losses = {
        event["step"]: event["loss"] for event in RunDirectory(whole).read_events() if event["kind"] == "eval"
    }
    assert came.step == min(losses, key=lambda step: losses[step])


@pytest.mark.parametrize("name", SMOKES)
def test_observers_change_nothing(small, tmp_path, name):
    recipe = small(name, average=0.9)
    noisy = [Acting(step, lambda: torch.manual_seed(1)) for step in range(1, STEPS)]
    api.train(recipe, tmp_path / "watched", observers=noisy)
    fit(recipe.assemble(RunDirectory(tmp_path / "alone"), ()))
    assert_equal(end_of(tmp_path / "watched"), end_of(tmp_path / "alone"))


def test_a_refused_start_leaves_the_tokenizer_of_the_run(small, folder, tmp_path):
    recipe, run = small("dense_lm/smoke", tokenizer=BpeConfig(vocab_size=300)), tmp_path / "run"

    def tokenizer() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (run / "tokenizer").iterdir()}

    api.train(recipe, run)
    before = tokenizer()
    (folder / "more.txt").write_text("the quick brown fox jumps over the lazy dog\n" * 50)
    with pytest.raises(DataError):
        api.train(recipe, run)
    assert tokenizer() == before
    job = recipe.assemble(RunDirectory(tmp_path / "other"), ())
    job.keep()
    other = {path.name: path.read_bytes() for path in (tmp_path / "other" / "tokenizer").iterdir()}
    assert other != before, "the changed text would have given another tokenizer"


def test_held_out_text_that_may_have_been_trained_on_is_not_scored(small, folder, tmp_path):
    """With bytes the tokenizer stays the same whatever the text, so that it tells of no change."""
    run = tmp_path / "run"
    api.train(small("dense_lm/smoke"), run)
    model = api.load(run, device="cpu")
    assert model.evaluate()["documents"] > 0
    write_text(folder / "more.txt", 99)
    with pytest.raises(DataError, match="no longer the one of the training") as caught:
        model.evaluate()
    assert "--data PATH" in caught.value.remedy
    assert model.evaluate(TextData(source=FilesSource(paths=(str(folder / "more.txt"),))))["documents"] == 1
