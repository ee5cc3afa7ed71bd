"""Options over a pydantic model: values, kinds, optional models, help and refusals."""

import re
from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, model_validator

from ourospec.cli.overrides import parse_overrides
from ourospec.config import Config
from ourospec.errors import ConfigError


class Bytes(Config):
    """256 bytes and an end."""

    kind: Literal["byte"] = "byte"


class Pairs(Config):
    """Byte pairs, counted in the corpus."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: Annotated[int, Field(ge=257)] = 4096
    """Entries."""


class FromFile(Config):
    """Any tokenizer.json."""

    kind: Literal["file"] = "file"
    path: str
    """The file."""


class Data(Config):
    tokenizer: Annotated[Bytes | Pairs | FromFile, Field(discriminator="kind")] = Pairs()
    """How text becomes numbers."""
    share: Annotated[float, Field(gt=0, lt=1)] = 0.05
    """Held out, 0 to 1."""


class Optim(Config):
    lr: Annotated[float, Field(gt=0)] = 1e-3
    """Highest learning rate."""
    steps_of_rest: int | None = None
    """Steps without learning; None: no rest."""
    nesterov: bool = False
    """Looks ahead."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where."""

    @model_validator(mode="after")
    def _calm(self):
        if self.nesterov and self.lr > 1:
            raise ValueError("looking ahead needs a learning rate of at most 1")
        return self


class Experts(Config):
    """A mixture of experts."""

    count: int = 8
    """Experts."""


class Whole(Config):
    """A whole recipe."""

    name: str = "custom"
    seed: int = 0
    """Of everything."""
    data: Data = Data()
    """The corpus."""
    optim: Optim = Optim()
    """The optimiser."""
    experts: Experts | None = None
    """Instead of a plain network."""
    scales: tuple[float, ...] = (1.0, 0.7)
    """One a pass."""
    prompts: tuple[str, ...] = ("def ",)
    """Beginnings."""


@dataclass(frozen=True)
class Extras:
    quiet: "Annotated[bool, 'written as a string, as a deferred annotation is']" = False


def parse(*arguments, default=None):
    recipe, _ = parse_overrides(default or Whole(), arguments, prog="prog", hidden=("name",))
    return recipe


def refusal(*arguments):
    with pytest.raises(ConfigError) as caught:
        parse(*arguments)
    return str(caught.value)


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        parse(*arguments, "--help")
    assert caught.value.code == 0
    # Without the boxes, and as one line: how help is wrapped depends on the terminal.
    return re.sub(r"(?:[\s│─╭╮╰╯]|-{3,})+", " ", capsys.readouterr().out)


def test_nothing_given_changes_nothing():
    assert parse() == Whole()


def test_values_of_every_type():
    recipe = parse(
        *("--seed", "7", "--optim.lr", "1e-4", "--optim.nesterov", "true", "--optim.device=cpu"),
        *("--scales", "1", "0.5", "0.25", "--prompts", "import os", "def ", "--optim.steps-of-rest", "3"),
    )
    assert recipe.seed == 7
    assert recipe.optim == Optim(lr=1e-4, nesterov=True, device="cpu", steps_of_rest=3)
    assert recipe.scales == (1.0, 0.5, 0.25)
    assert recipe.prompts == ("import os", "def ")


def test_names_are_understood_with_dashes_and_with_underscores():
    assert parse("--data.tokenizer.vocab_size", "300") == parse("--data.tokenizer.vocab-size", "300")


def test_the_defaults_are_those_of_the_instance_not_of_the_class():
    default = Whole(name="other", optim=Optim(lr=0.5), experts=Experts(count=3), data=Data(tokenizer=Bytes()))
    assert parse("--seed", "1", default=default) == default.model_copy(update={"seed": 1})


@settings(max_examples=30, deadline=None)
@given(
    lr=st.floats(min_value=1e-12, max_value=1e3),
    vocab=st.integers(257, 2**40),
    scales=st.lists(st.floats(0, 1e6), min_size=1, max_size=4),
)
def test_what_is_written_out_reads_back_the_same(lr, vocab, scales):
    recipe = parse(
        *("--optim.lr", repr(lr), "--data.tokenizer.vocab-size", str(vocab)),
        *("--scales", *map(repr, scales)),
    )
    assert recipe.optim.lr == lr
    assert recipe.data.tokenizer == Pairs(vocab_size=vocab)
    assert recipe.scales == tuple(scales)


@pytest.mark.parametrize("flag", ["--data.tokenizer", "--data.tokenizer.kind"])
@pytest.mark.parametrize("glue", [" ", "="])
def test_a_kind_is_chosen_by_the_field_or_by_its_kind(flag, glue):
    assert parse(*f"{flag}{glue}byte".split(" ")).data.tokenizer == Bytes()


def test_a_kind_brings_its_own_settings_in_any_order():
    expected = FromFile(path="x.json")
    assert parse("--data.tokenizer", "file", "--data.tokenizer.path", "x.json").data.tokenizer == expected
    assert parse("--data.tokenizer.path", "x.json", "--data.tokenizer", "file").data.tokenizer == expected


