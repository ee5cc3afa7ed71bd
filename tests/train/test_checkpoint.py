"""Checkpoints against crashes, full disks and flipped bits."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ourospec.errors import ConfigError, DataError, OuroError, ResourceError
from ourospec.runs import RunDirectory
from ourospec.train import checkpoint, tensor_file
from ourospec.train.checkpoint import CheckpointStore, Snapshot, list_checkpoints
from ourospec.train.manifest import MANIFEST, Identity, Manifest, read_manifest
from ourospec.train.weights import load_weights

MINE = Identity("a" * 64, "b" * 64)
dice = random.Random(1)


def snapshot(step: int) -> Snapshot:
    generator = torch.Generator().manual_seed(step)
    return Snapshot(
        step=step,
        weights={"w": torch.randn(20, 30, generator=generator), "count": torch.tensor(step)},
        average={"w": torch.randn(20, 30, generator=generator)},
        state={"optimizer/0": torch.randn(50, generator=generator), "generators": torch.arange(9).byte()},
        record={
            "tokens": 10 * step,
            "seconds": 0.1 * step,
            "aliases": {"tied": "w"},
            "objective": {"price": 0.1},
            "more": [None, 0.1],
        },
    )


def store_of(path: Path, keep: int = 2, identity: Identity = MINE) -> CheckpointStore:
    store = CheckpointStore(RunDirectory(path), identity, keep)
    store.sweep()
    return store


def same(a: Snapshot, b: Snapshot) -> bool:
    groups = ((a.weights, b.weights), (a.average, b.average), (a.state, b.state))
    tensors = all(x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x) for x, y in groups)
    return tensors and (a.step, a.record) == (b.step, b.record)


def newest(path: Path) -> tuple[Snapshot, tuple[str, ...]]:
    store = store_of(path)
    found = store.newest()
    assert found is not None
    return store.load(found), found.skipped


def names(path: Path) -> list[str]:
    return sorted(child.name for child in (path / "checkpoints").iterdir())


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """A run with the checkpoints of steps 10, 20 and 30."""
    store = store_of(tmp_path, keep=3)
    for step in (10, 20, 30):
        store.save(snapshot(step))
    return tmp_path


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    saved = store_of(tmp_path).save(snapshot(7))
    assert saved.path == tmp_path / "checkpoints" / "step-00000007"
    assert saved.bytes == sum(f.stat().st_size for f in saved.path.iterdir() if f.name != MANIFEST)
    found, skipped = newest(tmp_path)
    assert same(found, snapshot(7)) and skipped == ()


def test_a_new_run_has_none(tmp_path: Path) -> None:
    assert store_of(tmp_path).newest() is None


def test_only_safetensors_and_json_are_written(three: Path) -> None:
    assert {file.suffix for folder in list_checkpoints(RunDirectory(three)) for file in folder.iterdir()} == {
        ".safetensors",
        ".json",
    }


def test_the_newest_are_kept_and_the_rest_dropped(tmp_path: Path) -> None:
    store = store_of(tmp_path, keep=2)
    for step in (9, 10, 100, 11):
        store.save(snapshot(step))
    assert names(tmp_path) == ["step-00000011", "step-00000100"]


def test_steps_beyond_eight_digits_are_still_in_order(tmp_path: Path) -> None:
    store = store_of(tmp_path)
    for step in (99_999_999, 100_000_000):
        store.save(snapshot(step))
    assert newest(tmp_path)[0].step == 100_000_000


def test_leftovers_of_a_crash_are_swept(three: Path) -> None:
    for leftover in (".unfinished-step-00000040", ".dropped-step-00000001"):
        shutil.copytree(three / "checkpoints" / "step-00000030", three / "checkpoints" / leftover)
    store_of(three)
    assert names(three) == ["step-00000010", "step-00000020", "step-00000030"]


def test_older_ones_go_only_after_the_new_one_reads_back(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that takes every byte and gives back others."""
    write = tensor_file.write_file

    def rotten(path: Path, blocks: Any) -> Any:
        written = write(path, blocks)
        if path.name == checkpoint.STATE:
            flip_bit(path, 100)
        return written

    monkeypatch.setattr(tensor_file, "write_file", rotten)
    with pytest.raises(ResourceError, match=r"does not read back.*state\.safetensors") as caught:
        store_of(three).save(snapshot(40))
    assert "failing" in caught.value.remedy
    assert names(three) == ["step-00000010", "step-00000020", "step-00000030"]


def test_too_little_room_is_found_out_before_writing(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(three)._replace(free=5000)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ResourceError, match=r"needs 1,0\d\d,\d{3} bytes.*has 5,000 left"):
        store_of(three).save(snapshot(40))
    assert names(three) == ["step-00000010", "step-00000020", "step-00000030"]


