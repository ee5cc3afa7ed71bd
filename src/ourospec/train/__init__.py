"""Training: one step, one loop, checkpoints that survive a crash.

This package and the public verb share the name `ourospec.train`, and importing any module in here puts the
package where the verb was. So the package answers to a call as the verb does, whichever of them Python finds.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    """The package as a function, see ourospec.api.train."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return import_module("ourospec.api").train(*arguments, **options)


sys.modules[__name__].__class__ = _Verb
