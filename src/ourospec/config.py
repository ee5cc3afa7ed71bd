"""The base of every configuration: frozen, strict, and closed to unknown keys."""

import contextlib
import glob
from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen record. An unknown key, a wrong type or a value out of bounds is an error, never a guess.

    A config class sits beside its owner, has at most 15 fields and two booleans, and gives every field a
    description with its unit. A choice between behaviours is a type; a quantity is a field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


def absolute(path: str) -> str:
    """A path as it reads from any folder, `~` spelled out; an empty one stays empty. For AfterValidator."""
    return str(_from_home(path).absolute()) if path else path


def absolute_glob(path: str) -> str:
    """As `absolute`, for what may be a glob: it stays one, and the folder put before it is taken as it stands."""
    place = _from_home(path)
    if place.is_absolute() or place.exists() or not glob.has_magic(path):
        return absolute(path)
    return str(Path(glob.escape(str(Path.cwd())), place))


def _from_home(path: str) -> Path:
    place = Path(path)
    # Of a user whom nobody knows here there is no home; whoever opens the path says that it is not there.
    with contextlib.suppress(RuntimeError):
        place = place.expanduser()
    return place
