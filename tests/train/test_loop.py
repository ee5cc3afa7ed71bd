"""The loop: what it emits and when, what it measures, and what it refuses."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ourospec.contracts import Clock, Event, Probe
from ourospec.errors import ConfigError, DivergedError
from ourospec.optim.config import OptimConfig
from ourospec.optim.schedule import learning_rate
from ourospec.runs import RunDirectory
from ourospec.train.loop import fit
from ourospec.train.weights import load_weights

from .toy import ToyBatch, ToyModel, ToyObjective, ToyStream, end_of, toy_job


class Recorder:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = False

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        self.closed = True


class Meddler(Recorder):
    """Does everything that an observer might do wrong, short of reaching for the model."""

    def on_event(self, event: Event) -> None:
        random.random(), np.random.random(3), torch.rand(3)
        random.seed(1), np.random.seed(1), torch.manual_seed(1)
        if event.step == 5:
            raise RuntimeError("tired")


def kinds(recorder: Recorder) -> list[tuple[str, int]]:
    return [(event.kind, event.step) for event in recorder.events]


def test_the_course_of_a_run(tmp_path: Path) -> None:
    recorder = Recorder()
    finish = fit(toy_job(tmp_path, steps=10, save_every=5, observers=[recorder]))
    assert (finish.step, finish.status) == (10, "complete")
    assert [event for event in kinds(recorder) if event[0] != "step"] == [
        ("start", 0),
        ("eval", 4),
        ("checkpoint", 5),
        ("eval", 8),
        ("checkpoint", 10),
        ("eval", 10),
        ("sample", 10),
        ("end", 10),
    ]
    assert [step for kind, step in kinds(recorder) if kind == "step"] == list(range(1, 11))
    assert recorder.closed
    assert recorder.events[-1].data == {"status": "complete", "seconds": finish.seconds}


def test_the_start_says_what_is_trained_and_on_what(tmp_path: Path) -> None:
    recorder = Recorder()
    fit(toy_job(tmp_path, steps=2, observers=[recorder], about={"data": {"documents": 3}}))
    start = recorder.events[0].data
    assert start["parameters"] == sum(p.numel() for p in ToyModel().parameters())
    assert {key: start[key] for key in ("name", "family", "device", "precision", "total_steps")} == {
        "name": "toy",
        "family": "toy",
        "device": "cpu",
        "precision": "float32",
        "total_steps": 2,
    }
    assert start["tokens_per_step"] == 4 * 7
    assert start["resumed_from"] is None
    assert start["data"] == {"documents": 3}


def test_a_step_reports_what_it_did(tmp_path: Path) -> None:
    recorder = Recorder()
    fit(toy_job(tmp_path, steps=6, observers=[recorder]))
    steps = [event for event in recorder.events if event.kind == "step"]
    optim = toy_job(tmp_path / "unused").optim
    tokens = 0
    for event in steps:
        data = event.data
        tokens += sum(batch.num_targets for batch in ToyStream().batches(event.step - 1))
        assert data["tokens"] == tokens
        assert data["lr"] == learning_rate(event.step - 1, optim, 6)
        assert data["grad_norm_clipped"] == min(data["grad_norm"], optim.clip_norm)
        assert math.isfinite(data["loss"]) and len(data["sizes"]) == 11 and isinstance(data["top"], float)
        assert data["price"] != 0.1
        assert data["lr_phase"] == ("warmup" if event.step <= round(6 * optim.warmup_fraction) else "cosine")
        targets = data["step_seconds"] * data["tokens_per_second"]
        assert targets == pytest.approx(sum(b.num_targets for b in ToyStream().batches(event.step - 1)))
    seconds = [event.data["seconds"] for event in steps]
    assert seconds[0] > 0
    assert seconds == pytest.approx(np.cumsum([event.data["step_seconds"] for event in steps]))


def test_a_toy_learns(tmp_path: Path) -> None:
    recorder = Recorder()
    fit(toy_job(tmp_path, steps=120, save_every=500, observers=[recorder]))
    losses = [event.data["loss"] for event in recorder.events if event.kind == "step"]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_watching_changes_nothing(tmp_path: Path) -> None:
    fit(toy_job(tmp_path / "none", observers=[], probes=[]))
    watched = [Recorder(), Meddler(), Recorder(), Meddler()]
    fit(toy_job(tmp_path / "many", observers=watched))
    assert end_of(tmp_path / "none").tensors == end_of(tmp_path / "many").tensors
    assert [event.kind for event in watched[0].events].count("warning") == 2


def test_the_callers_generators_are_left_as_they_were(tmp_path: Path) -> None:
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    expected = random.random(), np.random.random(), torch.rand(())
    random.seed(9), np.random.seed(9), torch.manual_seed(9)
    fit(toy_job(tmp_path, steps=3))
    assert (random.random(), np.random.random(), torch.rand(())) == expected


def test_the_seed_decides_and_nothing_from_outside_does(tmp_path: Path) -> None:
    ends = []
    for name, seed, noise in (("a", 5, 1), ("b", 5, 2), ("c", 6, 1)):
        random.seed(noise), np.random.seed(noise), torch.manual_seed(noise)
        fit(toy_job(tmp_path / name, steps=6, seed=seed))
        ends.append(end_of(tmp_path / name).tensors)
    assert ends[0] == ends[1] != ends[2]


def test_probes_see_the_average_in_eval_mode_and_leave_the_model_as_it_was(tmp_path: Path) -> None:
    seen: list[torch.Tensor] = []
    model = ToyModel()
    model.dropout.eval()  # a part that its owner keeps in eval mode throughout

    def look(probed: nn.Module, clock: Clock) -> dict[str, float]:
        assert probed is model and not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        seen.append(model.mix.weight.detach().clone())
        model.train()
        return {}

    class Checking(ToyObjective):
        def __call__(self, model: Any, *args: Any) -> Any:
            assert model.training and torch.is_grad_enabled()
            return super().__call__(model, *args)

    fit(toy_job(tmp_path, steps=8, model=model, objective=Checking(), probes=[Probe("eval", 0, look)]))
    averaged, origin = load_weights(RunDirectory(tmp_path))
    assert origin.averaged and len(seen) == 1
    assert torch.equal(seen[0], averaged["mix.weight"])
    assert not torch.equal(seen[0], model.mix.weight)
    assert model.training


def test_without_an_average_probes_see_the_weights(tmp_path: Path) -> None:
    model = ToyModel()
    seen = []

    def look(probed: nn.Module, clock: Clock) -> dict[str, float]:
        seen.append((clock, float(model.mix.weight.detach().sum())))
        return {}

    fit(toy_job(tmp_path, steps=4, model=model, optim=OptimConfig(), probes=[Probe("eval", 2, look)]))
    assert [clock for clock, _ in seen] == [Clock(2, 4), Clock(4, 4)]
    assert seen[-1][1] == float(model.mix.weight.detach().sum())
    assert not load_weights(RunDirectory(tmp_path))[1].averaged


def test_gradients_left_from_before_do_not_count(tmp_path: Path) -> None:
    fit(toy_job(tmp_path / "fresh", steps=3))
    job = toy_job(tmp_path / "used", steps=3)
    for parameter in job.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    fit(job)
    assert end_of(tmp_path / "fresh") == end_of(tmp_path / "used")


def test_the_objective_is_told_once_per_step_and_its_carry_goes_round(tmp_path: Path) -> None:
    calls: list[tuple[str, int]] = []

    class Telling(ToyObjective):
        def __call__(self, model: Any, batch: ToyBatch, carry: Any, clock: Clock) -> Any:
            count = 0 if carry is None else carry["history"][0]
            assert count == len([c for c in calls if c[0] == "call"])
            calls.append(("call", clock.step))
            return super().__call__(model, batch, carry, clock)

        def update(self, metrics: Any, clock: Clock) -> Any:
            assert set(metrics) == {"loss", "sizes", "top"}
            calls.append(("update", clock.step))
            return super().update(metrics, clock)

    fit(toy_job(tmp_path, steps=2, objective=Telling()))
    assert calls == [("call", 0), ("call", 0), ("update", 1), ("call", 1), ("call", 1), ("update", 2)]


class Poisoned(ToyObjective):
    """A loss or a gradient that is not a number from step 7 on."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def __call__(self, model: Any, batch: ToyBatch, carry: Any, clock: Clock) -> Any:
        step = super().__call__(model, batch, carry, clock)
        if clock.step < 7:
            return step
        if self.what == "loss":
            return step._replace(loss_sum=step.loss_sum * math.nan)
        # The square root of zero has a finite value and an infinite slope.
        return step._replace(loss_sum=step.loss_sum + (model.mix.weight * 0).abs().sqrt().sum())


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_divergence_is_caught_before_the_update(tmp_path: Path, what: str) -> None:
    recorder = Recorder()
    model = ToyModel()
    job = toy_job(tmp_path, model=model, objective=Poisoned(what), observers=[recorder], save_every=5)
    before: list[torch.Tensor] = []
    job.stream.before_step = lambda step: before.append(model.mix.weight.detach().clone())  # pyright: ignore
    with pytest.raises(DivergedError, match=r"Step 8 of 24 .*Last checkpoint: .*step-00000005") as caught:
        fit(job)
    assert torch.equal(before[-1], model.mix.weight)
    assert recorder.events[-1].data["status"] == "diverged"
    assert kinds(recorder)[-2:] == [("step", 7), ("end", 7)]
    assert "--optim.lr" in caught.value.remedy
    # What was saved is sound, so the same again from there says the same.
    with pytest.raises(DivergedError, match="Step 8 of 24"):
        fit(toy_job(tmp_path, objective=Poisoned(what), save_every=5))


