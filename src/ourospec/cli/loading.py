"""A trained run, opened for a verb."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ourospec.cli.failures import say

if TYPE_CHECKING:
    from ourospec.api import LoadedModel


def load_run(path: str) -> LoadedModel:
    """The newest whole checkpoint of a run; what was wrong with newer ones is said on stderr.

    Raises:
        ConfigError: there is no run at that path.
        ResourceError: it has no whole checkpoint.
    """
    from ourospec import api

    loaded = api.load(path)
    for reason in loaded.origin.skipped:
        say(f"a damaged checkpoint was passed over: {reason}", "warning")
    return loaded
