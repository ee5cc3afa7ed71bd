"""From a table to heights: what is read is what is computed, or it is refused."""

import numpy as np
import pytest

from ourospec.data.spacings import TableSource
from ourospec.data.spacings.sources import read_source
from ourospec.data.zeros import open_zeros
from ourospec.errors import DataError


def test_a_table_is_checked_unless_it_is_said_to_be_of_something_else(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    heights, path = open_zeros(300), tmp_path / "zeros.txt"
    np.savetxt(path, heights, fmt="%.9f")
    np.testing.assert_allclose(read_source(TableSource(path=str(path)), print), heights, atol=1e-9, rtol=0)
    np.savetxt(path, np.delete(heights, 100), fmt="%.9f")
    with pytest.raises(DataError, match=r"number 101 .* is missing"):
        read_source(TableSource(path=str(path)), print)
    assert len(read_source(TableSource(path=str(path), check=False), print)) == 299
    np.savetxt(path, -heights, fmt="%.9f")
    with pytest.raises(DataError, match="not positive"):
        read_source(TableSource(path=str(path), check=False), print)
