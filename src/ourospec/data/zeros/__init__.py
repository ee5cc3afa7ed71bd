"""Zeros of the Riemann zeta function on the critical line: computed, shown to be complete, kept, checked."""

from ourospec.data.zeros.compute import compute_zeros, proved_zeros
from ourospec.data.zeros.store import open_zeros
from ourospec.data.zeros.table import check_table, read_table, read_zeros, write_table

__all__ = [
    "check_table",
    "compute_zeros",
    "open_zeros",
    "proved_zeros",
    "read_table",
    "read_zeros",
    "write_table",
]
