"""`ouro train COLLECTION`: several presets, each a run of its own, held against each other on the same puzzles."""

import json
import re

import pytest

from ourospec import api
from ourospec.cli.several import shared_puzzles
from ourospec.data.puzzles.config import MixtureSource, Part
from ourospec.data.puzzles.lookup import CopyTask, NeedleTask, PointerTask
from ourospec.data.text import TextData
from ourospec.data.tokenizers import ByteTokenizerConfig
from ourospec.families import COLLECTIONS, PRESETS
from ourospec.runs import RunDirectory

BOTH = ("dense_lm/smoke", "recursive_lm/smoke")
SHORT = ("--train.steps", "3")


@pytest.fixture(autouse=True)
def _both(monkeypatch):
    """A collection that trains in seconds."""
    monkeypatch.setitem(COLLECTIONS, "some/both", BOTH)


def puzzles(*parts, fraction=0.05):
    source = MixtureSource(parts=parts, heldout_examples=20)
    return TextData(source=source, tokenizer=ByteTokenizerConfig(), heldout_fraction=fraction)


def test_each_is_trained_into_its_own_directory_and_none_twice(ouro, tmp_path, short_puzzles):
    # One of them is there already, made by the command that trains it alone.
    first = tmp_path / "dense_lm-smoke"
    assert ouro("train", "dense_lm/smoke", "--run", str(first), *short_puzzles, *SHORT, "--quiet")[0] == 0
    before = (first / "events.jsonl").read_bytes()
    code, out, _ = ouro("train", "some/both", "--run", str(tmp_path), *short_puzzles, *SHORT)
    assert code == 0 and (first / "events.jsonl").read_bytes() == before
    runs = {name: tmp_path / name.replace("/", "-") for name in BOTH}
    data = api.load(runs[BOTH[1]]).recipe.data
    events = [(run / "events.jsonl").read_bytes() for run in runs.values()]
    for name, run in runs.items():
        assert json.loads((run / "recipe.json").read_text())["train"]["steps"] == 3
        found = api.load(run).evaluate(data)
        start = next(iter(RunDirectory(run).read_events()))
        *_, row = (line for line in out.splitlines() if line.startswith(f"{name}  "))
        cells = re.split(r"  +", row.strip())
        assert cells == [
            name,
            f"{start.get('parameters') / 1000:.1f} k",
            f"{found['loss']:.4f} ± {found['loss_se']:.4f}",
            f"{found['exact_match']:.3f} ± {found['exact_match_se']:.3f}",
            f"{found['mean_passes']:.2f}",
            cells[5],
            str(run),
        ]
    code, again, _ = ouro("train", "some/both", "--run", str(tmp_path), *short_puzzles, *SHORT)
    assert [(run / "events.jsonl").read_bytes() for run in runs.values()] == events
    assert again.splitlines()[-4:] == out.splitlines()[-4:]


def test_text_has_no_answers_and_is_measured_on_its_own(ouro, tmp_path, corpus):
    code, out, _ = ouro("train", "some/both", "--run", str(tmp_path), *SHORT, *corpus)
    assert code == 0 and "same held-out" not in out
    assert re.search(r"^name +parameters +held-out loss +passes +training +run$", out, re.M)


def test_the_puzzles_are_those_of_all_and_held_out_from_all():
    base = PRESETS["dense_lm/smoke"]()
    copy, pointer, needle = CopyTask(most=6), PointerTask(), NeedleTask(length=16)
    one = base.model_copy(
        update={"data": puzzles(Part(task=copy, weight=9), Part(task=pointer), fraction=0.2)}
    )
    other = base.model_copy(update={"data": puzzles(Part(task=pointer, weight=5), Part(task=needle))})
    shared = shared_puzzles([one, other])
    assert shared is not None
    assert [(part.task, part.weight) for part in shared.source.parts] == [
        (copy, 1.0),
        (pointer, 1.0),
        (needle, 1.0),
    ]
    assert (shared.heldout_fraction, shared.source.heldout_examples) == (0.05, 20)
    assert shared_puzzles([one, base]) is None


def test_a_mistake_is_said_before_anything_is_trained(ouro, tmp_path):
    folder = tmp_path / "runs"
    code, _, err = ouro("train", "some/both", "--run", str(folder), "--train.stepz", "3")
    assert code == 2 and "--train.steps" in err and "ouro train some/both --help" in err
    # Only the second of them has a recursion.
    code, _, err = ouro("train", "some/both", "--run", str(folder), "--model.recursion.steps", "2")
    assert code == 2 and "--model.recursion.steps" in err
    assert not folder.exists()


def test_where_one_preset_is_needed_a_collection_names_its_own(ouro):
    for verb in ("plan", "sweep"):
        code, _, err = ouro(verb, "some/both")
        assert code == 2 and "dense_lm/smoke, recursive_lm/smoke" in err and "ouro train some/both" in err
    assert "some/both" in ouro("presets")[1]


def test_collections_stand_for_presets_that_exist():
    assert api.collections().keys() == COLLECTIONS.keys()
    for name, each in COLLECTIONS.items():
        assert name not in PRESETS and len(set(each)) == len(each) > 1
        assert set(each) <= PRESETS.keys()
