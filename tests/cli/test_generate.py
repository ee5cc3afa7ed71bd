"""`ouro generate`: budgets with a receipt, several prompts at once, weights in 8 bits, and drafts."""

import json
import re

import pytest

import ourospec
from ourospec.cli.generate import drafts_text
from ourospec.errors import ConfigError
from ourospec.serve.speculation import Speculation


def test_a_budget_needs_no_calibration_and_leaves_a_receipt(trained, ouro):
    arguments = ("generate", trained.run, "--max-new-tokens", "60", "--budget", "1.5", "--temperature", "1.5")
    code, _, err = ouro(*arguments)
    assert code == 0
    assert re.search(
        r"\[\d+ tokens, [\d.]+ passes per layer \(budget 1.5\), \d+ tokens/s, [\d.]+ ms a token", err
    )
    assert re.search(r"FLOP, threshold [\d.]+ to [\d.]+, float32", err)
    receipt = json.loads(ouro(*arguments, "--json")[1])["receipt"]
    assert receipt["budget"] == 1.5
    assert receipt["kept"] == receipt["passes"] == pytest.approx(1.5, abs=0.25)
    assert receipt["flops"] > 0
    assert receipt["thresholds"][0] != receipt["thresholds"][1]
    assert receipt["speculation"] is None


def test_each_line_of_a_file_is_continued(trained, ouro, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("def \nimport os\n\n", encoding="utf-8")
    arguments = ("generate", trained.run, "--prompts-file", str(file), "--max-new-tokens", "9", "--seed", "5")
    code, out, err = ouro(*arguments, "--depth")
    assert code == 0
    assert re.findall(r"^--- (\d)$", out, re.M) == ["1", "2", "3"]
    assert out.count("Passes per layer") == 1
    assert re.search(r"\[\d+ tokens, [\d.]+ passes per layer, \d+ tokens/s", err)
    data = json.loads(ouro(*arguments, "--json")[1])
    assert [text["prompt"] for text in data["texts"]] == ["def ", "import os", ""]
    alone = json.loads(
        ouro(
            "generate", trained.run, "--prompt", "import os", "--seed", "6", "--json", "--max-new-tokens", "9"
        )[1]
    )
    assert data["texts"][1]["text"] == alone["text"]


def test_eight_bits_and_drafts_say_so(trained, ouro):
    arguments = ("generate", trained.run, "--prompt", "def ", "--max-new-tokens", "30", "--temperature", "0")
    if ourospec.load(trained.run).stepper() is not None:
        code, _, err = ouro(*arguments, "--weights", "int8")
        assert code == 0
        assert "int8, compiled step]" in err
    plain = json.loads(ouro(*arguments, "--json")[1])
    code, out, err = ouro(*arguments, "--speculate")
    assert code == 0
    assert out == "def " + plain["text"] + "\n"
    assert re.search(r"% of drafts accepted|no draft would have paid", err)
    drafts = json.loads(ouro(*arguments, "--speculate", "--json")[1])["receipt"]["speculation"]
    assert 0 <= drafts["kept"] <= drafts["drafted"]


def test_drafts_are_told_in_words():
    assert drafts_text(Speculation(10, 7, 4, 2)) == (
        "70% of drafts accepted, 2.5 a draft, 2.75 tokens a verification"
    )
    assert drafts_text(Speculation(0, 0, 0, 30)) == "no draft would have paid"


def test_what_cannot_go_together_is_refused(trained, ouro, tmp_path):
    missing, empty = str(tmp_path / "missing"), tmp_path / "empty"
    empty.write_text("")
    for arguments, expected, exit_code in [
        (("--speculate", "--budget", "1.5"), "Leave", 2),
        (("--speculate", "--weights", "int8"), "Leave", 2),
        (("--speculate", "--prompts-file", str(empty)), "Leave", 2),
        (("--prompt", "x", "--prompts-file", str(empty)), "Leave", 2),
        (("--prompts-file", str(empty)), "one prompt a line", 3),
        (("--prompts-file", missing), "one prompt a line", 3),
        (("--budget", "3.5"), "from 1 to 3", 2),
    ]:
        code, _, err = ouro("generate", trained.run, *arguments)
        assert code == exit_code, err
        assert expected in err


def test_eight_bits_need_the_compiled_step(trained, monkeypatch):
    model = ourospec.load(trained.run)
    monkeypatch.setattr(type(model.model), "stepper", lambda self, weights="float32": None)
    assert model.generate("x", max_new_tokens=3).receipt.stepped == 0
    with pytest.raises(ConfigError, match="8 bits"):
        model.generate("x", max_new_tokens=3, weights="int8")
