"""environment.json: on what, by what and with which command a run was trained."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from ourospec.runs import RunDirectory
from ourospec.telemetry.files import write_whole

ENVIRONMENT_VERSION = 1
PACKAGES = (
    "ourospec", "torch", "numpy", "safetensors", "pydantic", "tokenizers", "sentencepiece", "datasets",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """Versions, processor, memory (bytes), source and command line.

    Names no user and no machine, but for what the user typed: arguments stand as they were given, the program
    (which Python names by its whole path) without its folder.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "threads": psutil.cpu_count(),
        "usable_threads": _usable_threads(),
        "memory": psutil.virtual_memory().total,
        "packages": _versions(),
        "source": _source(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def write_environment(run: RunDirectory, device: Mapping[str, str] | None = None) -> Path:
    """Add this start to environment.json: {"v": 1, "starts": [{"time": ..., ...}, ...]}, the oldest first.

    A run that is resumed elsewhere so tells of both places. A file that cannot be read is begun anew.

    Args:
        device: what it computes on, as DevicePolicy.describe says.

    Raises:
        ResourceError: the file cannot be written.
    """
    starts: list[Any] = []
    try:
        starts = list(json.loads(run.environment.read_text(encoding="utf-8"))["starts"])
    except (OSError, ValueError, KeyError, TypeError):
        starts = []
    starts.append({"time": round(time.time(), 3), "device": dict(device or {}), **describe_environment()})
    text = json.dumps({"v": ENVIRONMENT_VERSION, "starts": starts}, indent=2, ensure_ascii=False) + "\n"
    write_whole(run.environment, text)
    return run.environment


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    """The name on the processor; Linux keeps it where platform.processor() does not look."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_threads() -> int:
    """Hardware threads that this process may use; containers and schedulers often give fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return psutil.cpu_count() or 1


def _source() -> str | None:
    """The commit that this package is checked out at, "-dirty" behind it when changed; None when installed.

    Asked only where this very file is tracked: an environment folder inside another project's checkout would
    otherwise report that project's commit.
    """
    here = Path(__file__)
    if _git("ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
