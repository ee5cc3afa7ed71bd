"""Tables: read, written, and whatever can be wrong with one is named with its line."""

import numpy as np
import pytest

from ourospec.data.zeros import check_table, open_zeros, read_table, write_table
from ourospec.errors import DataError, ResourceError

COUNT = 400


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def zeros(cache):
    return open_zeros(COUNT, cache=cache)


@pytest.fixture
def lines(zeros):
    """As Odlyzko has them."""
    return [f"{height:19.9f}" for height in zeros]


@pytest.fixture
def refusal(tmp_path, cache):
    """What a table of these lines is refused with."""

    def write(lines, end="\n", **how):
        path = tmp_path / "table.txt"
        path.write_text("\n".join(lines) + end)
        with pytest.raises(DataError) as caught:
            check_table(path, cache=cache, **how)
        return str(caught.value)

    return write


def test_a_right_one(tmp_path, lines, zeros, cache):
    path = tmp_path / "table.txt"
    path.write_text("# heights\n\n" + "\n".join(lines) + "\n")
    found = check_table(path, 1, cache=cache)
    assert (found.first, found.last) == (1, COUNT)
    assert 1e-10 < found.largest_difference < 6e-10
    assert found.rms_difference < found.largest_difference
    assert abs(found.mean_s) < 0.01
    np.testing.assert_allclose(read_table(path), zeros, rtol=0, atol=6e-10)


def test_from_anywhere_and_with_numbers(tmp_path, zeros, cache):
    path = tmp_path / "table.txt"
    path.write_text("".join(f"{number} {zeros[number - 1]:.6f}\n" for number in range(100, 200)))
    found = check_table(path, cache=cache)
    assert (found.first, found.last) == (100, 199)
    assert found.tolerance == pytest.approx(5e-7)


def test_significant_digits_and_zeros_left_out(tmp_path, zeros, cache):
    path = tmp_path / "table.txt"
    path.write_text("".join(f"{height:.6g}\n" for height in zeros))
    assert check_table(path, cache=cache).tolerance == pytest.approx(5e-4)
    path.write_text("".join(f"{round(float(height), 9)!r}\n" for height in zeros))
    assert check_table(path, cache=cache).tolerance == pytest.approx(4e-9)


def test_one_short_line_is_no_licence(refusal, lines):
    lines[200] = lines[200][:-6]
    assert "line 201 " in refusal(lines) and "tolerance 4.0e-09" in refusal(lines)


def test_wrong_numbers(refusal, lines):
    numbered = [f"{number} {line}" for number, line in enumerate(lines, 1)]
    numbered[20] = f"22 {lines[20]}"
    assert "Line 21 of" in refusal(numbered) and "zero number 21 number 22; 1 of its" in refusal(numbered)
    from_0 = [f"{number} {line}" for number, line in enumerate(lines)]
    assert "calls zero number 1 number 0; 400 of" in refusal(from_0)
    for wrong in ("0.5", "9" * 30):
        assert "Line 1 of" in refusal([f"{wrong} {line}" for line in lines])


def test_what_is_written_is_read_again(tmp_path, zeros, cache):
    for name, tolerance in (("zeros.npy", 0), ("zeros.txt", 6e-10)):
        write_table(tmp_path / name, zeros)
        np.testing.assert_allclose(read_table(tmp_path / name), zeros, rtol=0, atol=tolerance)
        assert check_table(tmp_path / name, cache=cache).last == COUNT
    assert (tmp_path / "zeros.txt").read_text().startswith("14.134725142\n")


def test_no_digits_that_float64_does_not_hold(tmp_path):
    write_table(tmp_path / "high.txt", np.array([15243394148.0333]))
    assert (tmp_path / "high.txt").read_text() == "15243394148.03330\n"


def test_not_a_number(refusal, lines):
    lines[20] = "nan"
    assert "line 21" in refusal(lines) and "not a finite number: nan" in refusal(lines)


def test_a_word(refusal, lines):
    lines[20] = "seventy"
    assert "Line 21" in refusal(lines) and "'seventy'" in refusal(lines)


def test_negative(refusal, lines):
    lines[0] = "-14.134725142"
    assert "line 1 " in refusal(lines) and "not positive" in refusal(lines)


def test_unsorted(refusal, lines):
    lines[6], lines[7] = lines[7], lines[6]
    assert "do not rise: line 8 " in refusal(lines)


def test_the_same_line_twice(refusal, lines):
    lines.insert(7, lines[7])
    assert "line 9" in refusal(lines) and "once more, as line 8 does" in refusal(lines)


def test_the_same_zero_twice(refusal, lines, zeros):
    lines.insert(8, f"{zeros[7] + 1e-9:.9f}")
    assert "Zero number 8 " in refusal(lines) and "line 8 and line 9" in refusal(lines)


def test_missing_zeros(refusal, lines, zeros):
    del lines[100:102], lines[30]
    text = refusal(lines)
    assert "Zero number 31 " in text and f"{zeros[30]:.9f}" in text
    assert "between line 30 and line 31; 3 missing in all" in text


def test_a_part_is_missing(refusal, lines):
    assert "About 200 zeros are missing" in refusal([*lines[:100], *lines[300:]])


def test_a_height_without_a_zero(refusal, lines):
    lines[41] = lines[41][:-3] + "999"
    text = refusal(lines)
    assert "line 42" in text and "number 42" in text and "--tolerance" in text
    assert "float64" not in text


def test_cut_off_in_the_middle_of_a_number(refusal, lines):
    lines[-1] = lines[-1][:-4]
    assert f"cut off: line {COUNT}" in refusal(lines, end="")


def test_a_wrong_beginning(refusal, lines):
    assert "begins with zero number 2 (height 21.022039639), not with number 1" in refusal(lines[1:], start=1)


def test_too_many_columns(refusal, lines):
    lines[3] += " 7 8"
    assert "Line 4 " in refusal(lines) and "has 3 columns, the first has 1." in refusal(lines)
    assert "Line 1 " in refusal(["1 2 3"] * 9) and "has 3 columns.\n" in refusal(["1 2 3"] * 9)


def test_nothing(refusal):
    assert "no heights" in refusal(["# nothing"])


def test_an_array_that_is_none(tmp_path, zeros):
    path = tmp_path / "zeros.npy"
    write_table(path, zeros)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cut off"):
        read_table(path)
    np.save(path, np.array([["a"]]))
    with pytest.raises(DataError, match="one row of numbers"):
        read_table(path)
    np.save(path, np.array([None]), allow_pickle=True)
    with pytest.raises(DataError, match="does not hold numbers"):
        read_table(path)
    path.write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="no NumPy array"):
        read_table(path)


def test_no_file(tmp_path, zeros):
    with pytest.raises(DataError, match="No such file"):
        read_table(tmp_path / "none.txt")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        write_table(tmp_path / "file" / "zeros.txt", zeros)
