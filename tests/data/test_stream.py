"""Batches are a pure function of (seed, step), whatever the ranks and micro-batches."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.data.shards import TokenShards
from ourospec.data.stream import TokenStream
from ourospec.errors import ConfigError, DataError

END, VOCABULARY = 0, 50
LENGTHS = np.array([0, *(1 + token % 4 for token in range(1, VOCABULARY))])


def make_shards(lengths, seed=0):
    chance = np.random.default_rng(seed)
    texts = [chance.integers(1, VOCABULARY, n) for n in lengths]
    tokens = np.concatenate([[END], *(np.append(t, END) for t in texts)]).astype("<u2")
    return TokenShards(tokens, np.array([[n, 3 * n] for n in lengths], np.int64), END, "train")


SHARDS = make_shards([5, 40, 1, 300, 7, 90, 64, 2, 33])


def make_stream(shards=SHARDS, **changes):
    sizes = {"window": 16, "batch_size": 8, "micro_batch_size": 3, "seed": 1}
    return TokenStream(shards, LENGTHS, "data", **(sizes | changes))


def rows_of(batches):
    return torch.cat([batch.tokens for batch in batches]), torch.cat([batch.targets for batch in batches])


def test_the_same_step_gives_the_same_batch_in_any_order_of_asking():
    one, two = make_stream(), make_stream()
    forward = [rows_of(one.batches(step)) for step in range(30)]
    for step in reversed(range(30)):
        for mine, other in zip(rows_of(two.batches(step)), forward[step], strict=True):
            assert torch.equal(mine, other)


@settings(max_examples=30, deadline=None)
@given(
    step=st.integers(0, 10**6),
    micro=st.integers(1, 16),
    world=st.sampled_from([1, 2, 4, 8]),
    seed=st.integers(0, 2**31 - 1),
)
def test_ranks_and_micro_batches_do_not_change_the_rows(step, micro, world, seed):
    whole = make_stream(micro_batch_size=8, seed=seed).batches(step)
    shares = [
        batch
        for rank in range(world)
        for batch in make_stream(micro_batch_size=micro, seed=seed, rank=rank, world_size=world).batches(step)
    ]
    for mine, other in zip(rows_of(shares), rows_of(whole), strict=True):
        assert torch.equal(mine, other)
    assert sum(batch.num_bytes for batch in shares) == whole[0].num_bytes
    assert all(len(batch.tokens) <= micro for batch in shares)


def test_an_epoch_reads_every_window_once_and_the_next_has_another_offset_and_order():
    stream = make_stream()
    count = stream.windows_per_epoch
    epochs = [stream.starts(np.arange(epoch * count, (epoch + 1) * count)) for epoch in range(20)]
    for starts in epochs:
        offset = starts.min()
        assert 0 <= offset < 2 * stream.window - 1
        assert sorted(starts) == list(range(offset, offset + count * stream.window, stream.window))
        assert starts.max() + stream.window + 1 <= SHARDS.num_tokens
    assert len({int(starts.min()) for starts in epochs}) > 5
    assert len({tuple(starts - starts.min()) for starts in epochs}) == 20


def test_every_token_but_the_first_is_a_target_sooner_or_later():
    stream = make_stream(batch_size=64)
    starts = stream.starts(np.arange(stream.windows_per_epoch * 200))
    seen = np.unique(starts[:, None] + 1 + np.arange(stream.window))
    assert seen.tolist() == list(range(1, SHARDS.num_tokens))


def test_batches_say_what_a_slow_reading_says():
    stream = make_stream(micro_batch_size=8)
    for step in range(20):
        (batch,) = stream.batches(step)
        starts = stream.starts(step * 8 + np.arange(8))
        num_bytes, inside = 0, True
        for row, start in enumerate(starts.tolist()):
            document = 0
            for place in range(stream.window):
                token, target = SHARDS.tokens[start + place], SHARDS.tokens[start + place + 1]
                if place and token == END:
                    document, inside = document + 1, False
                assert batch.tokens[row, place] == token
                assert batch.targets[row, place] == target
                if batch.documents is not None:
                    assert batch.documents[row, place] == document
                num_bytes += int(LENGTHS[target])
        assert (batch.documents is None) == inside
        assert (batch.num_targets, batch.num_bytes) == (8 * stream.window, num_bytes)
        assert batch.tokens.dtype == batch.targets.dtype == torch.int64


def test_documents_are_none_where_every_row_lies_inside_one():
    (batch,) = make_stream(make_shards([1000]), batch_size=2, micro_batch_size=2).batches(0)
    assert batch.documents is None
    assert batch.to(torch.device("cpu")).documents is None


def test_a_batch_moves_whole():
    batch = next(b for step in range(20) for b in make_stream().batches(step) if b.documents is not None)
    moved = batch.to(torch.device("meta"))
    assert {t.device.type for t in (moved.tokens, moved.targets, moved.documents)} == {"meta"}
    assert (moved.num_targets, moved.num_bytes) == (batch.num_targets, batch.num_bytes)


GOLDEN = [55, 87, 391, 439, 423, 39, 375, 151, 487, 359]


def test_the_order_is_the_same_for_ever():
    # Resume and comparisons between machines rest on it: a change here needs a new name of the order.
    assert make_stream().starts(np.arange(10)).tolist() == GOLDEN


@pytest.mark.parametrize("length", [15, 16, 17, 31, 32, 33])
def test_a_corpus_of_few_windows(length):
    stream = make_stream(make_shards([length]), batch_size=50, micro_batch_size=50)
    starts = stream.starts(np.arange(500))
    assert starts.min() >= 0
    assert starts.max() + stream.window < length + 2
    (batch,) = stream.batches(3)
    assert batch.tokens.shape == (50, 16)


def test_a_corpus_shorter_than_one_window():
    with pytest.raises(
        DataError, match="The train text has 16 tokens, fewer than one window of 16"
    ) as caught:
        make_stream(make_shards([14]))
    assert "--train.window 15" in caught.value.remedy
    assert make_stream(make_shards([15])).batches(0)


@pytest.mark.parametrize(
    "sizes",
    [
        {"window": 0},
        {"batch_size": 0},
        {"micro_batch_size": 0},
        {"world_size": 3},
        {"world_size": 2, "rank": 2},
        {"rank": -1},
    ],
)
def test_sizes_that_do_not_go_together(sizes):
    with pytest.raises(ConfigError) as caught:
        make_stream(**sizes)
    assert "--train." in caught.value.remedy


def test_the_fingerprint_sees_what_decides_the_order_and_nothing_else():
    base = make_stream().fingerprint
    for changes in ({"micro_batch_size": 1}, {"world_size": 2, "rank": 1}):
        assert make_stream(**changes).fingerprint == base
    changed = [make_stream(**c).fingerprint for c in ({"seed": 2}, {"window": 8}, {"batch_size": 4})]
    assert len({base, *changed}) == 4


def test_tokens_per_step():
    assert make_stream(world_size=2).tokens_per_step == 8 * 16


def test_an_epoch_has_its_windows_in_steps():
    stream = make_stream(batch_size=4, world_size=2, rank=1)
    assert stream.steps_per_epoch * 4 == stream.windows_per_epoch > 4
