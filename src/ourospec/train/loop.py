"""The one loop: count the steps, tell the observers, measure and save when due."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from ourospec.contracts import Clock, Described, Objective, Observer, Probe, Stream
from ourospec.device import DevicePolicy
from ourospec.errors import DivergedError, Interrupted, ResourceError
from ourospec.optim.config import OptimConfig
from ourospec.optim.ema import WeightAverage
from ourospec.optim.optimiser import build_optimiser
from ourospec.optim.schedule import phase
from ourospec.runs import RunDirectory
from ourospec.train.audience import Audience
from ourospec.train.checkpoint import CheckpointStore, Found
from ourospec.train.config import TrainConfig
from ourospec.train.control import StopRequest, hold_lock
from ourospec.train.durable import explained, replace_file, sync_file
from ourospec.train.manifest import Identity
from ourospec.train.recipe_file import recipe_digest, record_recipe, refuse_other_recipe
from ourospec.train.rng import seed_generators, undisturbed
from ourospec.train.state import TrainState, circumstances
from ourospec.train.step import accumulate, clip, look, refuse_divergence

COMPLETE = "complete.json"


@dataclass(frozen=True)
class Job:
    """Everything that a training run needs. The trainer closes the observers when it is done."""

    model: nn.Module
    objective: Objective
    stream: Stream
    probes: Sequence[Probe]
    observers: Sequence[Observer]
    run: RunDirectory
    recipe_json: str
    """The resolved recipe: what makes this run this run, and no other."""
    train: TrainConfig
    optim: OptimConfig
    seed: int
    """Of the global generators at the first step."""
    policy: DevicePolicy
    about: Mapping[str, Any] = field(default_factory=dict)
    """Further facts for the start event: what the data is, say."""
    keep: Callable[[], None] = lambda: None
    """Writes what else the directory needs (a tokenizer, say). Called at every start, but only once it is sure that
    the directory is ours and its recipe, data and model are the same as before."""
    adjust: Callable[[Objective], str | None] = lambda _: None
    """Changes the objective's state, once, when it is as the checkpoint had it; what it says of that is a warning."""


class Finish(NamedTuple):
    """How a run ended."""

    step: int
    seconds: float
    """Time spent in optimiser steps, over all resumptions."""
    status: Literal["complete", "already complete"]


def fit(job: Job) -> Finish:
    """Train to the last step, going on from the newest checkpoint in the run directory where there is one.

    However often the process is killed, and wherever, running the same job again ends in the same weights, bit for
    bit: on one machine with the same number of threads, and on CUDA only as far as its kernels are deterministic.
    The global random generators are left as they were found.

    Raises:
        ConfigError: the directory belongs to another recipe, or the checkpoint to another model.
        DataError: the data is not what the checkpoint was trained on.
        ResourceError: the directory is in use, cannot be written to, or all its checkpoints are damaged.
        DivergedError: loss or gradient is no longer finite; the update was not made.
        Interrupted: a signal or the file `.pause` asked for a stop; everything is saved.
    """
    audience = Audience(job.observers)
    try:
        with hold_lock(job.run), undisturbed():
            refuse_other_recipe(job.run, job.recipe_json)
            record_recipe(job.run, job.recipe_json)
            identity = Identity(recipe_digest(job.recipe_json), job.stream.fingerprint)
            store = CheckpointStore(job.run, identity, job.train.keep_checkpoints)
            store.sweep()
            found = store.newest()
            if found is None:
                _refuse_lost_checkpoints(job.run)
            elif (ended := _read_end(job.run)) and found.manifest.step == ended.step:
                return ended
            with StopRequest(job.run) as stop:
                return _Training(job, audience, store, stop).run(found)
    finally:
        audience.close()


