"""Parts are done once, kept whole, and found again."""

import json

import pytest

from ourospec.claims.parts import Part, Workshop
from ourospec.errors import DataError, ResourceError

CALLS = []


def double(folder, number):
    CALLS.append(number)
    return {"twice": 2 * number}


def fail(folder, number):
    raise DataError(f"{number} cannot be doubled", "Try another one.")


def parts(*numbers, work=double):
    return [Part(f"double {number}", work, {"number": number}) for number in numbers]


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


def test_a_part_is_done_once(tmp_path):
    told = []
    with Workshop(tmp_path, tell=told.append) as workshop:
        assert workshop.do(parts(1, 2)) == [{"twice": 2}, {"twice": 4}]
    with Workshop(tmp_path, tell=told.append) as workshop:
        assert workshop.do(parts(2, 3, 1)) == [{"twice": 4}, {"twice": 6}, {"twice": 2}]
    assert CALLS == [1, 2, 3]
    assert told[-1] == "double 3 (3 of 3)"


def test_equal_parts_are_one(tmp_path):
    again = Part("the same by another name", double, {"number": 1})
    assert Workshop(tmp_path).do([*parts(1), again])[0] == {"twice": 2}
    assert CALLS == [1]


def test_other_inputs_are_another_part(tmp_path):
    one, other = Part("a", double, {"number": 1}), Part("a", double, {"number": 2})
    assert Workshop(tmp_path).do([one, other]) == [{"twice": 2}, {"twice": 4}]
    assert one.digest != Part("a", fail, {"number": 1}).digest


@pytest.mark.parametrize("half", ["", '{"result": {"tw', "[]", '{"part": "double 1"}'])
def test_a_part_that_was_not_written_whole_is_done_again(tmp_path, half):
    workshop = Workshop(tmp_path)
    workshop.do(parts(1))
    (path,) = (tmp_path / "parts").iterdir()
    path.write_text(half)
    assert workshop.do(parts(1)) == [{"twice": 2}]
    assert CALLS == [1, 1]


def test_what_was_done_before_a_failure_is_kept(tmp_path):
    with pytest.raises(DataError, match="cannot be doubled"):
        Workshop(tmp_path).do([*parts(1), *parts(2, work=fail), *parts(3)])
    assert [json.loads(path.read_text())["result"] for path in (tmp_path / "parts").iterdir()] == [
        {"twice": 2}
    ]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "parts").write_text("a file")
    with pytest.raises(ResourceError, match="could not be written"):
        Workshop(tmp_path).do(parts(1))
