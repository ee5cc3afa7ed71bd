"""The package's front door: what `import ourospec` offers, and in whatever order it is used."""

import subprocess
import sys

import pytest

import ourospec


@pytest.mark.parametrize("name", ourospec.__all__)
def test_everything_that_is_offered_is_there(name):
    assert getattr(ourospec, name) is not None
    assert name in dir(ourospec)


def test_what_is_not_offered_is_not_there():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ourospec.nothing


@pytest.mark.parametrize(
    "first", ["pass", "import ourospec.train.config", "ourospec.train", "ourospec.presets()"]
)
def test_train_can_be_called_whatever_was_imported_before(first):
    """A verb and a package share the name; a preset that does not exist tells that the verb was reached."""
    code = (
        f"import ourospec\n{first}\n"
        "try: ourospec.train('no/preset', 'nowhere')\n"
        "except ourospec.ConfigError: raise SystemExit(7)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 7
