"""A run in Weights & Biases: offline, to be sent later with `wandb sync`, or online."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Sequence
from typing import Any, Literal

from ourospec.contracts import Event
from ourospec.errors import ConfigError, ResourceError
from ourospec.runs import RunDirectory
from ourospec.telemetry.background import Background
from ourospec.telemetry.files import write_whole
from ourospec.telemetry.scalars import curves

PROJECT = "ourospec"
Mode = Literal["offline", "online"]


class WandbObserver:
    """Logs the curves of telemetry/scalars.py and the recipe, and nothing else: not code, nor machine, nor console.

    The run's id is kept in `wandb/id.txt` of the run directory, so that a resumed run goes on with the same curves.
    Offline, nothing is sent; `wandb sync RUN/wandb/offline-run-*` does that when it is wanted. It prints nothing and
    never asks for a key.

    Raises:
        ResourceError: the package is not installed.
        ConfigError: online, and no key is stored on this machine.
    """

    def __init__(self, run: RunDirectory, mode: Mode = "offline") -> None:
        if mode == "offline":
            # Read when the package is imported; it would else report its own errors to its makers.
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError:
            raise ResourceError(
                "Writing for Weights & Biases needs the library wandb, which is not installed.",
                "Install it with: pip install 'ourospec[wandb]' (or leave --wandb out)",
            ) from None
        if mode == "online" and not _has_key(wandb):
            raise ConfigError(
                "Weights & Biases was asked for online, but no key for it is stored on this machine.",
                "Store one with: wandb login (or write offline with --wandb offline, to be sent later)",
            )
        self._wandb: Any = wandb
        self._directory, self._mode = run, mode
        self._run: Any = None
        self._background = Background[Event](self._log, str(run.wandb))

    def on_event(self, event: Event) -> None:
        """Have the event's numbers logged."""
        if event.kind == "start":
            self._begin()
        elif event.kind in ("step", "eval"):
            self._background.put(event)

    def close(self) -> None:
        """Finish the run."""
        self._background.close()
        if self._run is not None:
            self._run.finish()
            self._run = None

    def _begin(self) -> None:
        directory = self._directory
        self._run = self._wandb.init(
            project=PROJECT,
            name=directory.path.name,
            id=self._identity(),
            resume="allow",
            dir=str(directory.path),
            config=json.loads(directory.recipe.read_text(encoding="utf-8")),
            mode=self._mode,
            settings=self._wandb.Settings(
                silent=True,
                console="off",
                host="",
                disable_git=True,
                disable_code=True,
                save_code=False,
                x_disable_stats=True,
                x_disable_meta=True,
                x_disable_machine_info=True,
                x_save_requirements=False,
            ),
        )

    def _log(self, events: Sequence[Event]) -> None:
        for event in events:
            # Steps that come again after a kill are the same to the last bit, so the service may well drop them.
            self._run.log(curves(event), step=event.step)

    def _identity(self) -> str:
        """The id of this run, made at its first start."""
        path = self._directory.wandb / "id.txt"
        if not path.is_file():
            write_whole(path, uuid.uuid4().hex[:16] + "\n")
        return path.read_text(encoding="utf-8").strip()


def _has_key(wandb: Any) -> bool:
    """Whether a key can be had without asking for it, and without asking the service whether it is good."""
    return bool(wandb.login(prompt=False, verify=False))
