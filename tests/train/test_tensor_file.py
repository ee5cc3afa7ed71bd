"""Safetensors files as they are written here."""

from __future__ import annotations

from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from ourospec.train.durable import digest_file
from ourospec.train.tensor_file import ELEMENT_TYPES, write_tensors

shapes = st.lists(st.integers(0, 4), max_size=3)


@given(
    st.dictionaries(st.text(max_size=6), st.tuples(st.sampled_from(list(ELEMENT_TYPES)), shapes), max_size=6)
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_the_formats_own_library_reads_what_is_written(tmp_path: Path, wanted: dict) -> None:
    tensors = {
        name: torch.randint(0, 2, shape).to(dtype)
        for name, (dtype, shape) in wanted.items()
        if name != "__metadata__"
    }
    path = tmp_path / "x.safetensors"
    path.unlink(missing_ok=True)
    written = write_tensors(path, tensors)
    assert written == digest_file(path)
    found = load_file(path)
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert found[name].tolist() == tensor.tolist()


def test_views_and_transposes_are_written_as_they_look(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"transpose": base.t(), "slice": base[:, 1:3], "scalar": base[1, 2], "whole": base}
    write_tensors(tmp_path / "x", tensors)
    found = load_file(tmp_path / "x")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
