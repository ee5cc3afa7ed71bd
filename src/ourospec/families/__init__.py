"""The model families. Importing this package makes their recipes readable and their presets known."""

from ourospec.families.adaptive_lm.presets import PRESETS as ADAPTIVE
from ourospec.families.adaptive_lm.student import distilled
from ourospec.families.dense_lm.presets import PRESETS as DENSE
from ourospec.families.recursive_lm.presets import COLLECTIONS as RECURSIVE_COLLECTIONS
from ourospec.families.recursive_lm.presets import PRESETS as RECURSIVE
from ourospec.families.spacing_mdn.presets import PRESETS as SPACING

PRESETS = {**ADAPTIVE, **DENSE, **RECURSIVE, **SPACING}
COLLECTIONS = {**RECURSIVE_COLLECTIONS}
"""Names that stand for several presets, which are trained one after another."""

__all__ = ["COLLECTIONS", "PRESETS", "distilled"]
