"""Splits and frozen targets: the document's numbers, no shared spacing, and pasts that are what was before."""

import numpy as np
import pytest

from ourospec.data.spacings import SpacingData, TableSource, frozen_targets, heights_of, open_spacings
from ourospec.errors import DataError


@pytest.fixture
def opened(monkeypatch):
    """Opens `count` made-up spacings, without a file."""

    def make(count: int, **settings):
        spacings = np.random.default_rng(1).gamma(4.0, 0.25, count)
        heights = heights_of(np.concatenate([[0.0], np.cumsum(spacings)]))
        monkeypatch.setattr("ourospec.data.spacings.dataset.read_source", lambda *_: heights)
        data = SpacingData(source=TableSource(path="made up"), **settings)
        return open_spacings(data), spacings

    return make


def test_the_documents_split(opened):
    dataset, spacings = opened(2_001_051)
    (train,), (held,) = dataset.train, dataset.heldout
    assert len(train.spacings) == 7_035 * 256 and len(held.spacings) == 781 * 256
    np.testing.assert_allclose(held.spacings[:5], spacings[7_035 * 256 :][:5], rtol=1e-6)
    assert len(held.heights) == len(held.spacings) + 1
    assert train.heights[-1] == held.heights[0]


def test_every_tenth_block_is_held_out(opened):
    dataset, spacings = opened(2_550, split="interleaved", block=100)
    assert [len(series.spacings) for series in dataset.heldout] == [100, 100]
    assert [len(series.spacings) for series in dataset.train] == [900, 900, 550]
    np.testing.assert_allclose(dataset.heldout[1].spacings, spacings[1_900:2_000], rtol=1e-9)
    both = np.concatenate([series.spacings for series in [*dataset.train, *dataset.heldout]])
    np.testing.assert_allclose(np.sort(both), np.sort(spacings), rtol=1e-9)


def test_the_fingerprint_follows_heights_and_split(opened):
    prints = {
        opened(count, split=split, block=100)[0].fingerprint
        for count in (2_600, 2_601)
        for split in ("tail", "interleaved")
    }
    assert len(prints) == 4
    assert opened(2_600)[0].fingerprint == opened(2_600)[0].fingerprint


@pytest.mark.parametrize(
    ("settings", "said"),
    [({}, "10 windows of 256"), ({"split": "interleaved", "block": 300}, "10 blocks of 300")],
)
def test_too_few_spacings_are_refused(opened, settings, said):
    with pytest.raises(DataError, match=said):
        opened(2_500, **settings)


def test_targets_have_their_own_past(opened):
    dataset, _ = opened(4_000, split="interleaved", block=100)
    targets = frozen_targets(dataset.heldout, context=30, most=50)
    assert targets.past.shape == (50, 30) and targets.past_heights.shape == (50, 31)
    held = np.concatenate([series.heights for series in dataset.heldout])
    for row in range(50):
        at = int(np.searchsorted(held, targets.past_heights[row, -1]))
        # The target ends at the next height of the same series.
        rise = open_rise(held[at], held[at + 1])
        assert targets.target[row] == pytest.approx(rise, rel=1e-9)
    np.testing.assert_allclose(
        targets.past, [open_rise(h[:-1], h[1:]) for h in targets.past_heights], rtol=1e-9
    )


def open_rise(lower, upper):
    turns = np.stack([np.asarray(lower), np.asarray(upper)]) / (2 * np.pi)
    return np.diff(turns * (np.log(turns) - 1), axis=0)[0]


def test_targets_are_spread_evenly_and_blocks_do_not_cross_series(opened):
    dataset, _ = opened(40_000, split="interleaved", block=1_000)
    targets = frozen_targets(dataset.heldout, context=100, most=360)
    assert len(targets.target) == 360
    assert (np.diff(targets.block) >= 0).all()
    series = np.searchsorted(
        [s.heights[0] for s in dataset.heldout], targets.past_heights[:, 0], side="right"
    )
    for block in np.unique(targets.block):
        assert len(np.unique(series[targets.block == block])) == 1
    counts = np.bincount(series)[1:]
    assert counts.max() - counts.min() <= 1


def test_all_positions_behind_the_reserve_when_fewer_than_asked(opened):
    dataset, _ = opened(4_000)
    held = dataset.heldout[0]
    targets = frozen_targets(dataset.heldout, context=10, most=10**6)
    np.testing.assert_array_equal(targets.target, held.spacings[64:])


def test_a_context_longer_than_any_stretch_is_refused(opened):
    dataset, _ = opened(4_000)
    with pytest.raises(DataError, match="No held-out stretch"):
        frozen_targets(dataset.heldout, context=5_000)


def test_a_longer_look_back_ends_in_the_same_past(opened):
    dataset, _ = opened(40_000, split="interleaved", block=1_000)
    targets = frozen_targets(dataset.heldout, context=100, most=50)
    past, heights = targets.looking_back(200, slice(10, 20))
    np.testing.assert_allclose(past[:, -100:], targets.past[10:20], rtol=1e-6)
    np.testing.assert_array_equal(heights[:, -101:], targets.past_heights[10:20])
    assert (
        heights.shape == (10, 201) and np.diff(heights, axis=1).max() < 10 * np.diff(heights, axis=1).mean()
    )
    np.testing.assert_array_equal(targets.looking_back(7)[0], targets.past[:, -7:])
    with pytest.raises(DataError, match="251 spacings"):
        targets.looking_back(251)


def test_up_to_the_reserve_targets_do_not_depend_on_the_context(opened):
    dataset, _ = opened(40_000, split="interleaved", block=1_000)
    short, long = (frozen_targets(dataset.heldout, context=context) for context in (10, 250))
    np.testing.assert_array_equal(short.target, long.target)