def test_a_disk_that_fills_up_in_the_middle(three: Path) -> None:
    """The kernel itself refuses to let a file grow, after a part of it was written."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(ResourceError, match=r"step 40 \(5,\d{3} bytes\) could not be written") as caught:
            store_of(three).save(snapshot(40))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "Free 5," in caught.value.remedy
    assert names(three) == ["step-00000010", "step-00000020", "step-00000030"]
    assert same(newest(three)[0], snapshot(30))


def failing_at(call: int, monkeypatch: pytest.MonkeyPatch, error: int) -> Callable[[], int]:
    """Make the n-th fsync, rename or mkdir fail; returns a count of the calls so far."""
    calls = 0

    def wrap(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise OSError(error, os.strerror(error))
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    for owner, name in ((os, "fsync"), (Path, "rename"), (Path, "mkdir")):
        wrap(owner, name)
    return lambda: calls


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EIO])
def test_wherever_the_disk_fails_the_run_goes_on_from_a_whole_checkpoint(tmp_path: Path, error: int) -> None:
    call, failures = 0, 0
    while True:
        call += 1
        path = tmp_path / str(call)
        store = store_of(path)
        for step in (10, 20):
            store.save(snapshot(step))
        with pytest.MonkeyPatch.context() as patch:
            calls = failing_at(call, patch, error)
            try:
                store.save(snapshot(30))
            except ResourceError:
                failures += 1
        if calls() < call:
            break
        found, skipped = newest(path)
        assert found.step in (20, 30) and same(found, snapshot(found.step)) and not skipped
    # Five files, their folder, the parent; one mkdir; the renames into place and of the one dropped.
    assert failures == 10


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position // 8 % len(data)] ^= 1 << position % 8
    path.write_bytes(data)


def damage_flip(folder: Path) -> None:
    file = dice.choice(sorted(folder.iterdir()))
    flip_bit(file, dice.randrange(8 * file.stat().st_size))


def damage_truncate(folder: Path) -> None:
    file = dice.choice(sorted(folder.iterdir()))
    os.truncate(file, dice.randrange(file.stat().st_size))


def damage_missing(folder: Path) -> None:
    dice.choice(sorted(folder.iterdir())).unlink()


def damage_extra(folder: Path) -> None:
    (folder / "extra.json").write_text("{}")


def damage_swap(folder: Path) -> None:
    """Weights of another checkpoint of the same run: right in itself, wrong here."""
    shutil.copy(folder.with_name("step-00000010") / "weights.safetensors", folder)


def damage_entry(folder: Path) -> None:
    """A manifest that lists a file too few, its own digest put right."""
    manifest = read_manifest(folder)
    fewer = Manifest(**{**manifest.model_dump(), "files": dict(list(manifest.files.items())[1:])})
    (folder / MANIFEST).write_text(fewer.to_text())


def damage_name(folder: Path) -> None:
    """The manifest of another step."""
    shutil.copy(folder.with_name("step-00000010") / MANIFEST, folder)


def damage_empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(b"")


DAMAGES = [v for k, v in sorted(globals().items()) if k.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_newest_falls_back_and_says_so(three: Path, damage: Callable[[Path], None]) -> None:
    damage(three / "checkpoints" / "step-00000030")
    tensors, origin = load_weights(RunDirectory(three))
    assert origin.step == 20 or damage in (damage_flip, damage_truncate)  # may have hit the optimiser's file
    assert torch.equal(tensors["w"], snapshot(origin.step).average["w"])
    found, skipped = newest(three)
    assert same(found, snapshot(20))
    assert len(skipped) == 1 and skipped[0].startswith("step-00000030: ")
    # It is out of the way, so that training can come to step 30 again, and goes with the next good save.
    assert "damaged-step-00000030" in names(three)
    store_of(three).save(snapshot(30))
    assert names(three) == ["step-00000020", "step-00000030"]


@pytest.mark.parametrize("file", ["weights", "average", "state", "record", "manifest"])
def test_one_flipped_bit_anywhere_is_found(three: Path, file: str) -> None:
    name = {"record": "state.json", "manifest": MANIFEST}.get(file, f"{file}.safetensors")
    path = three / "checkpoints" / "step-00000030" / name
    whole = path.read_bytes()
    for _ in range(12):
        position = dice.randrange(8 * len(whole))
        flip_bit(path, position)
        store = store_of(three)
        found = store.newest()
        assert found is not None and found.manifest.step == 20, f"bit {position}"
        (three / "checkpoints" / "damaged-step-00000030").rename(path.parent)
        path.write_bytes(whole)


def test_a_file_cut_off_anywhere_is_found(three: Path) -> None:
    path = three / "checkpoints" / "step-00000030" / "state.safetensors"
    whole = path.read_bytes()
    for percent in range(0, 100, 4):
        path.write_bytes(whole[: len(whole) * percent // 100])
        found = store_of(three).newest()
        assert found is not None and found.manifest.step == 20
        (three / "checkpoints" / "damaged-step-00000030").rename(path.parent)


def test_with_all_damaged_it_refuses_and_leaves_them_where_they_are(three: Path) -> None:
    for folder in list_checkpoints(RunDirectory(three)):
        damage_flip(folder)
    before = names(three)
    for _ in range(2):  # the second time as the first: nothing was set aside in between
        with pytest.raises(ResourceError, match=r"All checkpoints in .* are damaged") as caught:
            store_of(three).newest()
        assert all(f"step-000000{step}: " in str(caught.value) for step in (10, 20, 30))
    assert names(three) == before


def test_another_recipe_or_other_data_is_refused_not_passed_over(three: Path) -> None:
    with pytest.raises(ConfigError, match="another recipe"):
        store_of(three, identity=MINE._replace(recipe="c" * 64)).newest()
    with pytest.raises(DataError, match=r"other data .*bbbbbbbbbbbb, now cccccccccccc"):
        store_of(three, identity=MINE._replace(data="c" * 64)).newest()
    assert names(three) == ["step-00000010", "step-00000020", "step-00000030"]


def test_a_later_layout_is_refused_not_passed_over(three: Path) -> None:
    folder = three / "checkpoints" / "step-00000030"
    later = Manifest(**{**read_manifest(folder).model_dump(), "schema_version": 2})
    (folder / MANIFEST).write_text(later.to_text())
    with pytest.raises(ConfigError, match="layout 2; this version reads layout 1"):
        store_of(three).newest()


@pytest.mark.parametrize("text", ["", "[]", "null", '{"sha256": 1}', "\x00" * 400, '"sha256"', "{" * 5000])
def test_a_garbled_manifest_is_damage_whatever_it_says(three: Path, text: str) -> None:
    (three / "checkpoints" / "step-00000030" / MANIFEST).write_text(text)
    assert newest(three)[0].step == 20


def test_weights_for_use_are_the_average_under_all_names(three: Path) -> None:
    tensors, origin = load_weights(RunDirectory(three))
    expected = snapshot(30)
    assert torch.equal(tensors["w"], expected.average["w"])
    assert torch.equal(tensors["tied"], expected.average["w"])
    assert tensors["count"] == 30
    assert (origin.step, origin.tokens, origin.averaged, origin.skipped) == (30, 300, True, ())
    assert origin.seconds == pytest.approx(3.0)
    assert origin.objective == {"price": 0.1}


def test_weights_of_a_run_without_average_are_its_own(tmp_path: Path) -> None:
    plain = snapshot(5)
    plain.average.clear()
    store_of(tmp_path).save(plain)
    tensors, origin = load_weights(RunDirectory(tmp_path))
    assert torch.equal(tensors["w"], plain.weights["w"]) and not origin.averaged
    assert not (origin.path / "average.safetensors").exists()


def test_weights_do_not_need_the_optimiser(three: Path) -> None:
    flip_bit(three / "checkpoints" / "step-00000030" / "state.safetensors", 99)
    assert load_weights(RunDirectory(three))[1].step == 30


def test_weights_of_a_run_without_any_are_refused(tmp_path: Path, three: Path) -> None:
    with pytest.raises(ResourceError, match="no checkpoint yet"):
        load_weights(RunDirectory(tmp_path / "none"))
    for folder in list_checkpoints(RunDirectory(three)):
        flip_bit(folder / "weights.safetensors", 5)
    with pytest.raises(OuroError, match="are damaged"):
        load_weights(RunDirectory(three))


def test_weights_can_be_read_while_training_drops_the_old_ones(
    three: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = list_checkpoints(RunDirectory(three))
    calls = 0

    def moving(run: RunDirectory) -> list[Path]:
        """Between the listing and the reading all that was listed is replaced."""
        nonlocal calls
        calls += 1
        if calls == 1:
            store = CheckpointStore(RunDirectory(three), MINE, 2)
            store.save(snapshot(40))
            store.save(snapshot(50))
            return listed
        return list_checkpoints(run)

    monkeypatch.setattr("ourospec.train.weights.list_checkpoints", moving)
    assert load_weights(RunDirectory(three))[1].step == 50


def test_the_manifest_says_whose_the_checkpoint_is(three: Path) -> None:
    fields = json.loads((three / "checkpoints" / "step-00000030" / MANIFEST).read_text())
    assert (fields["recipe"], fields["data"], fields["step"]) == (*MINE, 30)
    assert set(fields["files"]) == {
        "weights.safetensors",
        "average.safetensors",
        "state.safetensors",
        "state.json",
    }
