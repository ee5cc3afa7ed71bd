"""`ouro evaluate`: its figures, the text it reads, and what it shows meanwhile."""

import io
import json
import re
import sys

from ourospec import cli
from ourospec.cli.evaluate import progress


def test_evaluate_prints_figures_with_errors_and_the_same_as_json(trained, ouro):
    code, out, _ = ouro("evaluate", trained.run)
    assert code == 0
    data = json.loads(ouro("evaluate", trained.run, "--json")[1])
    assert f"{data['bits_per_byte']:.4f} ± {data['bits_per_byte_se']:.4f}" in out
    assert data["loss"] > 0
    assert data["documents"] > 1
    assert 1 <= data["mean_passes"] <= 3
    assert data["step"] == 12


def test_evaluate_reads_any_text(trained, ouro, tmp_path):
    path = tmp_path / "other.txt"
    path.write_text("Grüße aus der Schlange.\n" * 20, encoding="utf-8")
    data = json.loads(ouro("evaluate", trained.run, "--data", str(path), "--json")[1])
    assert data["documents"] == 1
    assert data["bytes"] == path.stat().st_size
    assert data["loss_se"] is None


def test_evaluate_explains_its_errors_where_there_are_any(trained, ouro, tmp_path):
    assert "± is the standard error" in ouro("evaluate", trained.run)[1]
    path = tmp_path / "single.txt"
    path.write_text("x = 1\n", encoding="utf-8")
    out = ouro("evaluate", trained.run, "--data", str(path))[1]
    assert "±" not in out
    assert ": 1 document, " in out


def test_evaluate_replaces_what_is_not_utf8_as_its_own_advice_says(trained, ouro, tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes("Grüße\n".encode("latin-1"))
    command = ["evaluate", trained.run, "--data", str(path), "--json"]
    code, _, err = ouro(*command)
    assert code == 3
    advice = re.search(r"ouro evaluate: (--\S+) (\w+)", err).groups()
    code, out, _ = ouro(*command, *advice)
    assert code == 0
    assert json.loads(out)["bytes"] == len("Gr\ufffd\ufffde\n".encode())
    assert ouro("evaluate", trained.run, *advice)[0] == 2, "there is nothing that it could be about"


def test_evaluate_treats_bytes_as_the_run_did(corpus, ouro, tmp_path):
    run, path = str(tmp_path / "run"), tmp_path / "latin.txt"
    path.write_bytes("Grüße\n".encode("latin-1"))
    steps = ["--train.steps", "1", "--prompts", "x", "--data.on-undecodable", "replace", "--quiet"]
    assert ouro("train", "dense_lm/smoke", "--run", run, *steps, *corpus)[0] == 0
    assert ouro("evaluate", run, "--data", str(path))[0] == 0
    assert ouro("evaluate", run, "--data", str(path), "--on-undecodable", "refuse")[0] == 3


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_evaluate_shows_on_a_terminal_how_far_it_is(trained, tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("x = 1\n", encoding="utf-8")
    monkeypatch.setenv("TERM", "xterm-256color")
    told = []
    monkeypatch.setattr("rich.status.Status.update", lambda self, what: told.append(str(what)))
    command = ["evaluate", trained.run, "--data", str(tmp_path), "--thinking-tokens", "0"]
    for options, shown in (([], True), (["--json"], False)):
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        assert cli.main([*command, *options]) == 0
        assert ("opening the run" in stream.getvalue()) == shown
        assert told == (["scoring document 1", "scoring document 2"] if shown else [])
        told.clear()
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.main(command) == 0
    assert stream.getvalue() == ""


def test_evaluate_shows_words_as_they_are(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress(shown=True) as tell:
        tell("reading [/path] \x1b[2J")
    assert "\x1b[2J" not in sys.stderr.getvalue()


def test_evaluate_obeys_its_effort(trained, ouro):
    one = json.loads(ouro("evaluate", trained.run, "--max-passes", "1", "--json")[1])
    most = json.loads(ouro("evaluate", trained.run, "--threshold", "0", "--json")[1])
    assert one["mean_passes"] == 1
    assert most["mean_passes"] == 3
    assert one["flops_per_token"] < most["flops_per_token"]


def test_evaluate_tells_what_thinking_buys(trained, ouro):
    code, out, _ = ouro("evaluate", trained.run)
    assert code == 0
    data = json.loads(ouro("evaluate", trained.run, "--json")[1])["thinking"]
    assert [line["passes"] for line in data["each_pass"]] == [1, 2, 3]
    for line in data["each_pass"]:
        name = "1 pass " if line["passes"] == 1 else f"{line['passes']} passes"
        assert re.search(
            rf"^{name} +{line['passes']}.00 +{line['loss']:.4f} ± {line['loss_se']:.4f}", out, re.M
        )
    # A plain text has no answers, and this family neither a memory nor a halting head of its tokens.
    assert data.keys() == {"documents", "tokens", "as_used", "each_pass"}
    assert "How it decides" not in out and "exact match" not in out


def test_the_sample_of_thinking_is_as_large_as_it_is_asked_to_be(trained, ouro):
    small = json.loads(ouro("evaluate", trained.run, "--thinking-tokens", "300", "--json")[1])
    assert 100 < small["thinking"]["tokens"] <= 300
    none = json.loads(ouro("evaluate", trained.run, "--thinking-tokens", "0", "--json")[1])
    assert "thinking" not in none and none["loss"] == small["loss"]
    code, _, err = ouro("evaluate", trained.run, "--thinking-tokens", "-1")
    assert code == 2 and "--thinking-tokens -1" in err
