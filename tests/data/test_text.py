"""From text to streams, end to end."""

import json
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from ourospec.contracts import Stream
from ourospec.data.corpus import FilesSource, RecordsSource, StdlibSource
from ourospec.data.documents import cut_text
from ourospec.data.encoding import encode_documents
from ourospec.data.files import find_files
from ourospec.data.shards import ShardWriter, open_shards, token_dtype
from ourospec.data.text import TextData, open_text
from ourospec.data.tokenizers import BpeConfig, ByteTokenizer, SentencePieceFile, TokenizerFile
from ourospec.errors import DataError


def texts_of(dataset, side):
    return [dataset.tokenizer.decode(d.tokens.tolist()) for d in getattr(dataset, side).documents()]


@pytest.mark.parametrize("tokenizer", [BpeConfig(vocab_size=300), None])
def test_the_shards_hold_every_text_once(text_data, folder, tokenizer):
    dataset = open_text(text_data(tokenizer=tokenizer) if tokenizer else text_data())
    train, heldout = texts_of(dataset, "train"), texts_of(dataset, "heldout")
    assert sorted(train + heldout) == sorted(path.read_text() for path in folder.iterdir())
    assert heldout
    for side in (dataset.train, dataset.heldout):
        tokens = np.asarray(side.tokens)
        assert tokens[0] == tokens[-1] == dataset.tokenizer.end_id
        assert (tokens == dataset.tokenizer.end_id).sum() == side.num_documents + 1
        assert (
            dataset.byte_lengths[tokens].sum() == side.num_bytes == sum(d.num_bytes for d in side.documents())
        )


def test_the_summary_is_json_and_adds_up(text_data, folder):
    dataset = open_text(text_data())
    summary = json.loads(json.dumps(dataset.summary))
    sides = [summary["train"], summary["heldout"]]
    assert sum(side["documents"] for side in sides) == 40
    assert sum(side["bytes"] for side in sides) == sum(path.stat().st_size for path in folder.iterdir())
    assert [side["tokens"] for side in sides] == [dataset.train.num_tokens, dataset.heldout.num_tokens]
    assert summary["lossless"] is True
    assert summary["vocab_size"] == 257
    assert summary["split"] == "whole documents"


def test_progress_is_told_once(text_data):
    told = []
    open_text(text_data(), told.append)
    assert told[0].startswith("reading the corpus")
    assert told[-1].startswith("encoding: 100%")
    told.clear()
    open_text(text_data(), told.append)
    assert told == []


def test_merges_are_learned_from_the_training_text_alone(text_data, folder):
    secret = "zyxzyxzyx"
    for path in folder.iterdir():
        path.write_text(path.read_text() + f"{secret} {path.stem}\n" * 5)
    plain = open_text(text_data(tokenizer=BpeConfig(vocab_size=600)))
    heldout = {text.split()[-1] for text in texts_of(plain, "heldout")}
    for path in folder.iterdir():
        if path.stem in heldout:
            path.write_text(path.read_text().replace(secret, "qwvqwvqwv"))
    changed = open_text(text_data(tokenizer=BpeConfig(vocab_size=600)))
    assert {text.split()[-1] for text in texts_of(changed, "heldout")} == heldout
    assert changed.fingerprint != plain.fingerprint
    assert changed.tokenizer.fingerprint == plain.tokenizer.fingerprint


def test_the_fingerprint_sees_text_split_and_tokenizer(text_data, folder):
    base = open_text(text_data()).fingerprint
    other_split = open_text(text_data(heldout_fraction=0.3)).fingerprint
    other_tokenizer = open_text(text_data(tokenizer=BpeConfig(vocab_size=300))).fingerprint
    (folder / "text39.txt").write_text("something else entirely\n" * 9)
    assert len({base, other_split, other_tokenizer, open_text(text_data()).fingerprint}) == 4


def test_streams_follow_the_contract_and_the_dataset(text_data):
    dataset = open_text(text_data())
    stream: Stream = dataset.stream(32, 4, 2, seed=3)
    again = open_text(text_data()).stream(32, 4, 2, seed=3)
    assert stream.fingerprint == again.fingerprint
    for mine, other in zip(stream.batches(7), again.batches(7), strict=True):
        assert mine.tokens.tolist() == other.tokens.tolist()
        assert mine.num_bytes == dataset.byte_lengths[mine.targets.numpy()].sum()
    with pytest.raises(DataError, match="fewer than one window"):
        dataset.stream(10**6, 4, 2, seed=3)


