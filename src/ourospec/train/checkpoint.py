"""Checkpoints that a crash, a full disk or a flipped bit cannot turn into a wrong continuation.

A checkpoint is a folder that appears under its name only when all of it is on the disk: written beside its
place, each file and the folder synced, then renamed, then the parent synced. Older ones go only after the new
one was read back from the disk and compared with the digests of what was meant to be written.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from ourospec.errors import ConfigError, DataError, ResourceError
from ourospec.runs import RunDirectory
from ourospec.storage import sync_directory
from ourospec.train.durable import Written, explained, write_file
from ourospec.train.manifest import (
    MANIFEST,
    Damaged,
    FileEntry,
    Identity,
    Manifest,
    best_name,
    check_files,
    checkpoint_name,
    read_manifest,
)
from ourospec.train.tensor_file import write_tensors

WEIGHTS, AVERAGE, STATE, RECORD = (
    "weights.safetensors",
    "average.safetensors",
    "state.safetensors",
    "state.json",
)
FOR_USE = ("tokens", "seconds", "aliases", "objective", "best")
UNFINISHED, DROPPED, DAMAGED = ".unfinished-", ".dropped-", "damaged-"
# Room for file headers, the JSON files and the file system's own bookkeeping.
SLACK_BYTES = 1 << 20


@dataclass(frozen=True)
class Snapshot:
    """Everything a run needs to go on, as tensors and plain JSON."""

    step: int
    weights: dict[str, Tensor]
    """Parameters and buffers by name, each once."""
    average: dict[str, Tensor]
    """Averaged parameters by name; empty where no average is kept."""
    state: dict[str, Tensor]
    """Tensors of the optimiser, the generators and the carry."""
    record: dict[str, Any]
    """All the rest."""

    def for_use(self) -> Snapshot:
        """Without what only training needs."""
        record = {name: self.record[name] for name in FOR_USE if name in self.record}
        return replace(self, state={}, record=record)


class Found(NamedTuple):
    """A checkpoint that is whole and this run's own."""

    path: Path
    manifest: Manifest
    skipped: tuple[str, ...]
    """What was wrong with the newer ones, if there were any."""


class Saved(NamedTuple):
    """A checkpoint written and verified."""

    path: Path
    bytes: int
    seconds: float


def list_checkpoints(run: RunDirectory) -> list[Path]:
    """The checkpoint folders of a run, oldest first, whole or not."""
    return _by_step(run, "step-")


def list_bests(run: RunDirectory) -> list[Path]:
    """The folders of weights that were the best when they were written, oldest and therefore worst first, whole or not.

    More than one is there while a checkpoint that may be gone back to tells of an older one.
    """
    return _by_step(run, "best-")


def _by_step(run: RunDirectory, prefix: str) -> list[Path]:
    if not run.checkpoints.is_dir():
        return []
    named = [path for path in run.checkpoints.iterdir() if re.fullmatch(rf"{prefix}\d{{8,}}", path.name)]
    return sorted(named, key=_step_of)


