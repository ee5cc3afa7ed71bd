"""`ouro doctor`: what this machine has, what is fast on it, what is missing, and whether devices agree."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from ourospec.cli.options import parse_options
from ourospec.cli.output import print_json, print_section
from ourospec.errors import ResourceError
from ourospec.telemetry.quantities import duration, size

EXTRAS = {
    "sentencepiece": "tokenizers in SentencePiece's .model format",
    "datasets": "corpora in parquet, Arrow and saved datasets (JSON lines do without)",
    "transformers": "the comparison of benchmarks/train_throughput.py",
    "tensorboard": "ouro train --tensorboard",
    "wandb": "ouro train --wandb",
}
"""Optional package, which is also the name of our extra -> what it is for."""


@dataclass(frozen=True)
class DoctorOptions:
    """What this machine has, what is fast on it, what is missing, and whether its devices agree."""

    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.")] = False


def main(arguments: list[str]) -> None:
    """Examine, and print.

    Raises:
        ResourceError: a device computes something else than the CPU.
    """
    options = parse_options(DoctorOptions, arguments, "doctor")
    start = time.perf_counter()
    import torch  # noqa: F401  (timed: the second-long part of every verb's start)

    findings = {"torch_import_seconds": round(time.perf_counter() - start, 2), **examine()}
    if options.json:
        print_json(findings)
    else:
        show(findings)
    bad = [name for name, parity in findings["parity"].items() if not parity["agrees"]]
    if bad:
        raise ResourceError(
            f"On {', '.join(bad)} a few training steps end elsewhere than on the CPU in float32.",
            "Train with --train.device cpu --train.precision float32, or update torch and the driver and "
            "look again: ouro doctor",
        )


def examine() -> dict[str, Any]:
    """Everything that `ouro doctor` says, as JSON-ready data."""
    from ourospec.device import available_devices
    from ourospec.telemetry.environment import describe_environment

    devices = available_devices()
    return {
        **describe_environment(),
        **machine(),
        "devices": {kind: device(kind) for kind in devices},
        "speed": {kind: matmul_speed(kind) for kind in devices},
        "extras": {name: importlib.util.find_spec(name) is not None for name in EXTRAS},
        "parity": parity(devices),
    }


def machine() -> dict[str, Any]:
    """Processor, memory and disk. Bytes."""
    import psutil
    import torch

    return {
        "torch_threads": torch.get_num_threads(),
        "instruction_sets": instruction_sets(),
        "attention": compiled_attention(),
        "memory_available": psutil.virtual_memory().available,
        "disk_free": shutil.disk_usage(Path.cwd()).free,
    }


def instruction_sets() -> list[str]:
    """What the processor offers to matrix products, as torch sees it."""
    import torch

    probes = {
        "AVX-512 BF16": "_is_avx512_bf16_supported",
        "AMX": "_is_amx_tile_supported",
        "AVX-512 VNNI": "_is_avx512_vnni_supported",
    }
    # Private names of torch may move between versions: a missing one is an unknown, not a failure.
    found = [name for name, probe in probes.items() if getattr(torch.cpu, probe, bool)()]
    return [torch.backends.cpu.get_cpu_capability(), *found]


def compiled_attention() -> list[str]:
    """Types for which attention is compiled here; it is compiled now if it was not yet."""
    from ourospec.nn.ragged import WIDTHS, kernel

    return [str(dtype).removeprefix("torch.") for dtype in WIDTHS if kernel(dtype) is not None]


def device(kind: str) -> dict[str, Any]:
    """Name, memory in bytes, and how the device policy uses it."""
    import torch

    from ourospec.device import choose_device

    policy = choose_device(kind)  # pyright: ignore[reportArgumentType]
    facts: dict[str, Any] = {
        "precision": policy.describe()["precision"],
        "fused_optimizer": policy.fused_optimizer,
    }
    if kind == "cuda":
        facts["name"] = torch.cuda.get_device_name()
        facts["memory"] = torch.cuda.get_device_properties(0).total_memory
    return facts


def matmul_speed(kind: str, side: int = 1024, budget: float = 0.3) -> dict[str, float]:
    """GFLOP/s of a square matrix product, by precision, over about `budget` seconds each."""
    import torch

    from ourospec.device import choose_device

    policy = choose_device(kind)  # pyright: ignore[reportArgumentType]
    speeds = {}
    for dtype in (torch.float32, torch.bfloat16):
        a = torch.full((side, side), 0.5, dtype=dtype, device=policy.device)
        torch.mm(a, a)
        policy.synchronize()
        products, start = 0, time.perf_counter()
        while time.perf_counter() - start < budget:
            torch.mm(a, a)
            policy.synchronize()
            products += 1
        seconds = time.perf_counter() - start
        speeds[str(dtype).removeprefix("torch.")] = round(products * 2 * side**3 / seconds / 1e9, 1)
    return speeds


def parity(devices: list[str]) -> dict[str, dict[str, Any]]:
    """For each device, as training would use it: whether a few steps end where the CPU's float32 does."""
    from ourospec.measure.parity import compare_with_cpu

    return {kind: compare_with_cpu(kind) for kind in devices}  # pyright: ignore[reportArgumentType]


def show(findings: dict[str, Any]) -> None:
    """Print for a person."""
    packages = findings["packages"]
    print_section(
        "Here",
        [
            ("ourospec", packages["ourospec"]),
            ("Python", f"{findings['python']} ({sys.executable})"),
            ("torch", f"{packages['torch']}, imported in {duration(findings['torch_import_seconds'])}"),
            ("system", findings["platform"]),
            ("processor", f"{findings['processor']}, {findings['cores']} cores"),
            ("threads", f"{findings['torch_threads']} used of {findings['usable_threads']}"),
            ("instructions", ", ".join(findings["instruction_sets"])),
            ("attention", describe_attention(findings["attention"])),
            ("memory", f"{size(findings['memory'])}, {size(findings['memory_available'])} free"),
            ("disk here", f"{size(findings['disk_free'])} free"),
        ],
    )
    print_section("Fast here", [(kind, describe_speed(kind, findings)) for kind in findings["devices"]])
    missing = [name for name, there in findings["extras"].items() if not there]
    rows = [(name, f"{EXTRAS[name]}\npip install 'ourospec[{name}]'") for name in missing]
    print_section("Missing", rows or [("nothing", "all optional packages are installed")])
    agreement = [(kind, describe_parity(result)) for kind, result in findings["parity"].items()]
    print_section("Agreement with the CPU in float32", agreement)


def describe_attention(types: list[str]) -> str:
    """Which kernel computes it, and what a faster one would take."""
    if types:
        return f"compiled for {' and '.join(types)}"
    return "torch's; a faster one takes Linux, a C compiler (cc, gcc or clang) and AVX-512"


def describe_speed(kind: str, findings: dict[str, Any]) -> str:
    """One device's line: measured speeds, and what training will use."""
    speed, facts = findings["speed"][kind], findings["devices"][kind]
    measured = ", ".join(f"{dtype} {figure:,.0f} GFLOP/s" for dtype, figure in speed.items())
    name = f"{facts['name']}, {size(facts['memory'])}\n" if "name" in facts else ""
    fused = "fused" if facts["fused_optimizer"] else "plain"
    return f"{name}matrix products: {measured}\ntraining uses {facts['precision']} and a {fused} optimiser"


def describe_parity(result: dict[str, Any]) -> str:
    """One device's line."""
    return f"{'agrees' if result['agrees'] else 'DISAGREES'}: {result['explanation']}"