def test_a_single_file_gives_its_end_for_evaluation(text_data, tmp_path, make_text):
    path = tmp_path / "one.txt"
    path.write_text(make_text(0, 4000))
    dataset = open_text(text_data(source=FilesSource(paths=(str(path),))))
    (train,), heldout = texts_of(dataset, "train"), texts_of(dataset, "heldout")
    assert train + "".join(heldout) == path.read_text()
    assert dataset.summary["split"] == "the end of one.txt is held out"


def test_an_empty_corpus(text_data, tmp_path):
    (tmp_path / "empty.txt").write_text("\n")
    source = FilesSource(paths=(str(tmp_path / "empty.txt"),))
    with pytest.raises(DataError, match="is empty"):
        open_text(text_data(source=source))
    with pytest.raises(DataError, match="no text"):
        list(encode_documents(source, ByteTokenizer()))


def test_undecodable_bytes_are_refused_or_replaced(text_data, folder):
    (folder / "latin.txt").write_bytes("é".encode("latin-1") * 50)
    with pytest.raises(DataError, match=r"latin\.txt is not UTF-8"):
        open_text(text_data())
    replaced = open_text(text_data(on_undecodable="replace"))
    assert "\ufffd" * 50 in texts_of(replaced, "train") + texts_of(replaced, "heldout")


@pytest.mark.parametrize("change", ["edit", "add", "remove"])
def test_a_corpus_that_changes_while_it_is_read(text_data, folder, change):
    def interfere(message):
        if message == "preparing the tokenizer":
            if change == "edit":
                (folder / "text05.txt").write_text("changed\n")
            elif change == "add":
                (folder / "zzz.txt").write_text("new\n")
            else:
                (folder / "text39.txt").unlink()

    with pytest.raises(DataError, match=r"while (it|the corpus) was read") as caught:
        open_text(text_data(), interfere)
    assert caught.value.remedy == "Run the command again."


