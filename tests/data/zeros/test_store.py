"""Pages of zeros in the cache: computed once, verified when opened, whole or not there."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from ourospec.data.zeros import compute_zeros, open_zeros, store
from ourospec.errors import DataError, ResourceError


@pytest.fixture
def pages_of_500(monkeypatch):
    monkeypatch.setattr(store, "PAGE", 500)


def pages(folder):
    return sorted(path.name for path in (folder / "zeros").iterdir())


def test_a_range_over_several_pages(tmp_path, pages_of_500, monkeypatch):
    told = []
    found = open_zeros(700, 401, tell=told.append, cache=str(tmp_path))
    np.testing.assert_allclose(found, compute_zeros(700, 401), rtol=0, atol=2e-12)
    assert len(pages(tmp_path)) == 3
    assert any("33%" in line for line in told)

    def fail(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(store, "proved_zeros", fail)
    assert (open_zeros(700, 401, cache=str(tmp_path)) == found).all()
    assert (open_zeros(3, 1097, cache=str(tmp_path)) == found[-4:-1]).all()


def test_a_page_that_has_changed(tmp_path, pages_of_500):
    open_zeros(3, cache=str(tmp_path))
    path = next((tmp_path / "zeros").glob("*/*.npy"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="not as it was written") as caught:
        open_zeros(3, cache=str(tmp_path))
    assert "rm -r" in caught.value.remedy


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="Zeros cannot be kept") as caught:
        open_zeros(3, cache=str(tmp_path / "file"))
    assert "XDG_CACHE_HOME" in caught.value.remedy


ENDLESS = """
import sys
from ourospec.data.zeros import open_zeros, store
store.PAGE = 2000
open_zeros(10_000_000, tell=lambda what: print(what, flush=True), cache=sys.argv[1])
"""


def test_a_kill_loses_a_page_at_most(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    while time.time() < deadline and len(list((tmp_path).glob("zeros/v*"))) < 3:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    whole = [path for path in (tmp_path / "zeros").iterdir() if path.name.startswith("v")]
    assert len(whole) >= 3
    store_page, store.PAGE = store.PAGE, 2000
    try:
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "zeros").glob("v*/*.npy")}
        found = open_zeros(2000 * len(whole), cache=str(tmp_path))
    finally:
        store.PAGE = store_page
    assert {path: path.stat().st_mtime_ns for path in before} == before
    np.testing.assert_allclose(found[-5:], compute_zeros(5, len(found) - 4), rtol=0, atol=2e-11)
