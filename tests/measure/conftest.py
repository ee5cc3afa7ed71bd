"""What the tests of this room share."""

from __future__ import annotations

import numpy as np
import pytest

from ourospec.device import DevicePolicy, choose_device

from .toy import END, Bigram, Doc, doc


@pytest.fixture
def bigram() -> Bigram:
    return Bigram()


@pytest.fixture
def policy() -> DevicePolicy:
    return choose_device("cpu", "float32")


@pytest.fixture
def corpus() -> list[Doc]:
    """Documents of 0 to 29 tokens."""
    generator = np.random.default_rng(3)
    lengths = [5, 0, 29, 1, 12, 7, 20, 3]
    return [doc(*generator.integers(0, END, length).tolist()) for length in lengths]
