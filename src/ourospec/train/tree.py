"""Nested state taken apart into named tensors and plain JSON, and put together again. No pickle."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

# A tagged container is a JSON object with exactly one of these keys.
TENSOR, ARRAY, LIST, TUPLE, DICT = "tensor", "array", "list", "tuple", "dict"


def take_apart(value: Any, prefix: str, tensors: dict[str, Tensor]) -> Any:
    """Put the tensors of a nested value into `tensors`, named by their place, and return the rest as JSON.

    A value is None, a bool, number or string, a tensor, a numpy array, or a list, tuple or dict of values.

    Raises:
        TypeError: something else is in it, which a checkpoint could not bring back.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor | np.ndarray):
        is_array = isinstance(value, np.ndarray)
        # Places can read alike: the keys 1 and "1" of one dict, or "a/b" beside "b" inside "a".
        name = prefix if prefix not in tensors else f"{prefix}#{len(tensors)}"
        tensors[name] = torch.from_numpy(value) if is_array else value.detach()
        return {ARRAY if is_array else TENSOR: name}
    if type(value) in (list, tuple):
        parts = [take_apart(part, f"{prefix}/{i}", tensors) for i, part in enumerate(value)]
        return {LIST if type(value) is list else TUPLE: parts}
    if isinstance(value, dict) and all(type(key) in (str, int) for key in value):
        return {DICT: [[key, take_apart(part, f"{prefix}/{key}", tensors)] for key, part in value.items()]}
    raise TypeError(f"{prefix}: a {type(value).__name__} cannot be kept in a checkpoint")


def put_together(value: Any, tensors: dict[str, Tensor], device: torch.device) -> Any:
    """The inverse of `take_apart`, with the tensors on `device`."""
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == TENSOR:
        return tensors[content].to(device)
    if tag == ARRAY:
        return tensors[content].numpy()
    if tag == DICT:
        return {key: put_together(part, tensors, device) for key, part in content}
    parts = [put_together(part, tensors, device) for part in content]
    return parts if tag == LIST else tuple(parts)
