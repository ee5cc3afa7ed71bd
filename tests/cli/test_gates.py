"""`ouro diagnose --gates`: the gates of a real run, for people and for programs."""

import json
import re

import ourospec
from ourospec.cli.gates import show_gates


def test_diagnose_judges_the_gates_on_request(trained, ouro):
    plain = json.loads(ouro("diagnose", trained.run, "--json")[1])
    assert "gates" not in plain
    data = json.loads(ouro("diagnose", trained.run, "--gates", "--json")[1])
    assert {name: data[name] for name in plain} == plain
    judged = data["gates"]
    assert (judged["layers"], judged["max_passes"]) == (2, 3)
    assert [(gate["layer"], gate["passes"]) for gate in judged["gates"]] == [(0, 1), (0, 2), (1, 1), (1, 2)]
    assert judged["oracle"]["oracle"] <= judged["oracle"]["policy"]
    code, out, _ = ouro("diagnose", trained.run, "--gates")
    assert code == 0
    assert "Vital signs" in out
    assert f"{judged['tokens']:,} tokens of {judged['documents']} documents held out" in out
    assert f"{judged['oracle']['policy']:.4f} at {judged['mean_passes']:.3f} passes" in out
    assert len(re.findall(r"^[12]  +[23]  ", out, re.M)) == 4


def test_gates_of_one_depth_for_all_are_judged_without_numbers_that_mean_nothing(trained, capsys):
    judged = dict(ourospec.load(trained.path).gate_quality(most_tokens=500))
    nothing = float("nan")
    judged["difficulty"] = {**judged["difficulty"], "spearman": nothing, "spearman_se": nothing}
    judged["oracle"] = {**judged["oracle"], "share_earned": nothing}
    show_gates(judged)
    out = capsys.readouterr().out
    assert "nan" not in out
    assert re.search(r"^all +– ", out, re.M)


def test_a_plain_models_gates_are_refused(corpus, ouro, tmp_path):
    run = str(tmp_path / "run")
    steps = ["--train.steps", "1", "--prompts", "x", "--quiet"]
    assert ouro("train", "dense_lm/smoke", "--run", run, *steps, *corpus)[0] == 0
    assert ouro("diagnose", run)[0] == 0
    code, _, err = ouro("diagnose", run, "--gates")
    assert code == 2
    assert "no gates to judge" in err
