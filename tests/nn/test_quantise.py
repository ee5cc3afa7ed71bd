"""The quantiser: bounds, signs and what cannot be kept in 8 bits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.errors import ConfigError
from ourospec.nn.quantise import GREATEST_CODE, QuantisedRows, dequantise_rows, quantise_rows


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9), st.integers(1, 33), st.integers(0, 1_000), st.sampled_from([1e-20, 1e-3, 1.0, 1e20])
)
def test_no_weight_is_off_by_more_than_half_a_scale(rows, columns, seed, size):
    weight = size * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    kept = quantise_rows(weight)
    off = (dequantise_rows(kept) - weight).abs()
    # Rounding in float32 may miss the middle between two codes by a few units in the last place.
    assert (off <= kept.scales[:, None] * 0.50001).all()
    assert (kept.codes.abs().amax(-1) == GREATEST_CODE).all(), "the whole range is used"
    mirrored = quantise_rows(-weight)
    assert torch.equal(mirrored.codes, -kept.codes) and torch.equal(mirrored.scales, kept.scales)


def test_quantising_again_changes_nothing():
    once = quantise_rows(torch.randn(5, 16, generator=torch.Generator().manual_seed(0)))
    twice = quantise_rows(dequantise_rows(once))
    assert torch.equal(twice.codes, once.codes)
    torch.testing.assert_close(twice.scales, once.scales)


def test_rows_of_zeros_stay_zeros():
    kept = quantise_rows(torch.zeros(2, 3))
    assert not kept.codes.any() and not dequantise_rows(kept).any()


def test_each_row_has_a_scale_of_its_own():
    kept = quantise_rows(torch.tensor([[127.0, -1.0], [0.5, 0.25]]))
    assert isinstance(kept, QuantisedRows)
    assert kept.codes.tolist() == [[127, -1], [127, 64]]
    torch.testing.assert_close(kept.scales, torch.tensor([1.0, 0.5 / 127]))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(ConfigError, match="not finite"):
        quantise_rows(torch.tensor([[1.0, bad]]))
