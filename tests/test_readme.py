"""Every command of README.md is run as it stands there, only shorter; so are its Python examples.

`make` targets are tried with `make -n`. A training command trains the family's smoke preset for a few steps
into the directory that the written one would use, so that the commands after it find what they need.
"""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from ourospec import cli

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
SHORT = ["--train.steps", "4"]
OF_THE_SHELL = {"git", "cd"}
"""What a reader types to get here; there is nothing of ours to test in it."""


def blocks(language):
    """The fenced blocks of a language."""
    return re.findall(rf"^```(?:{language})\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)


def commands():
    """Every command line of the shell blocks, its comment and prompt taken away."""
    lines = [
        line for block in blocks("sh|bash|console|shell") for line in block.replace("\\\n", " ").splitlines()
    ]
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [line for line in words if line]


def shortened(words):
    """A command that does the same in seconds."""
    if words[0] != "train":
        return words
    family, _, preset = words[1].partition("/")
    run = [] if "--run" in words else ["--run", f"runs/{family}-{preset}"]
    kept = words[2:]
    if "--train.steps" in kept:
        at = kept.index("--train.steps")
        del kept[at : at + 2]
    return ["train", f"{family}/smoke", *run, *kept, *SHORT]


@pytest.fixture(scope="module")
def desk(tmp_path_factory):
    """An empty folder in which the README is followed from top to bottom."""
    return tmp_path_factory.mktemp("desk")


def test_the_readme_has_commands():
    assert ["make", "train"] in commands()
    assert ["make", "test"] in commands()
    assert any(words[0].endswith("ouro") for words in commands())


def test_the_commands_work_in_the_order_in_which_they_stand(desk, monkeypatch, capsys):
    monkeypatch.chdir(desk)
    monkeypatch.setattr("ourospec.cli.plan.SECONDS", 0.3)
    monkeypatch.setattr("webbrowser.open", lambda url: True)
    for words in commands():
        if words[0] == "make":
            tried = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True)
            assert tried.returncode == 0, tried.stderr
            if words[1] == "train":
                assert cli.main(shortened(["train", "adaptive_lm/tiny"])) == 0
        elif words[0].endswith("ouro"):
            code = cli.main(shortened(words[1:]))
            assert code == 0, f"{shlex.join(words)}\n{capsys.readouterr().err}"
        else:
            assert words[0] in OF_THE_SHELL, f"nobody checks this command: {shlex.join(words)}"


def test_the_python_examples_work(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks("python|py"):
        exec(compile(re.sub(r"_lm/(tiny|small)\b", "_lm/smoke", block), str(README), "exec"), names)


def test_the_links_to_files_lead_somewhere():
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", README.read_text(encoding="utf-8"))
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize("target", ["setup", "train", "test", "test-all", "check", "help"])
def test_make_knows_its_targets(target):
    tried = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert tried.returncode == 0, tried.stderr
