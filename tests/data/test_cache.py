"""Prepared text is written whole or not at all, and a change on disk is found."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ourospec.data import cache, shards
from ourospec.data.text import TextData, open_text, read_prepared
from ourospec.errors import DataError, ResourceError


def prepared_folder(config: TextData) -> Path:
    (found,) = (Path(config.cache) / "text").iterdir()
    return found


@pytest.fixture
def opened(text_data):
    """A prepared corpus: its configuration and its folder."""
    config = text_data()
    open_text(config)
    return config, prepared_folder(config)


def keep_times(path: Path, change) -> None:
    """Change a file without its times telling."""
    facts = path.stat()
    change(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


FILES = [
    "train.tokens",
    "train.documents",
    "heldout.tokens",
    "heldout.documents",
    "tokenizer/ouro_tokenizer.json",
]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [flip, lambda p: p.write_bytes(p.read_bytes()[:-1]), Path.unlink])
def test_a_file_that_changed_is_named_with_the_remedy(opened, name, change):
    config, folder = opened
    change(folder / name)
    with pytest.raises(DataError, match=Path(name).name.replace(".", r"\.")) as caught:
        open_text(config)
    assert caught.value.remedy.endswith(f"rm -r '{folder}'")


def test_a_flipped_bit_is_found_though_no_time_tells(opened):
    config, folder = opened
    keep_times(folder / "train.tokens", flip)
    with pytest.raises(DataError, match=r"train\.tokens has changed on disk"):
        open_text(config)


def test_large_files_are_hashed_again_when_their_time_changes(opened, monkeypatch):
    config, folder = opened
    monkeypatch.setattr(cache, "_ALWAYS_HASHED", 0)
    hashed = []
    real = cache.hash_file
    monkeypatch.setattr(cache, "hash_file", lambda path: hashed.append(path.name) or real(path))
    open_text(config)
    assert hashed == []
    os.utime(folder / "train.tokens", ns=(1, 1))
    open_text(config)
    assert hashed == ["train.tokens"]
    open_text(config)
    assert hashed == ["train.tokens"]
    flip(folder / "train.tokens")
    for _ in range(2):
        with pytest.raises(DataError, match=r"train\.tokens"):
            open_text(config)


@pytest.mark.parametrize("content", [None, b"", b"{", b"{}", b"[1]"])
def test_a_manifest_that_is_gone_or_broken(opened, content):
    config, folder = opened
    if content is None:
        (folder / cache.MANIFEST).unlink()
    else:
        (folder / cache.MANIFEST).write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json"):
        open_text(config)


def test_the_remedy_works(opened):
    config, folder = opened
    before = open_text(config).fingerprint
    flip(folder / "train.tokens")
    with pytest.raises(DataError) as caught:
        open_text(config)
    subprocess.run(caught.value.remedy.rpartition(": ")[2], shell=True, check=True)
    assert open_text(config).fingerprint == before


def test_prepared_text_is_reused(opened, monkeypatch):
    config, folder = opened
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}

    def refuse(*args):
        raise AssertionError("the corpus was read again")

    monkeypatch.setattr("ourospec.data.text.survey", refuse)
    open_text(config)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_same_text_elsewhere_is_not_prepared_again(opened, folder, text_data, tmp_path, monkeypatch):
    from ourospec.data.corpus import FilesSource

    prepared = opened[1]
    moved = folder.rename(tmp_path / "moved")
    monkeypatch.setattr("ourospec.data.text.write_prepared", None)
    again = open_text(text_data(source=FilesSource(paths=(str(moved),))))
    assert again.fingerprint == read_prepared(prepared).fingerprint


def test_changed_text_is_prepared_anew(opened, folder):
    config, prepared = opened
    before = open_text(config).fingerprint
    (folder / "text00.txt").write_text("quite another text\n" * 20)
    assert open_text(config).fingerprint != before
    assert len(list(prepared.parent.iterdir())) == 2


SCRIPT = """
import sys
from ourospec.data.text import TextData, open_text
dataset = open_text(TextData.model_validate_json(sys.argv[1]))
print(dataset.fingerprint)
"""


def test_processes_that_prepare_at_once_agree(text_data):
    from ourospec.data.tokenizers import BpeConfig

    config = text_data(tokenizer=BpeConfig(vocab_size=300))
    command = [sys.executable, "-c", SCRIPT, config.model_dump_json()]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    printed = {process.communicate(timeout=120)[0] for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert printed == {open_text(config).fingerprint + "\n"}
    folder = prepared_folder(config)
    assert json.loads((folder / cache.MANIFEST).read_text())["fingerprint"] + "\n" in printed


def test_the_second_to_finish_drops_its_copy(tmp_path):
    folder = tmp_path / "text" / "name"

    def write(place, who="first"):
        (place / "file").write_text(who)
        return {"files": cache.record_files(place)}

    def write_late(place):
        cache.prepared(folder, write)
        return write(place, "second")

    assert cache.prepared(folder, write_late)["files"]["file"]["bytes"] == len("first")
    assert (folder / "file").read_text() == "first"
    assert [path.name for path in folder.parent.iterdir()] == ["name"]


def test_a_failure_leaves_nothing_behind(tmp_path):
    def write(place):
        (place / "file").write_text("half")
        raise DataError("no")

    with pytest.raises(DataError):
        cache.prepared(tmp_path / "text" / "name", write)
    assert list((tmp_path / "text").iterdir()) == []


def test_what_a_dead_process_left_is_swept_and_a_living_ones_is_not(text_data):
    config = text_data()
    parent = Path(config.cache) / "text"
    old, young = parent / ".preparing-old", parent / ".preparing-young"
    for place in (old, young):
        (place / "tokenizer").mkdir(parents=True)
        (place / "train.tokens").write_text("half")
    past = time.time() - 2 * 24 * 3600
    for path in [*old.rglob("*"), old]:
        os.utime(path, (past, past))
    open_text(config)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk(text_data, monkeypatch, number):
    def fail(self, which, values):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(shards.ShardWriter, "_append", fail)
    config = text_data()
    with pytest.raises(ResourceError, match=os.strerror(number)) as caught:
        open_text(config)
    # Another cache is another recipe, which the directory of a run already begun would refuse.
    assert "--data.cache FOLDER" in caught.value.remedy and "new --run" in caught.value.remedy
    assert list((Path(config.cache) / "text").iterdir()) == []


def test_a_cache_that_is_a_file(text_data, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        open_text(text_data(cache=str(tmp_path / "file")))


def test_a_read_only_cache_can_be_used(opened, monkeypatch):
    config, folder = opened
    (folder / "verified.json").unlink()

    def refuse(path, content):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(cache, "write_whole", refuse)
    assert open_text(config).train.num_tokens > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the rule of one platform")
def test_the_users_cache_follows_the_platform(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_folder("") == tmp_path / "ourospec"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_folder("") == tmp_path / ".cache" / "ourospec"
    assert cache.cache_folder("~/here") == tmp_path / "here"
