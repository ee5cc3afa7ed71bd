"""A trained run, opened for a verb."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ourospec.cli.failures import say

if TYPE_CHECKING:
    from ourospec.api import LoadedModel
    from ourospec.contracts import Fitted
    from ourospec.train.weights import Which

Opened = TypeVar("Opened", "LoadedModel", "LoadedModel | Fitted")


def load_run(path: str, which: Which = "newest") -> LoadedModel:
    """The newest whole checkpoint of a language model's run, or its best weights; what was wrong with newer ones is
    said on stderr.

    Raises:
        ConfigError: there is no run at that path, or it does not read text.
        ResourceError: it has no whole checkpoint, or keeps no best weights.
    """
    from ourospec import api

    return _told(api.load(path, which=which))


def open_any(path: str, which: Which = "newest") -> LoadedModel | Fitted:
    """As `load_run`, for a run of any family.

    Raises:
        ConfigError: there is no run at that path.
        ResourceError: it has no whole checkpoint, or keeps no best weights.
    """
    from ourospec import api

    return _told(api.open_fitted(path, which=which))


def _told(opened: Opened) -> Opened:
    for reason in opened.origin.skipped:
        say(f"a damaged checkpoint was passed over: {reason}", "warning")
    return opened
