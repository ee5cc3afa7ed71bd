"""Train, measure and serve small sequence models that decide how long to think.

    import ourospec
    ourospec.presets()                                   # what there is
    ourospec.train("adaptive_lm/smoke", "runs/first")    # a run directory
    model = ourospec.load("runs/first")
    model.generate("def ", max_new_tokens=40).text
    model.score("import os")                             # nats, bits per byte, passes
    model.trace([1, 2, 3]).passes                        # [layers, T]

Importing this package does not import torch; the first call does.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ourospec.api import LoadedModel, Score, Trace, load, presets, train
    from ourospec.errors import ConfigError, DataError, DivergedError, Interrupted, OuroError, ResourceError

__version__ = "0.1.0"

_ERRORS = ("ConfigError", "DataError", "DivergedError", "Interrupted", "OuroError", "ResourceError")
__all__ = [
    "ConfigError",
    "DataError",
    "DivergedError",
    "Interrupted",
    "LoadedModel",
    "OuroError",
    "ResourceError",
    "Score",
    "Trace",
    "__version__",
    "load",
    "presets",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'ourospec' has no attribute {name!r}")
    return getattr(import_module("ourospec.errors" if name in _ERRORS else "ourospec.api"), name)


def __dir__() -> list[str]:
    return __all__
