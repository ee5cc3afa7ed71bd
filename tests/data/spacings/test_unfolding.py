"""Unfolding: by definition, back again, and what it refuses."""

import itertools
import math

import numpy as np
import pytest

from ourospec.data.spacings import heights_of, unfold, unfolded
from ourospec.errors import DataError

FIRST = np.array([14.134725141734695, 21.022039638771556, 25.01085758014569, 30.424876125859513])


def by_hand(g: float) -> float:
    return g / (2 * math.pi) * math.log(g / (2 * math.pi * math.e))


def test_spacings_are_differences_of_the_smooth_count():
    wanted = [by_hand(b) - by_hand(a) for a, b in itertools.pairwise(FIRST)]
    np.testing.assert_allclose(unfold(FIRST), wanted, rtol=1e-13)


def test_the_local_variant_takes_the_density_at_the_lower_zero():
    gap = FIRST[1] - FIRST[0]
    wanted = gap * math.log(FIRST[0] / (2 * math.pi)) / (2 * math.pi)
    assert unfold(FIRST, "local")[0] == pytest.approx(wanted, rel=1e-14)


def test_heights_come_back_from_their_positions():
    heights = np.concatenate([[6.4, 7.0, 17.0], np.geomspace(20.0, 1e9, 500)])
    np.testing.assert_allclose(heights_of(unfolded(heights)), heights, rtol=1e-12)


def test_a_position_without_a_height_is_refused():
    with pytest.raises(DataError, match="no height"):
        heights_of(np.array([-1.0]))


@pytest.mark.parametrize(
    ("heights", "said"),
    [
        ([14.0], "at least two"),
        ([14.0, float("nan")], "number 2 is nan"),
        ([14.0, -21.0], "number 2 is -21"),
        ([14.0, 25.0, 21.0], "number 3"),
        ([14.0, 14.0], "not above number 1"),
    ],
)
def test_what_cannot_be_heights_is_refused(heights, said):
    with pytest.raises(DataError, match=said):
        unfold(np.array(heights))
