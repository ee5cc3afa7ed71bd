"""Tokenizers lose nothing where they promise it, and never take text for a special token."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Engine
from tokenizers import decoders, models, normalizers, pre_tokenizers

from ourospec.data.tokenizers import (
    BpeConfig,
    ByteTokenizer,
    JsonTokenizer,
    TokenizerFile,
    build_tokenizer,
    load_tokenizer,
    stamp_tokenizer,
)
from ourospec.data.tokenizers.base import SETTINGS
from ourospec.errors import DataError

SPECIAL = "a<|endoftext|>b</s><|im_end|>"


def no_text(limit):
    raise AssertionError("nothing is trained here")


@pytest.fixture(params=["byte", "bpe"])
def tokenizer(request, bpe):
    return ByteTokenizer() if request.param == "byte" else bpe


@pytest.mark.parametrize("kind", ["byte", "bpe"])
@given(text=st.text(max_size=60))
def test_every_text_comes_back(kind, bpe, text):
    tokenizer = ByteTokenizer() if kind == "byte" else bpe
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert tokenizer.end_id not in ids


def test_name_of_a_special_token_is_text(tokenizer):
    ids = tokenizer.encode(SPECIAL)
    assert tokenizer.end_id not in ids
    assert tokenizer.decode(ids) == SPECIAL


def test_special_tokens_give_no_text(tokenizer):
    assert tokenizer.token_bytes(tokenizer.end_id) == b""
    assert tokenizer.decode([tokenizer.end_id, *tokenizer.encode("x"), tokenizer.end_id]) == "x"


def test_half_a_character_decodes_to_the_replacement(tokenizer):
    assert ByteTokenizer().decode(list("é".encode()[:1])) == "\ufffd"


def test_half_a_surrogate_pair_is_no_text(tokenizer):
    for call in (tokenizer.encode, lambda text: tokenizer.encode_batch(["fine", text])):
        with pytest.raises(DataError, match="half a surrogate pair at character 1"):
            call("a\udcff")


def test_a_batch_equals_its_texts_alone(tokenizer):
    texts = ["", "one", "zwei drei\n", SPECIAL, "日本"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_saved_and_loaded_it_is_the_same(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    tokenizer.save(tmp_path / "tokenizer")
    loaded = load_tokenizer(tmp_path / "tokenizer")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert (loaded.vocab_size, loaded.end_id) == (tokenizer.vocab_size, tokenizer.end_id)
    assert loaded.encode(SPECIAL) == tokenizer.encode(SPECIAL)
    assert not [path for path in (tmp_path / "tokenizer").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("token", [-1, 400, 10**9])
def test_ids_outside_the_vocabulary_are_refused(bpe, token):
    for call in (bpe.token_bytes, lambda t: bpe.decode([t])):
        with pytest.raises(DataError, match="outside the vocabulary") as caught:
            call(token)
        assert caught.value.remedy


def test_training_learns_merges_up_to_the_size_and_is_repeatable():
    text = "the cat sat on the mat, the cat sat\n" * 30
    config = BpeConfig(vocab_size=265)
    one, two = (build_tokenizer(config, lambda limit: iter([text])) for _ in range(2))
    assert one.vocab_size == 265
    assert one.fingerprint == two.fingerprint
    assert len(one.encode(text)) < len(text) / 2
    assert one.fingerprint != build_tokenizer(config, lambda limit: iter([text.upper()])).fingerprint


def test_training_asks_for_as_much_text_as_is_set():
    asked = []

    def text(limit):
        asked.append(limit)
        return iter(["abc"])

    build_tokenizer(BpeConfig(training_megabytes=3), text)
    assert asked == [3_000_000]


def write_engine(path, engine, special=("<|endoftext|>",)):
    engine.add_special_tokens(list(special))
    engine.save(str(path))
    return TokenizerFile(path=str(path))


def byte_level_engine(extra=0):
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate(letters)}
    vocabulary |= {f"ĠĠfiller{number}": len(letters) + number for number in range(extra)}
    engine = Engine(models.BPE(vocab=vocabulary, merges=[]))
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    engine.decoder = decoders.ByteLevel()
    return engine


def test_a_file_of_more_than_131072_tokens(tmp_path):
    config = write_engine(tmp_path / "tokenizer.json", byte_level_engine(extra=140_000))
    tokenizer = build_tokenizer(config, no_text)
    assert tokenizer.vocab_size == 256 + 140_000 + 1
    assert tokenizer.end_id == tokenizer.vocab_size - 1
    assert tokenizer.decode(tokenizer.encode(SPECIAL)) == SPECIAL
    assert tokenizer.token_bytes(300).startswith(b"  filler")


def test_truncation_and_padding_of_a_file_are_switched_off(tmp_path):
    engine = byte_level_engine()
    engine.enable_truncation(4)
    engine.enable_padding(length=64)
    tokenizer = build_tokenizer(write_engine(tmp_path / "tokenizer.json", engine), no_text)
    assert tokenizer.encode_batch(["abcdefgh", "x"]) == [tokenizer.encode("abcdefgh"), tokenizer.encode("x")]
    assert [len(ids) for ids in tokenizer.encode_batch(["abcdefgh", "x"])] == [8, 1]


def test_a_folder_stands_for_the_file_in_it(tmp_path):
    write_engine(tmp_path / "tokenizer.json", byte_level_engine())
    assert build_tokenizer(TokenizerFile(path=str(tmp_path)), no_text).vocab_size == 257


def test_added_tokens_that_are_not_special_stand_for_their_text(tmp_path):
    engine = byte_level_engine()
    engine.add_tokens(["ŷ special word"])
    tokenizer = build_tokenizer(write_engine(tmp_path / "tokenizer.json", engine), no_text)
    ids = tokenizer.encode("xŷ special word.")
    assert len(ids) == 3
    assert tokenizer.token_bytes(ids[1]) == "ŷ special word".encode()


def test_pieces_of_a_metaspace_tokenizer_with_bytes(tmp_path):
    scores = [("<unk>", 0.0), *((f"<0x{byte:02X}>", -9.0) for byte in range(256)), ("▁hi", -1.0), ("▁", -2.0)]
    engine = Engine(models.Unigram(scores, unk_id=0, byte_fallback=True))
    engine.normalizer = normalizers.Replace(" ", "▁")
    engine.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    config = write_engine(tmp_path / "tokenizer.json", engine, ["<unk>", "</s>"])
    tokenizer = build_tokenizer(config, no_text)
    ids = tokenizer.encode(" hié")
    assert b"".join(map(tokenizer.token_bytes, ids)) == " hié".encode()
    assert tokenizer.decode(ids) == " hié"
    assert tokenizer.token_bytes(0) == b""


def test_pieces_of_a_wordpiece_tokenizer(tmp_path):
    vocabulary = {"[UNK]": 0, "play": 1, "##ing": 2, "[SEP]": 3}
    engine = Engine(models.WordPiece(vocabulary, unk_token="[UNK]"))
    engine.pre_tokenizer = pre_tokenizers.Whitespace()
    engine.decoder = decoders.WordPiece()
    tokenizer = build_tokenizer(write_engine(tmp_path / "t.json", engine, ["[UNK]", "[SEP]"]), no_text)
    assert tokenizer.end_id == 3
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("playing")] == [b" play", b"ing"]
    assert tokenizer.decode(tokenizer.encode("playing")) == "playing"


def test_the_end_token_is_found_chosen_or_asked_for(tmp_path):
    config = write_engine(tmp_path / "tokenizer.json", byte_level_engine(), ["<odd>", "<|endoftext|>"])
    found = build_tokenizer(config, no_text)
    assert found.end_id == 257
    chosen = build_tokenizer(config.model_copy(update={"end_token": "<odd>"}), no_text)
    assert chosen.end_id == 256
    assert chosen.fingerprint != found.fingerprint
    with pytest.raises(DataError, match="no token '<no>'"):
        build_tokenizer(config.model_copy(update={"end_token": "<no>"}), no_text)
    config = write_engine(tmp_path / "other.json", byte_level_engine(), ["<odd>"])
    with pytest.raises(DataError, match=r"names no token .*'<odd>'") as caught:
        build_tokenizer(config, no_text)
    assert "--data.tokenizer.end-token" in caught.value.remedy


@pytest.mark.parametrize("content", [None, "", "{}", "no json"])
def test_a_file_that_is_no_tokenizer(tmp_path, content):
    path = tmp_path / "tokenizer.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=str(path)) as caught:
        build_tokenizer(TokenizerFile(path=str(path)), no_text)
    assert caught.value.remedy


def test_the_stamp_follows_the_file_not_its_place(tmp_path):
    one = write_engine(tmp_path / "one.json", byte_level_engine())
    two = write_engine(tmp_path / "two.json", byte_level_engine())
    assert stamp_tokenizer(one) == stamp_tokenizer(two)
    write_engine(tmp_path / "two.json", byte_level_engine(extra=1))
    assert stamp_tokenizer(one) != stamp_tokenizer(two)


@pytest.mark.parametrize("settings", [None, "[]", "{", '{"version": 1, "kind": "abacus"}', '{"version": 2}'])
def test_a_folder_that_holds_no_tokenizer_of_ours(tmp_path, settings):
    if settings is not None:
        (tmp_path / SETTINGS).write_text(settings)
    with pytest.raises(DataError) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.remedy


def test_fingerprints_tell_engines_apart():
    one, two = (JsonTokenizer(with_end(byte_level_engine(extra))) for extra in (0, 1))
    assert one.fingerprint != two.fingerprint


def with_end(engine):
    engine.add_special_tokens(["<|endoftext|>"])
    return engine


def test_heavy_libraries_are_imported_when_they_are_needed():
    script = (
        "import json, sys; import ourospec.data.text; "
        "print(json.dumps([m for m in ('datasets', 'pyarrow', 'sentencepiece', 'tokenizers') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []
