"""The stream: each spacing a target once an epoch, windows that are what they say, positions from (seed, step)."""

import numpy as np
import pytest
import torch

from ourospec.data.spacings import Series, SpacingDataset, SpacingStream, heights_of
from ourospec.errors import ConfigError, DataError


def dataset(*lengths: int) -> SpacingDataset:
    """Series whose spacings are all different and say where they stand."""
    found, start = [], 0.0
    for length in lengths:
        spacings = 0.5 + (np.arange(length) + start) / 10_000
        found.append(Series(heights_of(np.concatenate([[start], start + np.cumsum(spacings)])), spacings))
        start += length
    return SpacingDataset(found, [], {}, f"made up of {lengths}")


def stream(data=None, **changes) -> SpacingStream:
    sizes = {"past": 12, "targets": 4, "batch_size": 3, "micro_batch_size": 2, "seed": 5} | changes
    return SpacingStream(data or dataset(400, 150), **sizes)


def test_a_row_is_a_window_and_its_targets_are_its_end():
    for batch in stream().batches(3):
        assert batch.past.shape[1] == 12 and batch.past_heights.shape[1] == 13 and batch.targets.shape[1] == 4
        torch.testing.assert_close(batch.past[:, -3:], batch.targets[:, :3])
        steps = batch.past.diff(dim=1)
        torch.testing.assert_close(steps, torch.full_like(steps, 1e-4), atol=1e-6, rtol=0)
        assert (batch.past_heights.diff(dim=1) > 0).all() and batch.num_targets == batch.targets.numel()


def test_each_spacing_is_a_target_once_an_epoch_but_for_the_ends():
    made = stream(batch_size=1, micro_batch_size=1)
    found = torch.cat([made.batches(step)[0].targets for step in range(made.windows_per_epoch)]).flatten()
    places = ((found.double() - 0.5) * 10_000).round().long()
    assert len(places.unique()) == len(places)
    # 550 spacings, less at each of the two stretches the 9 that no window can end with, and 2(R − 1) at its ends.
    assert len(places) >= 550 - 2 * (9 + 6)


def test_windows_stay_in_their_stretch():
    made = stream(batch_size=1, micro_batch_size=1)
    for step in range(3 * made.windows_per_epoch):
        row = made.batches(step)[0].past[0]
        assert row.diff().max() < 1e-3


def test_batches_are_a_function_of_seed_and_step():
    one, other = stream(), stream()
    other.batches(100)
    for ours, theirs in zip(one.batches(7), other.batches(7), strict=True):
        assert torch.equal(ours.past, theirs.past)
    assert not torch.equal(one.batches(7)[0].past, stream(seed=6).batches(7)[0].past)
    assert not torch.equal(one.batches(7)[0].past, one.batches(8)[0].past)


def test_epochs_differ():
    made = stream(batch_size=1, micro_batch_size=1)
    count = made.windows_per_epoch
    first, second = ([made.batches(e * count + i)[0].past[0, 0].item() for i in range(10)] for e in (0, 1))
    assert first != second


def test_the_fingerprint_follows_what_decides_the_order():
    changes = ({}, {"past": 13}, {"targets": 3}, {"batch_size": 4}, {"seed": 6}, {"data": dataset(401, 150)})
    assert len({stream(**change).fingerprint for change in changes}) == len(changes)
    assert stream().fingerprint == stream(micro_batch_size=3).fingerprint


def test_what_does_not_fit_is_refused():
    with pytest.raises(DataError, match="longest stretch to train on has 400"):
        stream(past=400)
    with pytest.raises(ConfigError, match="cannot have 13 targets"):
        stream(targets=13)
