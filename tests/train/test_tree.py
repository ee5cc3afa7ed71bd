"""Nested state as tensors and JSON, and back."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.train.tree import put_together, take_apart

CPU = torch.device("cpu")

leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.lists(st.integers(-5, 5), max_size=4).map(torch.tensor)
    | st.lists(st.integers(0, 2**32 - 1), max_size=4).map(lambda x: np.array(x, dtype=np.uint32))
)
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text("ab/#1", max_size=3) | st.integers(0, 3), inner, max_size=3)
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and math.copysign(1, a) == math.copysign(1, b) if isinstance(a, float) else a == b


@settings(deadline=None)
@given(trees)
def test_comes_back_equal_through_json(tree: Any) -> None:
    tensors: dict[str, torch.Tensor] = {}
    text = json.dumps(take_apart(tree, "root", tensors))
    assert same(put_together(json.loads(text), tensors, CPU), tree)


def test_nan_and_infinities_come_back() -> None:
    text = json.dumps(take_apart([math.nan, math.inf, -math.inf], "root", {}))
    nan, inf, minus = put_together(json.loads(text), {}, CPU)
    assert math.isnan(nan) and inf == math.inf and minus == -math.inf


@pytest.mark.parametrize("value", [object(), {1, 2}, {(1, 2): 3}, b"bytes"])
def test_what_could_not_come_back_is_refused_by_its_place(value: Any) -> None:
    with pytest.raises(TypeError, match="carry/memory/0"):
        take_apart({"memory": [value]}, "carry", {})
