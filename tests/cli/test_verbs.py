"""The verbs on a real run of a smoke preset: what they print, for people and for programs."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ourospec.cli.generate import GenerateOptions
from ourospec.families import COLLECTIONS
from ourospec.runs import RunDirectory
from ourospec.serve.sampling import Sampling
from ourospec.train.control import hold_lock


def test_training_ends_by_naming_commands_that_work(trained, ouro):
    code, out, _ = ouro(*trained.command)
    assert code == 0
    commands = re.findall(r"^  (ouro .+)$", out.partition("Try next:")[2], re.M)
    assert len(commands) == 3
    for command in commands:
        words = command.replace("'def '", "def").replace("--open", "").split()
        assert ouro(*words[1:])[0] == 0, command


def test_training_again_in_the_same_directory_changes_nothing(trained, ouro):
    before = {path: path.stat().st_mtime_ns for path in trained.path.glob("checkpoints/*/*")}
    assert before
    assert ouro(*trained.command, "--quiet")[0] == 0
    assert ouro("train", trained.run, "--quiet")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in trained.path.glob("checkpoints/*/*")} == before


def test_another_recipe_in_the_same_directory_is_refused_with_the_difference(trained, ouro):
    code, _, err = ouro(*trained.command, "--optim.lr", "1e-4")
    assert code == 2
    assert "optim.lr: 0.003 there, 0.0001 here" in err


def test_print_config_is_a_recipe_to_start_from(trained, ouro, tmp_path):
    code, out, _ = ouro(*trained.command, "--print-config", "--model.width", "48")
    assert code == 0
    assert json.loads(out)["model"]["width"] == 48
    path = tmp_path / "recipe.json"
    path.write_text(out, encoding="utf-8")
    assert ouro("train", str(path), "--print-config")[1] == out
    assert ouro("train", trained.run, "--print-config")[1] == (trained.path / "recipe.json").read_text()


def test_a_recipe_is_read_from_the_file_that_is_named(trained, ouro, tmp_path):
    own = json.loads((trained.path / "recipe.json").read_text(encoding="utf-8"))
    (tmp_path / "recipe.json").write_text("{}", encoding="utf-8")
    path = tmp_path / "other.json"
    path.write_text(json.dumps({**own, "seed": 7}), encoding="utf-8")
    code, out, _ = ouro("train", str(path), "--print-config")
    assert code == 0
    assert json.loads(out)["seed"] == 7


@pytest.mark.parametrize("text", ["", "[1]", '"x"', '{"name": "x"}', '{"family": "x"}', '{"family": ["x"]}'])
def test_a_file_that_is_no_recipe_is_a_mistake_of_configuration(ouro, tmp_path, text):
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    code, _, err = ouro("train", str(path))
    assert code == 2
    assert f"{path} is not a recipe" in err
    assert "adaptive_lm" in err, "the families that are known"


def test_a_device_that_is_not_here_is_answered_with_an_option_that_exists(ouro, tmp_path, monkeypatch):
    monkeypatch.setattr("ourospec.device.available_devices", lambda: ["cpu"])
    command = ["train", "adaptive_lm/smoke", "--run", str(tmp_path / "run"), "--train.device"]
    code, _, err = ouro(*command, "cuda")
    assert code == 4
    option, value = re.search(r"(--\S*device) (\w+)", err).groups()
    assert ouro("train", "adaptive_lm/smoke", option, value, "--print-config")[0] == 0


def test_training_says_what_it_prepares_unless_it_is_to_be_quiet(corpus, ouro, tmp_path):
    command = ["train", "dense_lm/smoke", "--train.steps", "1", "--prompts", "x", *corpus]
    fresh = ["--data.cache", str(tmp_path / "cache")]
    code, out, _ = ouro(*command, "--run", str(tmp_path / "loud"), *fresh)
    assert code == 0
    assert out.startswith("reading the corpus")
    assert ouro(
        *command, "--run", str(tmp_path / "quiet"), "--data.cache", str(tmp_path / "other"), "--quiet"
    ) == (
        0,
        "",
        "",
    )


def test_every_preset_can_be_resolved_and_says_what_it_is(ouro):
    code, out, _ = ouro("presets", "--json")
    presets = json.loads(out)
    assert code == 0
    assert {"adaptive_lm/tiny", "dense_lm/tiny"} <= presets.keys()
    for name, what in presets.items():
        assert what.endswith(".")
        code, out, _ = ouro("train", name, "--print-config")
        assert code == 0
        found = json.loads(out)
        each = COLLECTIONS.get(name, (name,))
        names = [one["name"] for one in (found if name in COLLECTIONS else [found])]
        assert names == [preset.split("/")[1] for preset in each]
    assert "adaptive_lm/tiny" in ouro("presets")[1]


def test_help_of_a_preset_describes_every_setting(ouro):
    code, out, _ = ouro("train", "adaptive_lm/tiny", "--help")
    assert code == 0
    for option in (
        "--train.steps",
        "--optim.lr",
        "--model.width",
        "--data.tokenizer",
        "--data.source",
        "--run",
    ):
        assert option in out
    for block in re.split(r"\n│ (?=--)", out)[1:]:
        assert re.search(r"[a-z]{3}", block.partition("\n")[2] + block.partition("  ")[2]), block


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["adaptive_lm/tinny"], "Did you mean adaptive_lm/tiny"),
        (["tiny"], "adaptive_lm/tiny"),
        (["adaptive_lm/smoke", "--optim.learning_rate", "1"], "Did you mean --optim.lr"),
        (["adaptive_lm/smoke", "--train.device", "cdua"], "Did you mean cuda"),
        (["adaptive_lm/smoke", "--data.tokenizer", "bytes"], "Did you mean byte"),
        (
            ["adaptive_lm/smoke", "--train.steps", "0"],
            "--train.steps 0: Input should be greater than or equal",
        ),
        (["adaptive_lm/smoke", "--train.micro-batch-size", "3"], "must divide batch_size"),
        (["--train.steps", "3"], "stands where the preset should"),
    ],
)
def test_mistakes_of_configuration_end_with_2_and_advice(ouro, arguments, expected):
    code, _, err = ouro("train", *arguments)
    assert code == 2
    assert expected in err


def test_data_that_is_not_there_ends_with_3(ouro, tmp_path):
    source = ["--data.source", "files", "--data.source.paths", str(tmp_path / "missing.txt")]
    code, _, err = ouro("train", "adaptive_lm/smoke", "--run", str(tmp_path / "run"), *source)
    assert code == 3
    assert "missing.txt" in err


def test_a_run_in_use_ends_with_4(trained, ouro, tmp_path):
    with hold_lock(RunDirectory(trained.path)):
        code, _, err = ouro(*trained.command)
    assert code == 4
    assert str(os.getpid()) in err


@pytest.mark.parametrize("verb", ["generate", "evaluate", "report"])
def test_a_run_that_is_not_there_names_those_that_are(trained, ouro, verb):
    code, _, err = ouro(verb, str(trained.path.parent / "smok"))
    assert code == 2
    assert "smoke" in err


def test_generate_prints_the_prompt_and_its_continuation(trained, ouro):
    arguments = ("generate", trained.run, "--prompt", "def ", "--max-new-tokens", "12", "--seed", "3")
    code, out, err = ouro(*arguments)
    assert code == 0
    data = json.loads(ouro(*arguments, "--json")[1])
    assert out == "def " + data["text"] + "\n"
    assert re.search(r"\d+ tokens, [\d.]+ passes per layer", err)
    assert data["prompt"] == "def "
    assert "".join(data["pieces"]) == data["text"]
    assert len(data["tokens"]) == len(data["passes"]) <= 12
    assert all(1 <= passes <= 3 for layers in data["passes"] for passes in layers)


def test_generate_obeys_its_effort(trained, ouro):
    arguments = ("generate", trained.run, "--max-new-tokens", "8", "--json")
    assert json.loads(ouro(*arguments, "--max-passes", "1")[1])["mean_passes"] == 1
    assert json.loads(ouro(*arguments, "--threshold", "0")[1])["mean_passes"] == 3


def test_generate_stops_before_any_stop_string(trained, ouro):
    arguments = ("generate", trained.run, "--max-new-tokens", "30", "--json")
    text = json.loads(ouro(*arguments)[1])["text"]
    stops = [
        character for character in dict.fromkeys(text) if character.isascii() and character.isprintable()
    ]
    data = json.loads(ouro(*arguments, "--stop", stops[-1], "--stop", stops[-2])[1])
    assert data["finish"] == "stop"
    assert text.startswith(data["text"])
    assert not {stops[-1], stops[-2]} & set(data["text"])


def test_generate_marks_depth_behind_each_token_where_there_are_no_colours(trained, ouro):
    code, out, _ = ouro("generate", trained.run, "--prompt", "def ", "--depth", "--max-new-tokens", "6")
    assert code == 0
    assert "Passes per layer" in out
    assert len(re.findall(r"‹[123]\.\d›", out.partition("\n")[2])) >= 1


@pytest.mark.parametrize("option", ["--top-p=2", "--temperature=-1", "--max-new-tokens=0"])
def test_generate_refuses_what_cannot_be(trained, ouro, option):
    code, _, err = ouro("generate", trained.run, option)
    assert code == 2
    assert err


def test_generate_offers_the_defaults_of_sampling():
    ours, theirs = GenerateOptions(run=""), Sampling()
    assert {name: getattr(ours, name) for name in Sampling.model_fields} == theirs.model_dump()


def test_report_is_written_where_it_says(trained, ouro):
    (trained.path / "report.html").unlink()
    code, out, _ = ouro("report", trained.run)
    assert code == 0
    assert Path(out.strip()) == trained.path / "report.html"
    assert "<html" in (trained.path / "report.html").read_text(encoding="utf-8")[:500]


def test_doctor_for_people_and_for_programs(ouro, monkeypatch):
    code, out, _ = ouro("doctor")
    assert code == 0
    for word in ("torch", "processor", "memory", "disk", "GFLOP/s", "Missing", "Agreement"):
        assert word in out
    data = json.loads(ouro("doctor", "--json")[1])
    assert data["memory_available"] > 0
    assert data["speed"]["cpu"]["float32"] > 0
    assert data["parity"]["cpu"]["agrees"] is True


def test_doctor_ends_with_4_where_a_device_disagrees(ouro, monkeypatch):
    verdict = {"agrees": False, "explanation": "off by far", "rows": []}
    monkeypatch.setattr("ourospec.measure.parity.compare_with_cpu", lambda kind: verdict)
    code, out, err = ouro("doctor")
    assert code == 4
    assert "DISAGREES: off by far" in out
    assert "--train.device cpu" in err


def test_doctor_names_the_command_for_what_is_missing(ouro, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "datasets" else real(name))
    out = ouro("doctor")[1]
    assert "pip install 'ourospec[datasets]'" in out
    assert "JSONL" not in out, "JSON lines are read without it"


def test_ctrl_c_saves_and_the_same_command_goes_on(corpus, tmp_path):
    steps = 150
    run = tmp_path / "run"
    size = {
        "steps": steps,
        "batch-size": 1,
        "micro-batch-size": 1,
        "window": 16,
        "save-every": 100,
        "eval-every": 0,
        "sample-every": 0,
    }
    options = [word for name, value in size.items() for word in (f"--train.{name}", str(value))]
    options += ["--train.eval-tokens", "100", "--prompts", "x", *corpus]
    command = [
        sys.executable,
        "-m",
        "ourospec.cli",
        "train",
        "adaptive_lm/smoke",
        "--run",
        str(run),
        *options,
    ]
    setting = {"text": True, "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **setting) as process:
        wait_for_step(run, 5)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "saved" in err
    stopped = last_step(run)
    assert 5 <= stopped < steps

    again = subprocess.run(command, capture_output=True, timeout=120, **setting)
    assert again.returncode == 0, again.stderr
    numbers = [event["step"] for event in events(run) if event["kind"] == "step"]
    assert numbers == list(range(1, steps + 1))
    starts = [event for event in events(run) if event["kind"] == "start"]
    assert starts[-1]["resumed_from"] == stopped


def events(run):
    return list(RunDirectory(run).read_events())


def last_step(run):
    return max((event["step"] for event in events(run) if event["kind"] == "step"), default=0)


def wait_for_step(run, step):
    """Until the run in another process has made so many steps."""
    deadline = time.monotonic() + 60
    while last_step(run) < step:
        assert time.monotonic() < deadline, f"no step {step} within a minute"
        time.sleep(0.02)
