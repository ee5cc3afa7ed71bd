"""`ouro compare` without a run: the baselines on spacings that are known."""

import json
import re

import numpy as np
import pytest

from ourospec.cli.compare import show
from ourospec.data.spacings import heights_of, nulls


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> str:
    """Heights whose unfolded spacings are those of simulated GUE matrices."""
    spacings = nulls.gue_spacings(9_000, 0)
    path = tmp_path_factory.mktemp("zeros") / "gue.txt"
    heights = heights_of(400.0 + np.concatenate([[0.0], np.cumsum(spacings)]))
    path.write_text("\n".join(f"{height:.9f}" for height in heights), encoding="utf-8")
    return str(path)


def test_compare_puts_baselines_in_order_on_the_same_targets(table, ouro, capsys):
    options = ["--table", table, "--unchecked", "--targets", "300", "--split", "tail"]
    code, out, _ = ouro("compare", *options, "--json")
    assert code == 0
    (found,) = json.loads(out)["tables"]
    by_name = {row["name"]: row for row in found["predictors"]}
    assert found["targets"] == 300 and all(row["targets"] == 300 for row in found["predictors"])
    nats = [row["nll"] for row in found["predictors"]]
    assert nats == sorted(nats)
    optimal = by_name["sine kernel, 32 past"]
    assert optimal["gain"] == {"difference": 0, "low": 0, "high": 0}
    # What the theory of the sine process says of them, in this order; AR(128) has too little to be fitted on here.
    for better, worse in (
        ("sine kernel, 32 past", "sine kernel, 4 past"),
        ("sine kernel, 4 past", "sine kernel, 1 past"),
        ("sine kernel, 1 past", "exact GUE law"),
        ("exact GUE law", "GOE surmise"),
        ("GOE surmise", "Poisson"),
    ):
        assert by_name[better]["gain"]["difference"] > by_name[worse]["gain"]["difference"]
    assert abs(optimal["nll"] - 0.4266) < 4 * optimal["nll_se"]
    assert by_name["Poisson"]["gain"]["high"] < 0
    capsys.readouterr()
    show(found, "sine kernel, 32 past")
    out = capsys.readouterr().out
    assert re.search(r"^  sine kernel, 32 past +0\.\d{4} ± 0\.\d{4} +–", out, re.M)
    assert "300 held-out spacings" in out


def test_what_cannot_be_compared_is_said(table, trained, ouro):
    given = ("compare", "--table", table, "--unchecked", "--targets")
    code, _, err = ouro(*given, "5", "--against", "magic")
    assert code == 3 and "--block" in err, "the interleaved split needs 256,000 spacings"
    code, _, err = ouro(*given, "5", "--split", "tail", "--against", "magic")
    assert code == 2 and "magic" in err and "exact GUE law" in err
    code, _, err = ouro("compare", trained.run)
    assert code == 2 and "does not predict spacings" in err
    code, _, err = ouro("compare", "nowhere")
    assert code == 2
    code, _, err = ouro("compare", "--table", table, "--split", "tail")
    assert code == 3 and "nearest zero" in err, "a table is checked"
    code, _, err = ouro("compare", "--table", table, "--targets", "0")
    assert code == 2 and "nothing to predict" in err


def test_too_short_a_table_is_told_what_would_help(ouro, tmp_path):
    path = tmp_path / "short.txt"
    path.write_text("\n".join(str(height) for height in range(400, 700)), encoding="utf-8")
    code, _, err = ouro("compare", "--table", str(path), "--unchecked", "--split", "tail")
    assert code == 3
    assert "10 windows of 256 need 2,560" in err and "--split" not in err
    code, _, err = ouro("compare", "--table", str(path), "--unchecked", "--split", "interleaved")
    assert code == 3
    assert "a smaller --block, or --split tail" in err
