"""Depths dealt out without regard to tokens: the same sums, other tokens."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.claims.plans import evenly, shuffling

passes = st.integers(1, 30).flatmap(
    lambda length: st.lists(
        st.lists(st.integers(1, 4), min_size=length, max_size=length), min_size=1, max_size=4
    )
)


@settings(deadline=None, max_examples=60)
@given(passes, st.integers(0, 100))
def test_each_layer_keeps_its_sum_and_every_token_a_pass(rows, seed):
    chosen = torch.tensor(rows)
    for deal in (evenly, shuffling(seed)):
        plan = deal(chosen)
        assert plan.shape == chosen.shape
        assert torch.equal(plan.sum(1), chosen.sum(1))
        assert plan.min() >= 1 and plan.max() <= chosen.max()


@settings(deadline=None, max_examples=30)
@given(passes)
def test_dealt_evenly_no_layer_has_tokens_two_passes_apart(rows):
    plan = evenly(torch.tensor(rows))
    assert int((plan.max(1).values - plan.min(1).values).max()) <= 1


def test_shuffling_keeps_a_tokens_layers_together_and_moves_them():
    chosen = torch.stack([torch.arange(40), torch.arange(40) + 100])
    plan = shuffling(0)(chosen)
    assert torch.equal(plan[1] - plan[0], torch.full((40,), 100))
    assert not torch.equal(plan, chosen)
    assert torch.equal(plan, shuffling(0)(chosen)), "the same seed deals the same"
