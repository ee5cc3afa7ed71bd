"""The one device policy: what we run on, in which precision, and how its memory is handled.

Nothing else in the code asks what it runs on.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from ourospec.errors import ResourceError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class DevicePolicy:
    """Where tensors live and how arithmetic is done there.

    `autocast_dtype` is None where float32 is as fast; weights and optimiser state are float32 always.
    """

    device: torch.device
    autocast_dtype: torch.dtype | None
    fused_optimizer: bool

    def autocast(self) -> contextlib.AbstractContextManager:
        """The mixed-precision context of every forward pass."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast_dtype)

    @contextlib.contextmanager
    def inference(self, model: Any) -> Iterator[None]:
        """Eval mode, no gradients, mixed precision; each module goes back to the mode that it was in."""
        training = [module for module in model.modules() if module.training]
        for module in training:
            module.training = False
        try:
            # Not torch.inference_mode: what a model caches meanwhile (rotary tables) must serve training, too.
            with torch.no_grad(), self.autocast():
                yield
        finally:
            for module in training:
                module.training = True

    def synchronize(self) -> None:
        """Wait until the device has done what was asked of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def clear_cache(self) -> None:
        """Give unused device memory back, before something unusually large."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def describe(self) -> dict[str, str]:
        """Names for the environment record."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else platform.processor()
        return {
            "device": str(self.device),
            "processor": name or platform.machine(),
            "precision": str(self.autocast_dtype or torch.float32).removeprefix("torch."),
        }


def available_devices() -> list[str]:
    """The kinds of device present, best first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def choose_device(name: DeviceName = "auto", precision: Precision = "auto") -> DevicePolicy:
    """Pick the device and how to use it.

    Raises:
        ResourceError: the device asked for is not present.
    """
    present = available_devices()
    kind = present[0] if name == "auto" else name
    if kind not in present:
        raise ResourceError(
            f"The device {kind!r} was asked for, but this machine has only: {', '.join(present)}.",
            'Leave the choice to us (--train.device auto; in Python device="auto"), or see what is here: ouro doctor',
        )
    if kind == "cpu":
        keep_freed_memory()
    if kind == "mps":
        # The share of unified memory that MPS may take before it refuses; 1.0 leaves the system its own reserve.
        torch.mps.set_per_process_memory_fraction(1.0)
    dtype = torch.bfloat16 if precision == "bfloat16" else None
    if precision == "auto" and bfloat16_is_faster(kind):
        dtype = torch.bfloat16
    return DevicePolicy(torch.device(kind), dtype, fused_optimizer=kind in ("cpu", "cuda"))


def bfloat16_is_faster(kind: str) -> bool:
    """Whether the device multiplies bfloat16 matrices in hardware."""
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "mps":
        return False
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def matmul_attention_is_faster(queries: torch.Tensor) -> bool:
    """Whether plain matrix products beat this device's fused attention at a few hundred keys.

    In half precision on a CPU they do, but forward alone in bfloat16 where the fused kernel has AMX tiles to use.
    """
    if queries.device.type != "cpu" or queries.dtype not in (torch.bfloat16, torch.float16):
        return False
    if torch.is_grad_enabled() or queries.dtype == torch.float16:
        return True
    return not torch.cpu._is_amx_tile_supported()


def moving_cost(device: torch.device) -> tuple[float, float]:
    """What gathering costs beside matrix products: FLOPs that would take as long as moving an element, and as a call.

    Found on a CPU by benchmarks/compaction.py. An accelerator's arithmetic is cheaper beside its memory, and each call
    costs some 10 µs; its figures are an estimate.
    """
    return (24.0, 0.0) if device.type == "cpu" else (150.0, 2e9)


def keep_freed_memory() -> None:
    """Tell the C allocator to keep freed blocks instead of returning them to the system.

    A training step allocates the same large tensors again and again. By default glibc maps each anew, and the
    kernel zeroes every page again at its first touch; benchmarks/train_throughput.py prints what that costs.
    Affects this process only and does nothing where the C library is not glibc.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 1 << 30)
        mallopt(trim_threshold, (1 << 31) - 1)
