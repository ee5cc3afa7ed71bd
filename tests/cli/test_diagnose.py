"""`ouro diagnose`: on a real run, and on events that tell of trouble."""

import json
import re


def test_a_real_run_is_diagnosed_for_people_and_for_programs(trained, ouro):
    code, out, _ = ouro("diagnose", trained.run)
    assert code == 0
    assert "complete after step 12 of 12" in out
    assert "Vital signs" in out
    code, out, _ = ouro("diagnose", trained.run, "--json")
    assert code == 0
    data = json.loads(out)
    assert data["status"] == "complete"
    assert data["vital_signs"]["loss"] > 0
    assert isinstance(data["findings"], list)


def test_trouble_is_shown_with_a_command_and_is_no_error(trained, ouro, tmp_path):
    run = tmp_path / "a run"
    run.mkdir()
    (run / "recipe.json").write_text((trained.path / "recipe.json").read_text())
    policy = {
        "step_kind": "policy",
        "gate": 0.04,
        "wanted_passes": 1.0,
        "target_passes": 1.5,
        "near_floor": 1.0,
    }
    policy |= {"price": 0.01, "loss": 3.0}
    lines = [{"kind": "start", "step": 0, "total_steps": 300, "family": "adaptive_lm", "name": "x\x1b[2J"}]
    lines += [{"kind": "step", "step": n, **policy, "loss": 5 - n / 100} for n in range(1, 200)]
    written = "".join(json.dumps({"v": 1, "time": 1.0, **line}) + "\n" for line in lines)
    (run / "events.jsonl").write_text(written)
    code, out, _ = ouro("diagnose", str(run))
    assert code == 0
    assert "\x1b[2J" not in out
    assert re.search(r"severe: The depth has collapsed to one pass  \(from step \d+, .*still so\)", out)
    (command,) = re.findall(r"Try: +(\S*ouro .*)", out)
    assert f"ouro train '{run}' --set-price=" in command
    (finding,) = json.loads(ouro("diagnose", str(run), "--json")[1])["findings"]
    assert finding["rule"] == "collapse"
    assert finding["try"] in command or finding["try"].split(" ", 1)[1] in command


def test_a_run_without_events_and_a_path_without_a_run(trained, ouro, tmp_path):
    (tmp_path / "recipe.json").write_text("{}")
    code, _, err = ouro("diagnose", str(tmp_path))
    assert code == 3
    assert "no events yet" in err
    code, _, err = ouro("diagnose", str(tmp_path / "nowhere"))
    assert code == 2
    assert "does not exist" in err


def test_what_can_be_asked_is_said(trained, ouro):
    assert ouro("diagnose")[0] == 2
    code, _, err = ouro("diagnose", trained.run, "--targets", "-1")
    assert code == 2 and "--targets" in err
    code, out, _ = ouro("diagnose", trained.run, trained.run, "--json")
    assert code == 0
    data = json.loads(out)
    assert len(data["runs"]) == 2 and data["together"] == []
    assert "model" not in data["runs"][0], "a model of text has no diagnostics of its own"
