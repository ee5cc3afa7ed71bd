"""A job small enough to be killed many times: every kind of state that a run can have, in miniature."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ourospec.contracts import Clock, Mean, Probe, Step
from ourospec.device import DevicePolicy
from ourospec.optim.config import OptimConfig
from ourospec.runs import RunDirectory
from ourospec.telemetry.jsonl import JsonlObserver
from ourospec.train.checkpoint import list_checkpoints
from ourospec.train.config import TrainConfig
from ourospec.train.loop import Job

VOCABULARY, WIDTH, STEPS_PER_EPOCH = 11, 8, 10


class ToyModel(nn.Module):
    """Predicts the next of a few tokens. Dropout draws from PyTorch's generator; the head shares the table."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.head.weight = self.table.weight
        self.register_buffer("seen", torch.zeros(VOCABULARY))

    def forward(self, tokens: Tensor, memory: Tensor) -> Tensor:
        if self.training:
            self.seen += torch.bincount(tokens.reshape(-1), minlength=VOCABULARY)
        return self.head(self.dropout(self.norm(torch.relu(self.mix(self.table(tokens))) + memory)))


@dataclass(frozen=True)
class ToyBatch:
    tokens: Tensor
    targets: Tensor

    @property
    def num_targets(self) -> int:
        return int((self.targets >= 0).sum())

    def to(self, device: torch.device) -> ToyBatch:
        return ToyBatch(self.tokens.to(device), self.targets.to(device))


class ToyStream:
    """Rows of a fixed corpus, in another order every epoch; uneven numbers of targets per micro-batch."""

    def __init__(self, seed: int = 0, micro_batches: int = 2, rows: int = 4) -> None:
        self.seed, self.micro_batches, self.rows = seed, micro_batches, rows
        self.before_step: Callable[[int], None] = lambda step: None
        generator = np.random.Generator(np.random.Philox(key=[seed, 0]))
        self.tokens = generator.integers(0, VOCABULARY, (rows * STEPS_PER_EPOCH, 7))
        self.masked = generator.random(self.tokens.shape) < 0.3

    @property
    def fingerprint(self) -> str:
        return f"toy-{self.seed}-{self.rows}"

    def batches(self, step: int) -> list[ToyBatch]:
        self.before_step(step)
        epoch, position = divmod(step, STEPS_PER_EPOCH)
        order = np.random.Generator(np.random.Philox(key=[self.seed, epoch + 1])).permutation(
            len(self.tokens)
        )
        picked = order[position * self.rows : (position + 1) * self.rows]
        tokens = torch.from_numpy(self.tokens[picked])
        targets = (tokens * 3 + 1) % VOCABULARY
        targets[torch.from_numpy(self.masked[picked])] = -100
        chunks = zip(tokens.chunk(self.micro_batches), targets.chunk(self.micro_batches), strict=True)
        return [ToyBatch(*chunk) for chunk in chunks]


class ToyObjective:
    """Cross-entropy with a carry, a state of its own, and draws from all three generators of the process."""

    def __init__(self) -> None:
        self.price = 0.1

    def __call__(self, model: Any, batch: ToyBatch, carry: Any, clock: Clock) -> Step:
        memory = torch.zeros(WIDTH) if carry is None else carry["memory"]
        noise = 0.01 * (random.random() + np.random.random())
        logits = model(batch.tokens, memory + noise)
        loss = nn.functional.cross_entropy(
            logits.flatten(0, -2), batch.targets.flatten(), ignore_index=-100, reduction="sum"
        )
        with torch.no_grad():
            new_memory = 0.9 * memory + 0.1 * model.table(batch.tokens).mean((0, 1)).detach()
            sizes = logits.abs().mean((0, 1)) * batch.num_targets
        metrics = {"sizes": Mean(sizes, batch.num_targets), "top": Mean(logits.max().detach(), 1)}
        count = 1 if carry is None else carry["history"][0] + 1
        return Step(
            loss + 0.01 * self.price * logits.square().sum(), batch.num_targets, metrics,
            {"memory": new_memory, "history": (count, [None, "x"])},
        )  # fmt: skip

    def update(self, metrics: Mapping[str, Any], clock: Clock) -> Mapping[str, float]:
        self.price *= 1.0 + 0.001 * (2.0 - metrics["loss"])
        return {"price": self.price}

    def state_dict(self) -> dict[str, Any]:
        return {"price": self.price}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.price = state["price"]


class End(NamedTuple):
    """What must be equal, to the last bit, however a run came to its end."""

    tensors: dict[str, bytes]
    """Weights, average, and everything in the state: optimiser, generators, carry."""
    record: dict[str, Any]
    """The rest of the checkpoint, but for clock readings and what depends on their width in text."""
    events: list[dict[str, Any]]
    """Steps and what the probes saw, without clock readings."""


def end_of(path: Path) -> End:
    """Read the end of a finished run."""
    run = RunDirectory(path)
    folder = list_checkpoints(run)[-1]
    tensors = {
        f"{file.name}:{name}": tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        for file in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    record = json.loads((folder / "state.json").read_text())
    del record["seconds"], record["events_offset"]
    events = [event for event in run.read_events() if event["kind"] in ("step", "eval", "sample")]
    for event in events:
        for reading in ("time", "seconds", "step_seconds", "tokens_per_second"):
            event.pop(reading, None)
    return End(tensors, record, events)


def probe(model: nn.Module, clock: Clock) -> dict[str, float]:
    """Reads the weights, and does what a probe may not get away with: draws and changes the mode."""
    random.random(), np.random.random(), torch.rand(3)
    model.train()
    weight = model.get_parameter("mix.weight")
    return {"weight": float(weight.sum()), "fraction": clock.fraction}


def scoring(model: nn.Module, clock: Clock) -> dict[str, Any]:
    """An evaluation whose loss is of the weights alone, and rises and falls; it meddles as `probe` does."""
    seen = probe(model, clock)
    return {**seen, "loss": 2.0 + math.sin(40.0 * float(model.get_parameter("mix.weight").sum()))}


def toy_job(
    path: Path,
    *,
    steps: int = 24,
    save_every: int = 3,
    keep_best: bool = False,
    observers: Any = None,
    **changes: Any,
) -> Job:
    """A fresh job, as a new process would build it."""
    run = RunDirectory(path)
    policy = DevicePolicy(torch.device("cpu"), None, fused_optimizer=True)
    train = TrainConfig(
        steps=steps, batch_size=4, micro_batch_size=2, window=7, save_every=save_every, eval_every=4,
        keep_best=keep_best,
    )  # fmt: skip
    optim = OptimConfig(lr=0.03, ema_decay=0.9, clip_norm=0.5, warmup_fraction=0.2)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = ToyModel()
    parts: dict[str, Any] = {
        "model": model,
        "objective": ToyObjective(),
        "stream": ToyStream(),
        "probes": [Probe("eval", 4, scoring if keep_best else probe), Probe("sample", 0, probe)],
        "observers": [JsonlObserver(run)] if observers is None else observers,
        "run": run,
        "train": train,
        "optim": optim,
        "seed": 5,
        "policy": policy,
    }
    parts |= changes
    recipe = {"name": "toy", "family": "toy", "train": parts["train"].model_dump(), "seed": parts["seed"]}
    return Job(**{"recipe_json": json.dumps(recipe), **parts})
