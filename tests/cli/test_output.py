"""What is printed: JSON without NaN, aligned sections, coloured depth that cannot harm a terminal."""

import json
import math
import time

import pytest

from ourospec.cli.generate import Printer
from ourospec.cli.output import flop, print_json, print_section, told_if_slow
from ourospec.cli.program import as_typed
from ourospec.serve.text import Piece
from ourospec.telemetry.depth_bands import BANDS, band_colour


def test_json_has_null_for_what_is_no_number(capsys):
    print_json({"a": math.nan, "b": [math.inf, 1.5], "c": (1, "ü"), "d": {"e": -math.inf}})
    assert json.loads(capsys.readouterr().out) == {
        "a": None,
        "b": [None, 1.5],
        "c": [1, "ü"],
        "d": {"e": None},
    }


def test_sections_are_aligned_and_longer_values_stay_in_their_column(capsys):
    print_section("Here", [("a", "one\ntwo"), ("long name", "three")])
    assert capsys.readouterr().out == "Here\n  a          one\n             two\n  long name  three\n\n"


@pytest.mark.parametrize(
    ("number", "text"), [(950, "950 FLOP"), (72_345, "72.3 kFLOP"), (1.5e12, "1.50 TFLOP")]
)
def test_flop(number, text):
    assert flop(number) == text


def test_commands_are_printed_as_they_were_typed(monkeypatch):
    text = "Try: ouro train x; ouro --help; ouro VERB. Nothing else of ouro changes, such as ouro itself."
    monkeypatch.setattr("sys.argv", [".venv/bin/ouro", "train"])
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert as_typed(text) == (
        "Try: .venv/bin/ouro train x; .venv/bin/ouro --help; .venv/bin/ouro VERB. "
        "Nothing else of ouro changes, such as ouro itself."
    )
    monkeypatch.setattr("shutil.which", lambda name: ".venv/bin/ouro")
    assert as_typed(text) == text


def test_depth_is_coloured_by_band_and_explained(capsys):
    printer = Printer("def ", depth=True, colours=True)
    assert capsys.readouterr().out == "", "nothing before there is some text"
    printer.piece(Piece(5, "f", (1, 1)))
    printer.piece(Piece(6, "(", (3, 4)))
    out = capsys.readouterr().out
    assert all(f"38;5;{band.colour}m" in out.partition("\n")[0] for band in BANDS)
    assert f"\033[38;5;{band_colour(1)}mf\033[0m" in out
    assert f"\033[38;5;{band_colour(3.5)}m(\033[0m" in out


def test_a_terminal_does_not_obey_what_the_model_writes(capsys):
    printer = Printer("go \033[3J", depth=False, colours=True)
    printer.piece(Piece(5, "\033[2J\n", (1,)))
    assert capsys.readouterr().out == "\033[90mgo ␛[3J\033[0m␛[2J\n"
    Printer("", depth=False, colours=False).piece(Piece(5, "\033[2J", (1,)))
    assert capsys.readouterr().out == "\033[2J"


def test_what_takes_long_says_so_and_what_does_not_is_silent(capsys):
    with told_if_slow("still at it", seconds=0.01):
        time.sleep(0.3)
    with told_if_slow("too early", seconds=30.0):
        pass
    said = capsys.readouterr()
    assert said.err == "still at it\n" and said.out == ""
