"""Which tones are found: primes and their powers in zeros, and a planted one in heights that have no other."""

from pathlib import Path

import numpy as np
import pytest

from ourospec.data.spacings import Series, unfold
from ourospec.families.spacing_mdn.spectrum import strongest_tones

TABLE = Path(__file__).parents[4] / "shared" / "data" / "odlyzko" / "zeros_100k.txt"


@pytest.mark.skipif(not TABLE.is_file(), reason="there is no table of zeros here")
def test_the_tones_of_zeros_are_logarithms_of_prime_powers():
    heights = np.loadtxt(TABLE, max_rows=40_000)
    halves = [heights[:25_000], heights[26_000:]]
    found = strongest_tones([Series(half, unfold(half)) for half in halves], 12, 3.4)
    # The larger ones: ln 2, 3, 5, 7, 11, 13, 17, 19, 23, 29 and of the powers 9, 4 or 25, 8 being too weak.
    primes = np.log([2, 3, 5, 7, 11, 13, 17, 19, 23, 29])
    assert np.abs(found[:, None] - primes).min(0).max() < 1e-4
    whole = np.exp(found)
    assert np.abs(whole - whole.round()).max() < 5e-3


def test_a_planted_tone_is_found():
    """Heights at which t + 0.2 sin(1.7 t) is a whole number: their density beats at 1.7."""
    grid = np.linspace(1_000, 3_000, 400_001)
    count = 2 * (grid + 0.2 * np.sin(1.7 * grid))
    heights = np.interp(np.arange(np.ceil(count[0]), count[-1]), count, grid)
    (found,) = strongest_tones([Series(heights, np.ones(len(heights) - 1))], 1, 4.0)
    assert found == pytest.approx(1.7, abs=2e-4)


def test_asking_for_more_tones_than_there_are_gives_what_there_is():
    heights = np.cumsum(np.random.default_rng(0).gamma(4.0, 0.25, 60)) + 100.0
    found = strongest_tones([Series(heights, np.ones(59))], 500, 2.0)
    assert 0 < len(found) < 500 and (np.diff(found) > 0).all() and found.max() <= 2.1
