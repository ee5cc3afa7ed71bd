"""Shapes are checked, not narrated: nn's jaxtyping annotations hold while any test runs."""

from jaxtyping import install_import_hook

install_import_hook(["ourospec.nn", "ourospec.families"], "beartype.beartype")
