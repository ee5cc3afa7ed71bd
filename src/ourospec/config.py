"""The base of every configuration: frozen, strict, and closed to unknown keys."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen record. An unknown key, a wrong type or a value out of bounds is an error, never a guess.

    A config class sits beside its owner, has at most 15 fields and two booleans, and gives every field a
    description with its unit. A choice between behaviours is a type; a quantity is a field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)