def test_a_kind_without_what_it_needs_says_which_option(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--data.tokenizer", "file")
    assert caught.value.code == 2
    assert "--data.tokenizer.path" in capsys.readouterr().err


def test_a_setting_of_another_kind_names_that_kind():
    text = refusal("--data.tokenizer.path", "x.json")
    assert "belongs to --data.tokenizer file, but bpe is chosen" in text
    assert "--data.tokenizer file --data.tokenizer.path VALUE" in text


def test_an_unknown_kind_suggests_one():
    text = refusal("--data.tokenizer", "bytes")
    assert "Did you mean byte?" in text
    assert "byte, bpe, file" in text


def test_an_optional_model_is_switched():
    assert parse("--experts", "on").experts == Experts()
    assert parse("--experts", "on", "--experts.count", "2").experts == Experts(count=2)
    assert parse("--experts", "off", default=Whole(experts=Experts())).experts is None
    assert "belongs to --experts on" in refusal("--experts.count", "2")


def test_an_unknown_option_suggests_one():
    assert "Did you mean --optim.lr?" in refusal("--optim.learning_rate", "1")
    assert "Did you mean --optim.lr?" in refusal("--optim.learning_rate=1")
    assert "prog --help" in refusal("--nonsense", "1")


def test_a_hidden_field_is_no_option():
    assert "There is no option --name" in refusal("--name", "x")


def test_an_unknown_choice_suggests_one():
    text = refusal("--optim.device", "cdua")
    assert "Did you mean cuda?" in text
    assert "auto, cpu, cuda" in text


def test_every_value_out_of_bounds_is_named_with_its_option():
    text = refusal("--optim.lr", "-1", "--data.share=2", "--data.tokenizer.vocab-size", "12")
    assert "--optim.lr -1.0: Input should be greater than 0" in text
    assert "--data.share 2.0: Input should be less than 1" in text
    assert "--data.tokenizer.vocab-size 12: Input should be greater than or equal to 257" in text


def test_what_a_model_refuses_as_a_whole_is_said_in_its_words():
    text = refusal("--optim.lr", "2", "--optim.nesterov", "true")
    assert "--optim: looking ahead needs a learning rate of at most 1" in text


def test_a_value_of_the_wrong_type_ends_with_status_2(capsys):
    with pytest.raises(SystemExit) as caught:
        parse("--optim.lr", "much")
    assert caught.value.code == 2
    assert "--optim.lr" in capsys.readouterr().err


def test_help_has_groups_descriptions_bounds_defaults_and_choices(capsys):
    text = help_of(capsys)
    for expected in (
        "A whole recipe.",
        "optim options The optimiser.",
        "--optim.lr FLOAT Highest learning rate. (> 0) (default: 0.001)",
        "--optim.device {auto,cpu,cuda} Where. (default: auto)",
        "--optim.nesterov {true,false} Looks ahead. (default: false)",
        "data.tokenizer options How text becomes numbers.",
        "--data.tokenizer {byte,bpe,file} byte: 256 bytes and an end. bpe: Byte pairs, counted in the corpus.",
        "--data.tokenizer.vocab-size INT Entries. (≥ 257) (default: 4096)",
        "--experts {off,on} off on: A mixture of experts. (default: off)",
    ):
        assert expected in text


def test_help_follows_the_kind_that_is_chosen(capsys):
    text = help_of(capsys, "--data.tokenizer", "file")
    assert "--data.tokenizer.path STR The file. (required)" in text
    assert "vocab-size" not in text


def test_extras_come_back_apart():
    recipe, extras = parse_overrides(Whole(), ["--quiet", "--seed", "2"], prog="prog", extras=Extras)
    assert (recipe.seed, extras.quiet) == (2, True)


class Bag(Config):
    things: Annotated[tuple[Experts, ...], Field(min_length=1)] = (Experts(count=2),)
    """Several models."""
    size: int = 1
    """How large."""


def test_a_field_of_several_models_takes_json_and_is_kept_beside_other_options(capsys):
    full = Bag(things=(Experts(count=5), Experts(count=7)))
    assert parse_overrides(full, ["--size", "2"], prog="ouro")[0] == full.model_copy(update={"size": 2})
    changed = parse_overrides(Bag(), ["--things", '[{"count": 9}]'], prog="ouro")[0]
    assert changed.things == (Experts(count=9),)
    with pytest.raises(SystemExit):
        parse_overrides(full, ["--help"], prog="ouro")
    assert "as JSON" in " ".join(capsys.readouterr().out.split())


def test_json_that_cannot_be_meant_names_the_option_and_the_place():
    for text, place in (('[{"count": "x"}]', "--things: 0.count: "), ("[", "--things: the text: ")):
        with pytest.raises(ConfigError, match=place):
            parse_overrides(Bag(), ["--things", text], prog="ouro")
    with pytest.raises(ConfigError, match="--things"):
        parse_overrides(Bag(), ["--things", "[]"], prog="ouro")
