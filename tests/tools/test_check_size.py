"""The size rules find what they are for."""

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def load():
    spec = importlib.util.spec_from_file_location("check_size", ROOT / "tools" / "check_size.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_size"] = module
    spec.loader.exec_module(module)
    return module


check_size = load()

CONFIG = "class Config: ...\n"


def findings(tmp_path, text, name="src/ourospec/thing.py", exceptions=None):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return [str(finding) for finding in check_size.check(tmp_path, exceptions or {})]


def function(lines, name="long"):
    return f"def {name}():\n" + "    x = 1\n" * (lines - 1)


def config(fields, base="Config"):
    return CONFIG + f"class Thing({base}):\n" + "".join(f"    {f}\n" for f in fields)


def test_files_up_to_the_limit_pass_and_beyond_it_do_not(tmp_path):
    assert findings(tmp_path, "x = 1\n" * 400) == []
    assert "401 lines, at most 400" in findings(tmp_path, "x = 1\n" * 401)[0]


def test_the_god_file_has_a_limit_of_its_own(tmp_path):
    assert "at most 160" in findings(tmp_path, "x = 1\n" * 161, "src/ourospec/recipe.py")[0]


def test_functions_up_to_the_limit_pass_and_beyond_it_do_not(tmp_path):
    assert findings(tmp_path, function(60)) == []
    assert "long has 61 lines, at most 60" in findings(tmp_path, function(61))[0]


def test_methods_and_functions_within_functions_count(tmp_path):
    method = "class A:\n" + "".join(f"    {line}\n" for line in function(61).splitlines())
    assert "A.long has 61 lines" in findings(tmp_path, method)[0]


@pytest.mark.parametrize("name", ["utils", "helpers", "common", "misc"])
def test_names_that_say_nothing_are_refused_for_modules_and_packages(tmp_path, name):
    assert len(findings(tmp_path, "", f"src/ourospec/{name}.py")) == 1
    assert len(findings(tmp_path, "", f"src/ourospec/{name}/thing.py")) == 2


def test_fields_and_booleans_of_configs_are_counted(tmp_path):
    assert findings(tmp_path, config([f"a{i}: int = 0" for i in range(15)])) == []
    assert "16 fields, at most 15" in findings(tmp_path, config([f"a{i}: int = 0" for i in range(16)]))[0]
    assert findings(tmp_path, config(["a: bool = True", "b: bool = True"])) == []
    assert "3 booleans, at most 2" in findings(tmp_path, config([f"a{i}: bool = True" for i in range(3)]))[0]


def test_inherited_fields_count_and_class_variables_do_not(tmp_path):
    base = config([f"a{i}: int = 0" for i in range(15)])
    assert "Heir has 16 fields" in findings(tmp_path, base + "class Heir(Thing):\n    b: int = 0\n")[0]
    assert findings(tmp_path, base + "class Heir(Thing):\n    b: ClassVar[int] = 0\n") == []


def test_other_classes_may_have_what_they_need(tmp_path):
    assert findings(tmp_path, config([f"a{i}: bool = True" for i in range(20)], base="Other")) == []


def test_an_exception_covers_its_subject_and_needs_a_reason(tmp_path):
    subject = "src/ourospec/thing.py::long"
    assert findings(tmp_path, function(61), exceptions={subject: "it is one table"}) == []
    assert len(findings(tmp_path, function(61), exceptions={subject: ""})) == 1


def test_an_exception_that_covers_nothing_is_an_error(tmp_path):
    assert "needless" in findings(tmp_path, function(3), exceptions={"src/ourospec/thing.py::long": "x"})[0]