class _Training:
    """One call of `fit`, past its formalities."""

    def __init__(self, job: Job, audience: Audience, store: CheckpointStore, stop: StopRequest) -> None:
        self.job = job
        self.audience = audience
        self.store = store
        self.stop = stop
        model = job.model.to(job.policy.device)
        average = WeightAverage(model, job.optim.ema_decay) if job.optim.ema_decay else None
        optimizer = build_optimiser(model, job.optim, job.policy)
        optimizer.zero_grad(set_to_none=True)  # whatever the model was used for before
        self.state = TrainState(model, optimizer, average, job.objective, job.policy)
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.last_save: str | None = None
        self.saved_step = 0

    def run(self, found: Found | None) -> Finish:
        self._begin(found)
        status = "failed"
        try:
            self._train()
            status = "complete"
        except DivergedError:
            status = "diverged"
            raise
        except Interrupted:
            status = "interrupted"
            raise
        except KeyboardInterrupt:
            status = "interrupted"
            raise self._stopped_at_once() from None
        finally:
            seconds = self.state.seconds
            self.audience.emit(
                "end", self.state.step, {"status": status, "seconds": seconds, **self._outcome()}
            )
        with explained("Marking the run as complete", self.job.run.checkpoints):
            ended = json.dumps({"step": self.state.step, "seconds": seconds})
            replace_file(self.job.run.checkpoints / COMPLETE, ended + "\n")
        return Finish(self.state.step, seconds, "complete")

    def _begin(self, found: Found | None) -> None:
        """Start at the first step or go on from a checkpoint, and say so."""
        warnings: list[str] = []
        if found is None:
            seed_generators(self.job.seed)
        else:
            warnings = self._resume(found)
        with explained("Writing what belongs to the run", self.job.run.path):
            self.job.keep()
        if said := self.job.adjust(self.job.objective):
            warnings.append(said)
        state = self.state
        state.model.train()
        self.store.forget_bests(after=state.heldout.best_step)
        self.audience.truncate(state.events_offset)
        self.audience.emit(
            "start", state.step, self._about(resumed_from=None if found is None else state.step)
        )
        for message in warnings:
            self.audience.emit("warning", state.step, {"message": message})

    def _resume(self, found: Found) -> list[str]:
        """Become the saved run; returns what the user should know of it."""
        snapshot = self.store.load(found)
        self.state.restore(snapshot)
        step = self.state.step
        self.last_save, self.saved_step = str(found.path), step
        warnings = [
            f"A damaged checkpoint was passed over; going on from step {step}. {reason}"
            for reason in found.skipped
        ]
        then, now = snapshot.record["circumstances"], circumstances(self.state.policy)
        changed = [
            f"{name} {then.get(name)} then, {now[name]} now" for name in now if then.get(name) != now[name]
        ]
        if changed:
            warnings.append(
                f"Going on under other circumstances ({'; '.join(changed)}): sums may be rounded otherwise, "
                "so the end need not equal that of an uninterrupted run in the last bits."
            )
        return warnings

    def _about(self, resumed_from: int | None) -> dict[str, Any]:
        """The data of the start event."""
        job = self.job
        recipe = json.loads(job.recipe_json)
        return {
            **{key: recipe[key] for key in ("name", "family") if key in recipe},
            "parameters": sum(p.numel() for p in self.state.model.parameters()),
            "device": str(job.policy.device),
            "precision": str(job.policy.autocast_dtype or torch.float32).removeprefix("torch."),
            "total_steps": job.train.steps,
            "tokens_per_step": job.train.batch_size * job.train.window,
            "resumed_from": resumed_from,
            **job.about,
        }

    def _train(self) -> None:
        state, settings = self.state, self.job.train
        if state.step > 0:
            # A checkpoint is taken before the probes of its step, so they are still to be run.
            self._measure()
        while state.step < settings.steps and not self._out_of_patience():
            self._one_step()
            last = state.step == settings.steps
            if last or state.step % settings.save_every == 0:
                self._save()
            self._stop_if_asked()
            self._measure()
        if self.saved_step != state.step:
            self._save()

    def _out_of_patience(self) -> bool:
        """Whether the held-out loss has not become better for so long that the run ends before its time."""
        return 0 < self.job.train.patience <= self.state.heldout.waited(self.state.step)

    def _outcome(self) -> dict[str, Any]:
        """What the end event says besides how the run ended."""
        heldout, settings = self.state.heldout, self.job.train
        found: dict[str, Any] = {}
        if settings.keep_best and math.isfinite(heldout.best_loss):
            found |= {"best_loss": heldout.best_loss, "best_step": heldout.best_step}
        if self._out_of_patience():
            bar = heldout.counted_loss - settings.min_improvement
            found["stopped_early"] = (
                f"no held-out loss below {bar:.4f} nats since step {heldout.counted_step}"
            )
        return found

    def _one_step(self) -> None:
        job, state = self.job, self.state
        began = time.perf_counter()
        clock = Clock(state.step, job.train.steps)
        batches = job.stream.batches(state.step)
        totals = accumulate(state.model, job.objective, batches, state.carry, clock, job.policy)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        reading = look(totals, gradients)
        refuse_divergence(reading, clock, self.last_save or "none yet")
        clipped = clip(gradients, reading.grad_norm, job.optim.clip_norm)
        rates = state.optimizer.set_rates(state.step, job.train.steps)
        limited = state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)  # now, so that probes and saves have their memory
        if state.average is not None:
            state.average.update(state.step)
        state.carry = totals.carry
        state.step += 1
        state.tokens += reading.num_targets
        # The objective hears of the step when it is finished, so the clock has moved on.
        told = {"loss": reading.loss, **reading.metrics}
        own = job.objective.update(told, Clock(state.step, job.train.steps))
        seconds = time.perf_counter() - began
        state.seconds += seconds
        event: dict[str, Any] = {
            # What the objective answers with None was for its own use, or means nothing in this step.
            **{name: value for name, value in {**reading.metrics, **own}.items() if value is not None},
            "loss": reading.loss,
            **rates,
            **(job.stream.about(state.step - 1) if isinstance(job.stream, Described) else {}),
            "lr_phase": phase(state.step - 1, job.optim, job.train.steps),
            "grad_norm": reading.grad_norm,
            "grad_norm_clipped": clipped,
            **limited,
            "tokens": state.tokens,
            "tokens_per_second": reading.num_targets / seconds,
            "step_seconds": seconds,
            "seconds": state.seconds,
        }
        self.audience.emit("step", state.step, event)
        state.events_offset = self.audience.offset(state.events_offset)

    def _measure(self) -> None:
        """Run the probes that are due at this step; all of them at the last."""
        state = self.state
        for probe in self.job.probes:
            last = state.step == self.job.train.steps or self._out_of_patience()
            if last or (probe.every and state.step % probe.every == 0):
                # A probe's batches are shaped unlike training's; what these left cached is in its way.
                self.job.policy.clear_cache()
                with undisturbed(), torch.no_grad(), self._as_kept():
                    data = probe.run(state.model, Clock(state.step, self.job.train.steps))
                best = probe.kind == "eval" and self._hear(data)
                # Told before it is kept: a kill between the two leaves no weights that are better than what is told.
                self.audience.emit(probe.kind, state.step, {**data, "best": True} if best else data)
                if best:
                    self._sync_events()
                    self.store.save_best(state.snapshot())
                self._stop_if_asked(unless_done=probe is self.job.probes[-1])

    def _hear(self, data: Mapping[str, Any]) -> bool:
        """Take an evaluation's loss in; whether its weights are to be kept as the best."""
        loss, settings = float(data.get("loss", math.inf)), self.job.train
        better = self.state.heldout.hear(loss, self.state.step, settings.min_improvement)
        return settings.keep_best and better and math.isfinite(loss)

    @contextlib.contextmanager
    def _as_kept(self) -> Iterator[None]:
        """The model in eval mode with the weights that would be kept, and afterwards exactly as before."""
        modes = [(module, module.training) for module in self.state.model.modules()]
        average = self.state.average
        self.state.model.eval()
        try:
            with contextlib.nullcontext() if average is None else average.swapped():
                yield
        finally:
            for module, mode in modes:
                module.training = mode

    def _save(self) -> None:
        state = self.state
        self._sync_events()
        saved = self.store.save(state.snapshot())
        self.last_save, self.saved_step = str(saved.path), state.step
        data = {"path": str(saved.path), "bytes": saved.bytes, "seconds": saved.seconds}
        self.audience.emit("checkpoint", state.step, data)

    def _sync_events(self) -> None:
        """What was told is on the disk before what it tells of."""
        run = self.job.run
        if run.events.exists():
            with explained("Writing the events to the disk", run.path):
                sync_file(run.events)

    def _stop_if_asked(self, unless_done: bool = False) -> None:
        reason = self.stop.reason()
        state, total = self.state, self.job.train.steps
        if reason is None or (unless_done and state.step == total):
            return
        if self.saved_step != state.step:
            self._save()
        self.stop.honoured()
        raise Interrupted(
            f"Stopped by {reason} after step {state.step} of {total}; everything is saved in {self.last_save}.",
            f"Give the same command again to go on with {self.job.run.path} as if nothing had happened.",
        )

    def _stopped_at_once(self) -> Interrupted:
        kept = f"The last checkpoint is {self.last_save}." if self.last_save else "Nothing was saved yet."
        return Interrupted(
            f"Stopped at once, {self.state.step} of {self.job.train.steps} steps being finished. {kept}",
            f"Give the same command again to go on with {self.job.run.path} from there.",
        )


def _read_end(run: RunDirectory) -> Finish | None:
    """How a run ended that was marked as complete; None where the mark is missing or half-written."""
    try:
        ended = json.loads((run.checkpoints / COMPLETE).read_bytes())
        return Finish(int(ended["step"]), float(ended["seconds"]), "already complete")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _refuse_lost_checkpoints(run: RunDirectory) -> None:
    """A run that once saved and has nothing left must not start over as if it were new.

    Raises:
        ResourceError: the events tell of a checkpoint, or cannot be read.
    """
    try:
        # A resume cuts the event of the very checkpoint that it goes on from; its own start event tells of it.
        saved = [
            event["step"]
            for event in run.read_events()
            if event.get("kind") == "checkpoint" or event.get("resumed_from") is not None
        ]
        told = f"tells of a checkpoint at step {saved[-1]}" if saved else ""
    except ValueError:
        told = "is garbled, so that it may once have told of a checkpoint"
    if told:
        raise ResourceError(
            f"{run.events} {told}, but {run.checkpoints} holds none.",
            "Bring the checkpoints back from a backup, or delete the run directory to start over.",
        )
