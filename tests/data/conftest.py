"""Small corpora."""

import random
from pathlib import Path

import pytest

from ourospec.data.corpus import FilesSource
from ourospec.data.text import TextData
from ourospec.data.tokenizers import BpeConfig, ByteTokenizerConfig, build_tokenizer

WORDS = (
    "river",
    "stone",
    "cloud",
    "ember",
    "quiet",
    "lantern",
    "marble",
    "thicket",
    "violet",
    "copper",
    "winter",
)


def random_text(seed: int, words: int = 400) -> str:
    """Random words and numbers in lines: no two seeds give near-duplicates."""
    chance = random.Random(seed)
    lines = (" ".join(chance.choices(WORDS, k=8)) + f" {chance.random()}" for _ in range(words // 8))
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="session")
def make_text():
    """(seed, words) -> text."""
    return random_text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Forty texts that have little in common."""
    place = tmp_path / "texts"
    place.mkdir()
    for number in range(40):
        (place / f"text{number:02}.txt").write_text(random_text(number), encoding="utf-8")
    return place


@pytest.fixture
def text_data(folder: Path, tmp_path: Path):
    """Makes a TextData over the texts of `folder`, with a cache of its own."""

    def make(**changes) -> TextData:
        settings = {
            "source": FilesSource(paths=(str(folder),)),
            "tokenizer": ByteTokenizerConfig(),
            "cache": str(tmp_path / "cache"),
        }
        return TextData(**(settings | changes))

    return make


@pytest.fixture(scope="session")
def bpe():
    """A small trained tokenizer of 400 tokens."""
    return build_tokenizer(BpeConfig(vocab_size=400), lambda limit: map(random_text, range(10)))