def _step_of(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


class CheckpointStore:
    """The checkpoints of one run, for the one process that holds the run's lock."""

    def __init__(self, run: RunDirectory, identity: Identity, keep: int) -> None:
        self.run = run
        self.identity = identity
        self.keep = keep

    def sweep(self) -> None:
        """Remove what a killed process left half written or half deleted."""
        with explained("Removing the leftovers of a crash", self.run.checkpoints):
            self.run.checkpoints.mkdir(parents=True, exist_ok=True)
            for pattern in (f"{UNFINISHED}*", f"{DROPPED}*"):
                for leftover in self.run.checkpoints.glob(pattern):
                    shutil.rmtree(leftover)

    def newest(self) -> Found | None:
        """The newest whole checkpoint; None where none was ever written.

        Damaged ones newer than it are set aside under another name, until the next good one is written.

        Raises:
            ResourceError: there are checkpoints, and all are damaged.
            ConfigError, DataError: the newest whole one belongs to another recipe or to other data.
        """
        damaged: list[tuple[Path, str]] = []
        for folder in reversed(list_checkpoints(self.run)):
            try:
                manifest = read_manifest(folder)
                check_files(folder, manifest)
            except Damaged as reason:
                damaged.append((folder, f"{folder.name}: {reason}"))
                continue
            self._refuse_foreign(folder, manifest)
            for bad, _ in damaged:
                self._set_aside(bad)
            return Found(folder, manifest, tuple(why for _, why in damaged))
        if damaged:
            raise all_damaged(self.run, [why for _, why in damaged])
        return None

    def load(self, found: Found) -> Snapshot:
        """Read a checkpoint onto the CPU, whatever device it is of.

        Raises:
            ResourceError: it cannot be read after all.
        """
        folder = found.path
        with explained("Reading the checkpoint", folder):
            return Snapshot(
                step=found.manifest.step,
                weights=load_file(folder / WEIGHTS),
                average=load_file(folder / AVERAGE) if AVERAGE in found.manifest.files else {},
                state=load_file(folder / STATE),
                record=json.loads((folder / RECORD).read_text()),
            )

    def save(self, snapshot: Snapshot) -> Saved:
        """Write a checkpoint, read it back, then drop the ones too many.

        Raises:
            ResourceError: the disk is full, read-only or does not give back what it was given. The older
                checkpoints are as they were.
        """
        saved = self._put(snapshot, checkpoint_name(snapshot.step))
        self._prune()
        return saved

    def save_best(self, snapshot: Snapshot) -> None:
        """Keep weights because they are the best so far, as safely as a checkpoint.

        The best one before stays as long as a checkpoint tells of it. Weights that are there already, and whole, are
        not written again: a resumed run evaluates its step again.

        Raises:
            ResourceError: as for `save`.
        """
        folder = self.run.checkpoints / best_name(snapshot.step)
        try:
            check_files(folder, read_manifest(folder))
        except Damaged:
            if folder.exists():
                self._drop(folder)
            self._put(snapshot.for_use(), folder.name)
        self._prune_bests()

    def forget_bests(self, after: int) -> None:
        """Drop best weights of later steps than a resumed run knows of: it will come to them again."""
        with explained("Dropping weights that are yet to come", self.run.checkpoints):
            for folder in list_bests(self.run):
                if _step_of(folder) > after:
                    self._drop(folder)

    def _put(self, snapshot: Snapshot, name: str) -> Saved:
        """Write a folder of that name and read it back."""
        began = time.perf_counter()
        folder = self.run.checkpoints / name
        need = _size(snapshot)
        self._require_room(need)
        fresh = folder.with_name(UNFINISHED + folder.name)
        try:
            manifest = _write(fresh, snapshot, self.identity)
            fresh.rename(folder)
            sync_directory(folder.parent)
        except OSError as error:
            raise ResourceError(
                f"The checkpoint of step {snapshot.step} ({need:,} bytes) could not be written to "
                f"{folder.parent}: {error.strerror or error}. The checkpoints before it are as they were.",
                f"Free {need:,} bytes on that disk (df -h), then give the same command again.",
            ) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        self._verify(folder, manifest)
        return Saved(folder, manifest.total_bytes, time.perf_counter() - began)

    def _require_room(self, need: int) -> None:
        """Say that the disk is too full before half of it is written."""
        free = shutil.disk_usage(self.run.checkpoints).free
        if free < need + SLACK_BYTES:
            raise ResourceError(
                f"A checkpoint needs {need + SLACK_BYTES:,} bytes, but {self.run.checkpoints} has {free:,} left. "
                "The checkpoints before it are as they were.",
                "Free that much on the disk (df -h), then give the same command again.",
            )

    def _verify(self, folder: Path, manifest: Manifest) -> None:
        try:
            if read_manifest(folder) != manifest:
                raise Damaged(f"{MANIFEST} is not what was written")
            check_files(folder, manifest)
        except Damaged as reason:
            self._drop(folder)
            raise ResourceError(
                f"The checkpoint just written to {folder} does not read back as it was written: {reason}. "
                "The checkpoints before it are as they were.",
                "The disk may be failing. Copy the run directory to another one and go on there.",
            ) from reason

    def _prune(self) -> None:
        with explained("Dropping older checkpoints", self.run.checkpoints):
            for folder in list_checkpoints(self.run)[: -self.keep]:
                self._drop(folder)
            for folder in self.run.checkpoints.glob(f"{DAMAGED}*"):
                self._drop(folder)
        self._prune_bests()

    def _prune_bests(self) -> None:
        """Drop all best weights but the newest and those that a checkpoint tells of."""
        older = list_bests(self.run)[:-1]
        if not older:
            return
        told = {_told_best(folder) for folder in list_checkpoints(self.run)}
        with explained("Dropping older best weights", self.run.checkpoints):
            for folder in older:
                if _step_of(folder) not in told:
                    self._drop(folder)

    def _drop(self, folder: Path) -> None:
        """Delete under another name, so that a crash half-way leaves nothing that looks like a checkpoint."""
        doomed = folder.with_name(DROPPED + folder.name)
        folder.rename(doomed)
        shutil.rmtree(doomed)

    def _set_aside(self, folder: Path) -> None:
        with explained("Setting a damaged checkpoint aside", self.run.checkpoints):
            aside = folder.with_name(DAMAGED + folder.name)
            if aside.exists():
                self._drop(aside)
            folder.rename(aside)

    def _refuse_foreign(self, folder: Path, manifest: Manifest) -> None:
        if manifest.recipe != self.identity.recipe:
            raise ConfigError(
                f"{folder} was written under another recipe than this run's.",
                "Start this recipe in a directory of its own with --run DIR.",
            )
        if manifest.data != self.identity.data:
            raise DataError(
                f"{folder} was trained on other data than the recipe finds now "
                f"(fingerprint {manifest.data[:12]}, now {self.identity.data[:12]}).",
                "Bring the data back as it was, or start anew in another directory with --run DIR.",
            )


def all_damaged(run: RunDirectory, reasons: list[str]) -> ResourceError:
    """The refusal to take damaged checkpoints for none."""
    return ResourceError(
        f"All checkpoints in {run.checkpoints} are damaged:\n  " + "\n  ".join(reasons),
        "Bring one back from a backup. To give the run up, delete its directory or choose another with --run DIR.",
    )


def _told_best(folder: Path) -> int | None:
    """The step of the best weights when a checkpoint was taken; None where there were none."""
    try:
        best = json.loads((folder / RECORD).read_bytes()).get("best")
        return None if best is None else int(best[1])
    except (OSError, ValueError, TypeError, AttributeError, IndexError, KeyError):
        return None  # a damaged checkpoint, which nobody goes back to


def _size(snapshot: Snapshot) -> int:
    """Bytes of all tensors."""
    groups = (snapshot.weights, snapshot.average, snapshot.state)
    return sum(t.numel() * t.element_size() for group in groups for t in group.values())


def _write(fresh: Path, snapshot: Snapshot, identity: Identity) -> Manifest:
    """Everything into a folder that is not yet under its name, down to the disk."""
    fresh.mkdir()
    written: dict[str, Written] = {
        WEIGHTS: write_tensors(fresh / WEIGHTS, snapshot.weights),
        STATE: write_tensors(fresh / STATE, snapshot.state),
        RECORD: write_file(fresh / RECORD, [json.dumps(snapshot.record).encode()]),
    }
    if snapshot.average:
        written[AVERAGE] = write_tensors(fresh / AVERAGE, snapshot.average)
    files = {name: FileEntry(bytes=w.bytes, sha256=w.sha256) for name, w in sorted(written.items())}
    manifest = Manifest(step=snapshot.step, recipe=identity.recipe, data=identity.data, files=files)
    write_file(fresh / MANIFEST, [manifest.to_text().encode()])
    sync_directory(fresh)
    return manifest
