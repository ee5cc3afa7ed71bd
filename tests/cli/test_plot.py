"""`ouro plot` on a real run."""

from pathlib import Path

import pytest

pytest.importorskip("matplotlib")


def test_plots_are_written_and_named(trained, ouro, tmp_path):
    code, out, err = ouro("plot", trained.run, "--out", str(tmp_path / "pictures"))
    assert code == 0, err
    paths = [Path(line) for line in out.splitlines()]
    assert {path.stem for path in paths} >= {"loss", "bits", "gradient"}
    assert all(path.is_file() and path.parent == tmp_path / "pictures" for path in paths)


def test_a_run_without_steps_has_nothing_to_plot(ouro, tmp_path):
    (tmp_path / "recipe.json").write_text("{}")
    (tmp_path / "events.jsonl").write_text('{"v": 1, "kind": "start", "step": 0, "time": 1.0}\n')
    code, _, err = ouro("plot", str(tmp_path))
    assert code == 3
    assert "no step yet" in err
