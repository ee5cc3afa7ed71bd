"""Writing files so that they are either whole on the disk or not there at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ourospec.errors import ResourceError

# Names of the element types in the safetensors format.
ELEMENT_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
READ_BLOCK = 1 << 20


class Written(NamedTuple):
    """What a file was meant to hold: the digest is taken of the bytes on their way to the disk."""

    bytes: int
    sha256: str


@contextlib.contextmanager
def explained(what: str, path: Path) -> Iterator[None]:
    """Turn what the operating system says of a file into what the user can do about it.

    Raises:
        ResourceError: whenever the inside raises OSError.
    """
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"{what} failed in {path}: {error.strerror or error}.",
            "See that the directory can be written to and that its disk has room (df -h), then try again.",
        ) from error


def write_file(path: Path, blocks: Iterable[bytes | memoryview]) -> Written:
    """Write a new file and wait until it is on the disk.

    Raises:
        OSError: it could not be written; a part of it may be left.
    """
    digest, count = hashlib.sha256(), 0
    with path.open("xb", buffering=0) as file:
        for block in blocks:
            view = memoryview(block).cast("B")
            digest.update(view)
            count += len(view)
            while view:
                view = view[file.write(view) :]
        os.fsync(file.fileno())
    return Written(count, digest.hexdigest())


def replace_file(path: Path, text: str) -> None:
    """Put a text file in place of the one that is there, if any, in one indivisible step."""
    fresh = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    fresh.unlink(missing_ok=True)
    try:
        write_file(fresh, [text.encode()])
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    sync_directory(path.parent)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> Written:
    """Write a safetensors file, one tensor in host memory at a time, and wait until it is on the disk.

    The format's own library writes it too, but first builds the whole file in memory or hides what went
    wrong with the disk. https://github.com/huggingface/safetensors#format

    Raises:
        OSError: it could not be written.
    """
    # Largest elements first keeps every tensor aligned to its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, dict[str, object]] = {}
    end = 0
    for name in names:
        tensor, start = tensors[name], end
        end += tensor.numel() * tensor.element_size()
        header[name] = {
            "dtype": ELEMENT_TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    prefix = struct.pack("<Q", len(text)) + text
    return write_file(path, _chain(prefix, (tensors[name] for name in names)))


def _chain(prefix: bytes, tensors: Iterable[Tensor]) -> Iterable[bytes | memoryview]:
    yield prefix
    for tensor in tensors:
        if tensor.numel():
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            yield flat.view(torch.uint8).numpy().data


def digest_file(path: Path) -> Written:
    """Size and SHA-256 of a file as it is on the disk now.

    Raises:
        OSError: it cannot be read.
    """
    digest, count = hashlib.sha256(), 0
    with path.open("rb", buffering=0) as file:
        if hasattr(os, "posix_fadvise"):
            # Ask for what the disk holds, not for what the page cache remembers of writing it.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(READ_BLOCK):
            digest.update(block)
            count += len(block)
    return Written(count, digest.hexdigest())


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Wait until what other hands have written to a file is on the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())