def test_a_tokenizer_that_loses_text_is_called_lossy(text_data, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    engine = Tokenizer(models.WordLevel({"[UNK]": 0, "river": 1, "</s>": 2}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.add_special_tokens(["[UNK]", "</s>"])
    engine.save(str(tmp_path / "t.json"))
    dataset = open_text(text_data(tokenizer=TokenizerFile(path=str(tmp_path / "t.json"))))
    assert dataset.summary["lossless"] is False
    assert dataset.heldout.num_bytes > 0


def test_an_end_token_that_text_can_give_is_refused(text_data, tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    engine = Tokenizer(models.WordLevel({"[UNK]": 0, "river": 1}, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    engine.save(str(tmp_path / "t.json"))
    config = TokenizerFile(path=str(tmp_path / "t.json"), end_token="river")
    with pytest.raises(DataError, match="encodes to the end token") as caught:
        open_text(text_data(tokenizer=config))
    assert "--data.tokenizer.end-token" in caught.value.remedy


@pytest.mark.parametrize("ids", [[1, 300, 2], [-1]])
def test_ids_outside_the_vocabulary(tmp_path, ids):
    writer = ShardWriter(tmp_path, "train", 257, 256)
    with pytest.raises(
        DataError, match=r"gave the id .* in some\.txt, outside its vocabulary of 257"
    ) as caught:
        writer.add(np.array(ids), 3, "some.txt")
    assert caught.value.remedy
    writer.close()


@pytest.mark.parametrize(("vocabulary", "size"), [(257, 2), (65536, 2), (65537, 4), (140_000, 4)])
def test_ids_have_room(tmp_path, vocabulary, size):
    assert token_dtype(vocabulary).itemsize == size
    writer = ShardWriter(tmp_path, "train", vocabulary, 0)
    writer.add(np.array([vocabulary - 1, 1]), 7, "a")
    writer.add(np.array([], np.int64), 0, "b")
    writer.finish()
    shards = open_shards(tmp_path, "train", vocabulary, 0)
    assert isinstance(shards.tokens, np.memmap)
    assert shards.tokens.tolist() == [0, vocabulary - 1, 1, 0, 0]
    assert [(d.tokens.tolist(), d.num_bytes) for d in shards.documents()] == [
        ([vocabulary - 1, 1], 7),
        ([], 0),
    ]


def test_long_texts_are_encoded_in_pieces(bpe, tmp_path, make_text, monkeypatch):
    text = make_text(1, 4000)
    (tmp_path / "a.txt").write_text(text)
    (tmp_path / "b.txt").write_text("short\n")
    source = FilesSource(paths=(str(tmp_path),))
    whole = list(encode_documents(source, bpe))
    monkeypatch.setattr("ourospec.data.encoding.PIECE", 300)
    monkeypatch.setattr("ourospec.data.encoding._BLOCK", 1000)
    pieces = list(encode_documents(source, bpe))
    assert [d.num_bytes for d in pieces] == [len(text), 6]
    for one, other in zip(whole, pieces, strict=True):
        assert one.tokens.tolist() == other.tokens.tolist()


@pytest.mark.parametrize("text", ["", "abc", "a\n" * 9, "abcdefghijkl", "ab\nabcdefghijkl\n\n"])
def test_pieces_make_the_text(text):
    pieces = list(cut_text(text, 5))
    assert "".join(pieces) == text
    assert all(len(piece) <= 5 for piece in pieces)


def test_all_of_a_text_for_scoring(text_data, folder, bpe):
    documents = list(encode_documents(text_data().source, bpe))
    assert [bpe.decode(d.tokens.tolist()) for d in documents] == [
        path.read_text() for path in sorted(folder.iterdir())
    ]


def test_paths_are_recorded_as_they_read_from_any_folder(tmp_path, monkeypatch):
    """recipe.json must mean the same text wherever a run is gone on with or evaluated."""
    home, here = tmp_path / "home", tmp_path / "odd [1] place"
    home.mkdir()
    here.mkdir()
    for name in ("a.txt", "odd[2].txt"):
        (here / name).write_text("words\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    paths = ("a.txt", "*.txt", "odd[2].txt", "~/b.txt", "/c/*.txt", "nothing", "~nobody-of-this-name/d.txt")
    config = TextData(
        source=FilesSource(paths=paths), tokenizer=TokenizerFile(path="t.json"), cache="~/prepared [3]"
    )
    assert isinstance(config.source, FilesSource)
    assert config.source.paths == (
        str(here / "a.txt"),
        str(tmp_path / "odd [[]1] place" / "*.txt"),
        str(here / "odd[2].txt"),
        str(home / "b.txt"),
        "/c/*.txt",
        str(here / "nothing"),
        str(here / "~nobody-of-this-name/d.txt"),
    )
    assert config.tokenizer == TokenizerFile(path=str(here / "t.json"))
    assert config.cache == str(home / "prepared [3]")
    assert SentencePieceFile(path="s.model").path == str(here / "s.model")
    assert RecordsSource(path="r*.jsonl").path == str(tmp_path / "odd [[]1] place" / "r*.jsonl")
    assert TextData(cache="").cache == ""
    monkeypatch.chdir(tmp_path)
    assert TextData.model_validate_json(config.model_dump_json()) == config
    assert find_files(config.source.paths[:3]) == [here / "a.txt", here / "odd[2].txt"]
    with pytest.raises(DataError) as caught:
        find_files(config.source.paths[5:6])
    assert str(caught.value).startswith(f"{here / 'nothing'} matches no file.\n")


def test_configuration_survives_json_and_refuses_nonsense():
    config = TextData(
        source=RecordsSource(path="x.jsonl", layout="synth", language="en"),
        tokenizer=BpeConfig(vocab_size=999),
    )
    assert TextData.model_validate_json(config.model_dump_json()) == config
    assert TextData().source == StdlibSource()
    assert TextData().tokenizer == BpeConfig(vocab_size=4096)
    for wrong in (
        {"heldout_fraction": 0.0},
        {"heldout_fraction": 0.9},
        {"source": {"kind": "files", "paths": ()}},
    ):
        with pytest.raises(ValidationError):
            TextData.model_validate(wrong)


def test_the_command_line_finds_the_kinds():
    for name in ("source", "tokenizer"):
        assert TextData.model_fields[name].discriminator == "kind"


def test_the_default_corpus(tmp_path):
    dataset = open_text(TextData(cache=str(tmp_path / "cache")))
    assert dataset.tokenizer.vocab_size == 4096
    assert dataset.summary["lossless"] is True
    assert dataset.train.num_bytes > 5_000_000
    assert 0.03 < dataset.heldout.num_bytes / (dataset.heldout.num_bytes + dataset.train.num_bytes) < 0.07
    assert dataset.train.num_bytes / dataset.train.num_tokens > 3
    train = {hash(document.tokens.tobytes()) for document in dataset.train.documents()}
    assert not train & {hash(document.tokens.tobytes()) for document in dataset.heldout.documents()}


@pytest.mark.parametrize("name", ["tinyshakespeare.txt", "wikitext2_valid.txt"])
def test_a_real_text(name, tmp_path):
    path = Path("../shared/data/corpora") / name
    if not path.exists():
        pytest.skip("the text is not here")
    config = TextData(
        source=FilesSource(paths=(str(path),)), tokenizer=BpeConfig(vocab_size=1024), cache=str(tmp_path)
    )
    dataset = open_text(config)
    assert "".join(texts_of(dataset, "train") + texts_of(dataset, "heldout")).encode() == path.read_bytes()
    assert dataset.summary["lossless"] is True
