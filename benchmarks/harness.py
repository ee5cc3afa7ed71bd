"""What every benchmark prints: figures with their spread, the machine, and whether a ratio is held."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """A number measured `runs` times: its median and extremes, and the bounds it is held to, if any."""

    name: str
    median: float
    least: float
    most: float
    runs: int
    at_least: float | None = None
    at_most: float | None = None

    @property
    def holds(self) -> bool:
        """Whether the median is within its bounds."""
        above = self.at_least is None or self.median >= self.at_least
        return above and (self.at_most is None or self.median <= self.at_most)


def spread(
    name: str, values: Sequence[float], *, at_least: float | None = None, at_most: float | None = None
) -> Figure:
    """Summarise repeated measurements."""
    return Figure(name, statistics.median(values), min(values), max(values), len(values), at_least, at_most)


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    import torch

    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        name = next((value.strip() for key, value in lines if key.strip() == "model name"), name)
    capability = torch.backends.cpu.get_cpu_capability()
    amx = ", AMX" if torch.cpu._is_amx_tile_supported() else ""
    bf16 = ", AVX-512 BF16" if torch.cpu._is_avx512_bf16_supported() else ""
    return {
        "cpu": f"{name} ({capability}{bf16}{amx})",
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def finish(benchmark: str, figures: Sequence[Figure], where: dict[str, str | int], *, as_json: bool) -> int:
    """Print everything; the exit code says whether every bound holds."""
    if as_json:
        rows = [asdict(figure) | {"holds": figure.holds} for figure in figures]
        print(json.dumps({"benchmark": benchmark, "machine": where, "figures": rows}))
    else:
        print(f"{benchmark} on " + ", ".join(f"{key} {value}" for key, value in where.items()))
        for f in figures:
            bound = "" if f.at_least is None else f"  held to >= {f.at_least}"
            bound += "" if f.at_most is None else f"  held to <= {f.at_most}"
            verdict = "" if not bound else (": holds" if f.holds else ": MISSED")
            print(
                f"  {f.name:58s} {f.median:10.3f}  ({f.least:.3f} to {f.most:.3f}, {f.runs} runs){bound}{verdict}"
            )
    return 0 if all(figure.holds for figure in figures) else 1
