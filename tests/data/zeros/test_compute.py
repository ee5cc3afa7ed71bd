"""Zeros by number: right, and none missing."""

from pathlib import Path

import numpy as np
import pytest

from ourospec.data.zeros import compute, compute_zeros, proved_zeros
from ourospec.data.zeros.completeness import least_zeros, most_zeros, prove, s_at_zeros
from ourospec.data.zeros.oracle import spot_check
from ourospec.errors import ConfigError, DataError

ODLYZKO = Path(__file__).parents[4] / "shared/data/odlyzko/zeros_100k.txt"
FIRST = [14.134725141734693790, 21.022039638771554993, 25.010857580145688763, 30.424876125859513210]
MILLIONTH = 600269.67701244495552
"""Zero number 1,000,000, by Platt."""


def test_the_first_zeros():
    np.testing.assert_allclose(compute_zeros(4), FIRST, rtol=0, atol=1e-13)


def test_the_millionth():
    assert compute_zeros(1, 1_000_000)[0] == pytest.approx(MILLIONTH, abs=1.2e-10)


def test_a_range_is_a_part_of_a_larger_one():
    whole = compute_zeros(3000)
    # From below Turing's height, from the lower formula into the upper one, and from further up.
    for start, count in ((1, 1), (2, 5), (290, 100), (330, 40), (1970, 60), (2900, 101)):
        np.testing.assert_allclose(
            compute_zeros(count, start), whole[start - 1 :][:count], rtol=0, atol=2e-12
        )


def test_threads_change_nothing():
    assert (compute_zeros(3000, workers=1) == compute_zeros(3000, workers=3)).all()


@pytest.mark.skipif(not ODLYZKO.is_file(), reason="the table is not there")
def test_odlyzkos_table():
    true = np.loadtxt(ODLYZKO)
    assert np.abs(compute_zeros(len(true)) - true).max() < 4e-9  # he states 3e-9


@pytest.mark.parametrize(
    ("start", "count"), [(1, 40), (6709, 2), (2_001_000, 40), (1_115_578, 2), (10**9, 4)]
)
def test_python_flint(start, count):
    """Number 6,709 begins Lehmer's pair; number 1,115,578 the closest of the first two million, by mean spacings."""
    flint = pytest.importorskip("flint")
    found = compute_zeros(count, start)
    exact = [float(zero.imag) for zero in flint.acb.zeta_zeros(start, count)]
    # Half a unit in the last place for the rounding of each side.
    np.testing.assert_allclose(found, exact, rtol=0, atol=3e-11 + float(np.spacing(found[-1])))


@pytest.mark.slow
def test_all_of_the_two_million():
    flint = pytest.importorskip("flint")
    zeros = proved_zeros(2_001_052)
    # The last line of Odlyzko's table of these zeros; a unit in the last place is 2.3e-10.
    assert zeros.heights[-1] == pytest.approx(1132490.658714411, abs=3e-10)
    assert flint.arb(1132491).zeta_nzeros() == 2_001_052 == len(zeros.heights)
    spots = spot_check(zeros.heights, 1, 400)
    assert spots.zeros >= 400 and spots.count_agrees
    assert spots.largest_difference < 2e-10


def test_s_is_small_and_its_mean_too():
    zeros = proved_zeros(3000)
    assert np.abs(s_at_zeros(zeros.heights, 1)).max() < 1.5
    assert abs(zeros.proof.mean_s) < 1e-3
    assert zeros.proof.certainty > 1e-4


@pytest.fixture(scope="module")
def stretch():
    """Zeros of a stretch of heights, with those around them, and what compute knows of it."""
    begin, end = 99_900.0, 100_100.0
    heights, certain = compute.scan(begin, end, 10)
    return heights, begin, end, certain


def test_turings_bound_counts_zeros(stretch):
    heights, begin, end, _ = stretch
    flint = pytest.importorskip("flint")
    for t in (99_950.0, 100_000.0):
        true = int(float(flint.arb(t).zeta_nzeros()))
        assert least_zeros(t, heights, begin) <= true <= most_zeros(t, heights, end)
        assert most_zeros(t, heights, t + 12) < true + 1


def test_what_is_missed_cannot_be_proved(stretch):
    heights, begin, end, certain = stretch
    proof = prove(heights, begin, end, certain)
    assert proof is not None and proof.last - proof.first + 1 > 270
    for lost in ([150], [150, 151], [60, 200]):
        assert prove(np.delete(heights, lost), begin, end, certain) is None, lost
    twice = np.sort(np.append(heights, heights[150] + 1e-3))
    assert prove(twice, begin, end, certain) is None


def test_a_proof_is_true_whatever_is_missed_around(stretch):
    """What was lost below and above the proved range may spoil the proof, but never the numbers."""
    heights, begin, end, certain = stretch
    true = prove(heights, begin, end, certain)
    assert true is not None
    outside = [i for i, t in enumerate(heights) if not true.begin < t <= true.end]
    proofs = [prove(np.delete(heights, i), begin, end, certain) for i in outside]
    assert any(proofs)
    for proof in filter(None, proofs):
        assert (proof.first, proof.last) == (true.first, true.last)


def test_a_range_that_is_missed_is_scanned_again_finer(monkeypatch):
    asked = []
    scan = compute.scan

    def careless(begin, end, points, workers=0, tell=None):
        asked.append(points)
        heights, certain = scan(begin, end, points, workers, tell)
        return (np.delete(heights, [70, 71]) if len(asked) == 1 else heights), certain

    monkeypatch.setattr(compute, "scan", careless)
    zeros = compute_zeros(100, 5000)
    assert len(asked) == 2 and asked[1] == 2 * asked[0]
    monkeypatch.undo()
    np.testing.assert_allclose(zeros, compute_zeros(100, 5000), rtol=0, atol=2e-12)


def test_without_a_proof_there_are_no_zeros(monkeypatch):
    scan = compute.scan
    monkeypatch.setattr(compute, "scan", lambda *a: (np.delete(scan(*a)[0], [70, 71]), 1.0))
    with pytest.raises(DataError, match="none is missing"):
        compute_zeros(100, 5000)


@pytest.mark.parametrize(("count", "start"), [(0, 1), (-3, 1), (5, 0), (2, 10**11)])
def test_ranges_that_do_not_exist(count, start):
    with pytest.raises(ConfigError):
        compute_zeros(count, start)
