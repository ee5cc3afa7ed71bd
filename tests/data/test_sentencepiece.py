"""SentencePiece models: bytes of pieces, end token, and the errors."""

import io
import sys
from pathlib import Path

import pytest

from ourospec.data.tokenizers import SentencePieceFile, build_tokenizer, load_tokenizer
from ourospec.errors import DataError, ResourceError

sentencepiece = pytest.importorskip("sentencepiece")
GOLF = Path("../shared/data/golf/fineweb_1024_bpe.model")


def no_text(limit):
    raise AssertionError("nothing is trained here")


TEXT = "quiet river, marble stone\ncopper harbour violet ember\nwinter signal meadow cloud\n" * 20


def train_model(path, **settings):
    model = io.BytesIO()
    options = {
        "vocab_size": 300,
        "byte_fallback": True,
        "model_type": "bpe",
        "normalization_rule_name": "identity",
    }
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT.splitlines()),
        model_writer=model,
        minloglevel=2,
        **(options | settings),
    )
    path.write_bytes(model.getvalue())
    return SentencePieceFile(path=str(path))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return train_model(tmp_path_factory.mktemp("sp") / "small.model")


def test_pieces_give_the_bytes_of_the_text(config):
    tokenizer = build_tokenizer(config, no_text)
    text = "river stone é 日"
    ids = tokenizer.encode(text)
    # A model that marks the beginning of words puts a space before the first.
    assert b"".join(map(tokenizer.token_bytes, ids)) == f" {text}".encode()
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_batch([text, ""]) == [ids, []]


def test_half_a_surrogate_pair_is_no_text(config):
    with pytest.raises(DataError, match="half a surrogate pair"):
        build_tokenizer(config, no_text).encode("a\udcff")


def test_special_pieces_give_nothing_and_no_text_gives_them(config):
    tokenizer = build_tokenizer(config, no_text)
    assert [tokenizer.token_bytes(i) for i in range(3)] == [b"", b"", b""]
    ids = tokenizer.encode("a</s>b")
    assert tokenizer.end_id == 2
    assert tokenizer.end_id not in ids


def test_saved_and_loaded_it_is_the_same(config, tmp_path):
    tokenizer = build_tokenizer(config, no_text)
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.encode("quiet river") == tokenizer.encode("quiet river")


def test_the_end_token_is_the_models_own_or_chosen(config, tmp_path):
    chosen = build_tokenizer(config.model_copy(update={"end_token": "<s>"}), no_text)
    assert chosen.end_id == 1
    with pytest.raises(DataError, match="no token 'river'"):
        build_tokenizer(config.model_copy(update={"end_token": "river"}), no_text)
    bare = train_model(tmp_path / "bare.model", bos_id=-1, eos_id=-1)
    with pytest.raises(DataError, match="names no token"):
        build_tokenizer(bare, no_text)
    named = train_model(tmp_path / "named.model", bos_id=-1, eos_id=-1, control_symbols="<|endoftext|>")
    assert build_tokenizer(named, no_text).end_id == 1


def test_ids_outside_the_vocabulary(config):
    tokenizer = build_tokenizer(config, no_text)
    with pytest.raises(DataError, match="outside the vocabulary of 300"):
        tokenizer.decode([300])


@pytest.mark.parametrize("content", [None, b"", b"not a model"])
def test_a_file_that_is_no_model(tmp_path, content):
    path = tmp_path / "x.model"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"x\.model") as caught:
        build_tokenizer(SentencePieceFile(path=str(path)), no_text)
    assert caught.value.remedy


def test_without_the_library_the_error_names_the_extra(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ResourceError) as caught:
        build_tokenizer(config, no_text)
    assert "ourospec[sentencepiece]" in caught.value.remedy


@pytest.mark.skipif(not GOLF.exists(), reason="the model is not here")
def test_a_model_from_elsewhere():
    tokenizer = build_tokenizer(SentencePieceFile(path=str(GOLF)), no_text)
    assert (tokenizer.vocab_size, tokenizer.end_id) == (1024, 2)
    assert tokenizer.decode(tokenizer.encode("Hello wörld, 日本")) == "Hello wörld, 日本"
