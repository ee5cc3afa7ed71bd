"""`ouro zeros`: compute, write, check, and refuse."""

import json

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "zeros-cache"))


def test_zeros_are_computed_written_and_checked(ouro, tmp_path):
    path = tmp_path / "zeros.txt"
    code, out, err = ouro("zeros", "--count", "60", "--start", "11", "--out", str(path))
    assert code == 0, err
    assert "11 to 70" in out and "52.970321478 to" in out and "Turing" in out and str(path) in out
    assert len(np.loadtxt(path)) == 60
    code, out, err = ouro("zeros", "--check", str(path), "--start", "11")
    assert code == 0, err
    assert "11 to 70, none missing, none twice" in out
    code, _, err = ouro("zeros", "--check", str(path), "--start", "1")
    assert code == 3
    assert "begins with zero number 11" in err


def test_one_document(ouro, tmp_path):
    pytest.importorskip("flint")
    path = tmp_path / "zeros.npy"
    code, out, _ = ouro("zeros", "--count", "50", "--out", str(path), "--verify", "3", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["first_height"] == pytest.approx(14.134725141734694, abs=1e-13)
    assert found["zeros_below"] <= found["zeros_below_at_most"] < found["zeros_below"] + 1
    assert found["spot_check"]["count_agrees"] and found["spot_check"]["largest_difference"] < 1e-12
    assert np.load(path).dtype == np.float64
    code, out, _ = ouro("zeros", "--check", str(path), "--verify", "2", "--json")
    assert code == 0
    assert json.loads(out)["last"] == 50 and json.loads(out)["spot_check"]["zeros"] >= 2


def test_a_wrong_table_ends_with_a_data_error(ouro, tmp_path):
    path = tmp_path / "zeros.txt"
    path.write_text("14.134725142\n21.022039639\n30.424876126\n")
    code, out, err = ouro("zeros", "--check", str(path))
    assert (code, out) == (3, "")
    assert "Zero number 3 (height 25.010857580) is missing" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Nothing was asked for"),
        (["--count", "0"], "0 zeros were asked for"),
        (["--count", "5", "--start", "0"], "no zero number 0"),
        (["--count", "5", "--start", "100000000000"], "float64"),
        (["--count", "5", "--check", "x"], "--check reads a table"),
        (["--count", "5", "--verify", "-1"], "cannot be negative"),
    ],
)
def test_what_cannot_be_meant(ouro, arguments, said):
    code, _, err = ouro("zeros", *arguments)
    assert code == 2
    assert said in err


def test_without_python_flint_nothing_is_verified(ouro, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "flint", None)
    code, _, err = ouro("zeros", "--count", "5", "--verify", "2")
    assert code == 4
    assert "pip install python-flint" in err
