"""The kernel's machine code: compiled by the system's C compiler at its first use, in about a second, and kept.

Where there is no compiler, or the processor lacks the instructions, there is no kernel and attention runs on torch's.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

WIDTHS = {torch.float32: 16, torch.bfloat16: 32}
"""Types that the kernel knows, and what a head's width has to be a multiple of."""
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c11",
    "-D_GNU_SOURCE",
    "-fno-math-errno",
    "-fopenmp",
    "-shared",
    "-fPIC",
)
HERE = Path(__file__).parent
SOURCES = ("attention.c", "words.h")
# Beside the code, as Python's own; where that may not be written, in the user's cache.
KEPT = (HERE / "__pycache__", Path("~/.cache/ourospec"))
PATIENCE = 120
"""Seconds that a compiler may take."""


class Problem(ctypes.Structure):
    """attention.c's Problem."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("rows", "heads", "groups", "keys", "width", "count")),
        *((name, ctypes.c_void_p) for name in ("starts", "first", "end", "q", "k", "v")),
        *((name, ctypes.c_int64) for name in ("row_stride", "group_stride", "key_stride")),
        ("scale", ctypes.c_float),
        ("out", ctypes.c_void_p),
        ("lse", ctypes.c_void_p),
    )


class Gradients(ctypes.Structure):
    """attention.c's Gradients."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("grad", "q", "k", "v")),
        *((name, ctypes.c_int64) for name in ("row_stride", "group_stride", "key_stride")),
        ("add", ctypes.c_int),
    )


def can_build(dtype: torch.dtype) -> bool:
    """Whether this machine has what the kernel takes, without compiling it."""
    if dtype not in WIDTHS or sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX512"):
        return False
    half = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return (dtype == torch.float32 or half) and compiler() is not None


def compiler() -> str | None:
    """The path of a C compiler."""
    return next((path for path in map(shutil.which, ("cc", "gcc", "clang")) if path), None)


@functools.cache
def kernel(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The library for this type, with `forward` and `backward`; None where it cannot be had."""
    if not can_build(dtype):
        return None
    flags = (*FLAGS, f"-DBF16={int(dtype == torch.bfloat16)}")
    for folder in KEPT:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            library = ctypes.CDLL(str(compiled(flags, folder.expanduser())))
            return None if library.ready() else library
    return None


def compiled(flags: tuple[str, ...], folder: Path) -> Path:
    """The library's file in that folder, made if it is not there.

    Raises:
        OSError: the folder cannot be written.
        subprocess.SubprocessError: the compiler refuses the code, or takes too long.
    """
    sources = [HERE / name for name in SOURCES]
    # -march=native: what is compiled on one machine need not run on another that sees the same folder.
    made_of = [*flags, processor(), *(source.read_text() for source in sources)]
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    library = folder / f"ragged-{digest}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Several processes may be at it; each writes its own, and the last one stays.
        handle, name = tempfile.mkstemp(suffix=".so", dir=folder)
        os.close(handle)
        try:
            command = [compiler() or "cc", *flags, str(sources[0]), "-o", name, "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE)
            Path(name).replace(library)
        finally:
            Path(name).unlink(missing_ok=True)
    return library


def processor() -> str:
    """The processor's model and instruction sets, as Linux lists them."""
    text = Path("/proc/cpuinfo").read_text()
    lines = (line for line in text.splitlines() if line.startswith(("model name", "flags")))
    return "\n".join(sorted(set(lines)))