def test_any_other_failure_is_told_and_passed_on(tmp_path: Path) -> None:
    def fail(model: nn.Module, clock: Clock) -> dict[str, float]:
        raise ZeroDivisionError

    recorder = Recorder()
    with pytest.raises(ZeroDivisionError):
        fit(toy_job(tmp_path, observers=[recorder], probes=[Probe("eval", 4, fail)]))
    assert kinds(recorder)[-1] == ("end", 4) and recorder.events[-1].data["status"] == "failed"
    assert recorder.closed and not (tmp_path / ".lock").exists()


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    first = fit(toy_job(tmp_path))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    recorder = Recorder()
    again = fit(toy_job(tmp_path, observers=[recorder]))
    assert again == first._replace(status="already complete")
    assert recorder.events == [] and recorder.closed
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_another_recipe_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    fit(toy_job(tmp_path, steps=4))
    before = (tmp_path / "events.jsonl").read_bytes(), (tmp_path / "recipe.json").read_bytes()
    with pytest.raises(ConfigError, match=r"train\.steps: 4 there, 9 here"):
        fit(toy_job(tmp_path, steps=9))
    assert before == ((tmp_path / "events.jsonl").read_bytes(), (tmp_path / "recipe.json").read_bytes())


def test_the_directory_holds_the_recipe_as_given(tmp_path: Path) -> None:
    job = toy_job(tmp_path, steps=2)
    fit(job)
    assert json.loads((tmp_path / "recipe.json").read_text()) == json.loads(job.recipe_json)
