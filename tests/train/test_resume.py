"""Stopping and going on, in one process: signals, the pause file, damage, and other people's directories."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ourospec.contracts import Clock, Probe
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError, DataError, Interrupted, ResourceError
from ourospec.optim.config import GrokfastConfig, MuonConfig, OptimConfig
from ourospec.runs import RunDirectory
from ourospec.train.checkpoint import list_checkpoints
from ourospec.train.loop import fit
from ourospec.train.tree import put_together

from .test_checkpoint import flip_bit
from .toy import ToyModel, ToyStream, end_of, probe, toy_job


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("untouched")
    fit(toy_job(path))
    return end_of(path)


def during(step: int, act: Callable[[], None]) -> ToyStream:
    """A stream that acts when it is asked for the data of a step."""
    stream = ToyStream()
    stream.before_step = lambda asked: act() if asked == step else None
    return stream


def interrupt(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_the_toy_would_notice(tmp_path: Path, untouched: Any) -> None:
    """Every kind of state matters to the end: forgetting any one of them on resuming shows."""
    from ourospec.train.state import TrainState

    restore = TrainState.restore

    def forgetful(part: str) -> Callable[[TrainState, Any], None]:
        def forget(state: TrainState, snapshot: Any) -> None:
            fresh = state.snapshot()
            if part in ("weights", "average"):
                getattr(snapshot, part).update(getattr(fresh, part))
            else:
                for name in [name for name in snapshot.state if name.startswith(part)]:
                    del snapshot.state[name]
                snapshot.state.update({n: t for n, t in fresh.state.items() if n.startswith(part)})
                snapshot.record[part] = fresh.record[part]
            restore(state, snapshot)

        return forget

    for part in ("weights", "average", "optimizer", "generators", "carry", "objective", "tokens"):
        path = tmp_path / part
        with pytest.raises(Interrupted):
            fit(toy_job(path, stream=during(10, interrupt(signal.SIGINT))))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TrainState, "restore", forgetful(part))
            fit(toy_job(path))
        assert end_of(path) != untouched, f"{part} was forgotten and nothing showed it"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [0, 1, 3, 11, 23])
def test_a_signal_finishes_the_step_saves_and_says_how_to_go_on(
    tmp_path: Path, untouched: Any, number: signal.Signals, step: int
) -> None:
    with pytest.raises(Interrupted) as caught:
        fit(toy_job(tmp_path, stream=during(step, interrupt(number))))
    assert f"Stopped by {number.name} after step {step + 1} of 24" in str(caught.value)
    assert str(tmp_path) in caught.value.remedy
    assert list_checkpoints(RunDirectory(tmp_path))[-1].name == f"step-{step + 1:08d}"
    last = list(RunDirectory(tmp_path).read_events())[-1]
    assert (last["kind"], last["status"]) == ("end", "interrupted")
    assert fit(toy_job(tmp_path)).status == "complete"
    assert end_of(tmp_path) == untouched


def test_a_second_signal_stops_at_once_and_leaves_the_last_checkpoint(tmp_path: Path, untouched: Any) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match=r"at once, 11 of 24 steps being finished.*step-00000009"):
        fit(toy_job(tmp_path, stream=during(11, twice)))
    assert not (tmp_path / ".lock").exists()
    fit(toy_job(tmp_path))
    assert end_of(tmp_path) == untouched


def test_a_second_signal_before_any_checkpoint_says_so(tmp_path: Path) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted, match="Nothing was saved yet"):
        fit(toy_job(tmp_path, stream=during(1, twice)))


def test_the_pause_file_pauses_once(tmp_path: Path, untouched: Any) -> None:
    tmp_path.joinpath(".pause").touch()  # left over: must not pause this run
    stream = during(7, tmp_path.joinpath(".pause").touch)
    with pytest.raises(Interrupted, match=r"Stopped by \.pause after step 8 of 24"):
        fit(toy_job(tmp_path, stream=stream))
    assert not (tmp_path / ".pause").exists()
    assert fit(toy_job(tmp_path)).status == "complete"
    assert end_of(tmp_path) == untouched


@pytest.mark.parametrize("stop_at", [8, 12, 24])
def test_stopping_between_two_probes_runs_neither_twice(tmp_path: Path, untouched: Any, stop_at: int) -> None:
    """At step 8 nothing is saved on schedule, at 12 something is, at 24 the run ends."""

    def stopping(model: nn.Module, clock: Clock) -> Any:
        seen = probe(model, clock)
        if clock.step == stop_at:
            os.kill(os.getpid(), signal.SIGINT)
        return seen

    probes = [Probe("eval", 4, stopping), Probe("sample", 0, probe)]
    with pytest.raises(Interrupted, match=f"after step {stop_at}"):
        fit(toy_job(tmp_path, probes=probes))
    assert fit(toy_job(tmp_path)).status == "complete"
    assert end_of(tmp_path) == untouched


def test_stopping_again_and_again_without_a_step_between(tmp_path: Path, untouched: Any) -> None:
    def stopping(model: nn.Module, clock: Clock) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return probe(model, clock)

    for _ in range(3):
        with pytest.raises(Interrupted, match="after step 4 of 24"):
            fit(toy_job(tmp_path, probes=[Probe("eval", 4, stopping), Probe("sample", 0, probe)]))
    fit(toy_job(tmp_path))
    assert end_of(tmp_path) == untouched


def test_a_stop_in_the_very_last_moment_is_a_finish(tmp_path: Path, untouched: Any) -> None:
    def stopping(model: nn.Module, clock: Clock) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return probe(model, clock)

    job = toy_job(tmp_path, probes=[Probe("eval", 4, probe), Probe("sample", 0, stopping)])
    assert fit(job).status == "complete"
    assert end_of(tmp_path) == untouched


def stopped_after_12(path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(toy_job(path, stream=during(11, interrupt(signal.SIGINT))))


def test_a_damaged_newest_falls_back_says_so_and_ends_the_same(tmp_path: Path, untouched: Any) -> None:
    stopped_after_12(tmp_path)
    flip_bit(tmp_path / "checkpoints" / "step-00000012" / "weights.safetensors", 4000)
    fit(toy_job(tmp_path))
    warnings = [e["message"] for e in RunDirectory(tmp_path).read_events() if e["kind"] == "warning"]
    assert len(warnings) == 1
    assert "going on from step 9" in warnings[0] and "step-00000012: weights.safetensors" in warnings[0]
    assert end_of(tmp_path) == untouched


def test_going_on_with_another_number_of_threads_is_warned_of(tmp_path: Path) -> None:
    stopped_after_12(tmp_path)
    torch.set_num_threads(2)
    try:
        fit(toy_job(tmp_path))
    finally:
        torch.set_num_threads(1)
    warnings = [e["message"] for e in RunDirectory(tmp_path).read_events() if e["kind"] == "warning"]
    assert len(warnings) == 1 and "threads 1 then, 2 now" in warnings[0]


def test_another_arithmetic_and_other_instructions_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Precision "auto" gives another arithmetic elsewhere, under the very same recipe."""
    supported = torch.cpu._is_amx_tile_supported()
    stopped_after_12(tmp_path)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: not supported)
    policy = DevicePolicy(torch.device("cpu"), torch.bfloat16, fused_optimizer=True)
    fit(toy_job(tmp_path, policy=policy))
    (warning,) = [e["message"] for e in RunDirectory(tmp_path).read_events() if e["kind"] == "warning"]
    assert "arithmetic float32 then, bfloat16 now" in warning
    assert "instructions" in warning and "AMX" in warning


@pytest.mark.parametrize("fused", [True, False])
def test_the_optimiser_runs_as_this_device_wants_it(tmp_path: Path, fused: bool) -> None:
    def policy(fused: bool) -> DevicePolicy:
        return DevicePolicy(torch.device("cpu"), None, fused_optimizer=fused)

    with pytest.raises(Interrupted):
        fit(toy_job(tmp_path, policy=policy(not fused), stream=during(11, interrupt(signal.SIGINT))))
    assert {group["fused"] for group in saved_groups(tmp_path)} == {not fused}
    fit(toy_job(tmp_path, policy=policy(fused)))
    assert {group["fused"] for group in saved_groups(tmp_path)} == {fused}


def saved_groups(path: Path) -> list[dict[str, Any]]:
    """The optimiser's groups in the newest checkpoint."""
    folder = list_checkpoints(RunDirectory(path))[-1]
    record = json.loads((folder / "state.json").read_text())
    state = load_file(folder / "state.safetensors")
    return put_together(record["optimizer"], state, torch.device("cpu"))["param_groups"]


def test_with_all_damaged_it_refuses_and_never_starts_over(tmp_path: Path) -> None:
    stopped_after_12(tmp_path)
    for folder in list_checkpoints(RunDirectory(tmp_path)):
        flip_bit(folder / "state.safetensors", 3000)
    before = (tmp_path / "events.jsonl").read_bytes()
    with pytest.raises(ResourceError, match="are damaged"):
        fit(toy_job(tmp_path))
    assert (tmp_path / "events.jsonl").read_bytes() == before


@pytest.mark.parametrize("garbled", [False, True])
def test_checkpoints_that_vanished_are_not_taken_for_none(tmp_path: Path, garbled: bool) -> None:
    stopped_after_12(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    if garbled:
        (tmp_path / "events.jsonl").write_bytes(b"\x00\xff garbled\n")
    with pytest.raises(ResourceError, match="holds none"):
        fit(toy_job(tmp_path))


def test_checkpoints_lost_after_a_resume_are_not_taken_for_none(tmp_path: Path) -> None:
    """The resume cuts the event of the only save; that it was a resume still tells of it."""
    stopping = during(4, interrupt(signal.SIGINT))
    with pytest.raises(Interrupted):
        fit(toy_job(tmp_path, save_every=100, stream=stopping))

    def crash() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(toy_job(tmp_path, save_every=100, stream=during(7, crash)))
    assert "checkpoint" not in {event["kind"] for event in RunDirectory(tmp_path).read_events()}
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(ResourceError, match=r"tells of a checkpoint at step 5, but .* holds none"):
        fit(toy_job(tmp_path, save_every=100))


def test_other_data_is_refused(tmp_path: Path) -> None:
    stopped_after_12(tmp_path)
    with pytest.raises(DataError, match="other data"):
        fit(toy_job(tmp_path, stream=ToyStream(seed=1)))


def test_only_a_start_that_is_allowed_writes_what_belongs_to_the_run(tmp_path: Path) -> None:
    written: list[bool] = []

    def keep() -> None:
        assert (tmp_path / ".lock").exists()
        written.append((tmp_path / "events.jsonl").exists())

    with pytest.raises(Interrupted):
        fit(toy_job(tmp_path, stream=during(4, interrupt(signal.SIGINT)), keep=keep))
    assert written == [False], "before the first event"
    other = ToyModel()
    other.norm = nn.RMSNorm(8)  # pyright: ignore[reportAttributeAccessIssue]
    refused = ({"steps": 9}, {"stream": ToyStream(seed=1)}, {"model": other})
    for changes in refused:
        with pytest.raises((ConfigError, DataError)):
            fit(toy_job(tmp_path, keep=keep, **changes))
    assert len(written) == 1
    fit(toy_job(tmp_path, keep=keep))
    assert len(written) == 2
    fit(toy_job(tmp_path, keep=keep))
    assert len(written) == 2, "a finished run is left as it is"


@pytest.mark.parametrize("content", [b"", b'{"step": 2', b"[]", b'{"step": 24}', b"\xff"])
def test_a_mark_of_completion_that_was_not_written_whole_counts_as_none(
    tmp_path: Path, untouched: Any, content: bytes
) -> None:
    fit(toy_job(tmp_path))
    (tmp_path / "checkpoints" / "complete.json").write_bytes(content)
    assert fit(toy_job(tmp_path)).status == "complete"
    assert fit(toy_job(tmp_path)).status == "already complete"
    assert end_of(tmp_path) == untouched


def test_another_model_under_the_same_recipe_is_refused_by_name(tmp_path: Path) -> None:
    stopped_after_12(tmp_path)
    model = ToyModel()
    model.norm = nn.RMSNorm(8)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match=r"other parameters.*norm\.bias"):
        fit(toy_job(tmp_path, model=model))


def test_other_parameter_groups_are_refused(tmp_path: Path) -> None:
    stopped_after_12(tmp_path)
    model = ToyModel()
    model.mix.weight._no_decay = True  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ConfigError, match="other groups"):
        fit(toy_job(tmp_path, model=model))


def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(
    tmp_path: Path, untouched: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)

    def fill_up() -> None:
        full = usage._replace(free=10)
        monkeypatch.setattr("ourospec.train.checkpoint.shutil.disk_usage", lambda path: full)

    with pytest.raises(ResourceError, match="has 10 left"):
        fit(toy_job(tmp_path, stream=during(13, fill_up)))
    monkeypatch.undo()
    assert [folder.name for folder in list_checkpoints(RunDirectory(tmp_path))] == [
        "step-00000009",
        "step-00000012",
    ]
    fit(toy_job(tmp_path))
    assert end_of(tmp_path) == untouched


def test_a_second_run_of_the_same_directory_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    refusals = []

    def intrude() -> None:
        with pytest.raises(ResourceError, match="in use") as caught:
            fit(toy_job(tmp_path))
        refusals.append(caught.value)

    assert fit(toy_job(tmp_path, stream=during(5, intrude))).status == "complete"
    assert len(refusals) == 1


def test_a_run_can_go_on_with_other_observers(tmp_path: Path, untouched: Any) -> None:
    """The event file is cut to the checkpoint by whoever keeps it, even if nobody did for a while."""
    stopped_after_12(tmp_path)
    with pytest.raises(Interrupted):
        fit(toy_job(tmp_path, observers=[], stream=during(17, interrupt(signal.SIGINT))))
    fit(toy_job(tmp_path))
    assert end_of(tmp_path).tensors == untouched.tensors
    steps = [e["step"] for e in RunDirectory(tmp_path).read_events() if e["kind"] == "step"]
    assert steps == [*range(1, 13), *range(19, 25)]


def test_the_weights_kept_can_be_loaded_by_name(tmp_path: Path) -> None:
    from ourospec.train.weights import load_weights

    fit(toy_job(tmp_path))
    tensors, origin = load_weights(RunDirectory(tmp_path))
    model = ToyModel()
    model.load_state_dict(tensors)
    assert torch.equal(model.head.weight, tensors["table.weight"])
    assert origin.step == 24 and origin.tokens > 0


def test_the_optimisers_memories_are_part_of_the_run(tmp_path: Path) -> None:
    """With Muon, Grokfast and a running average: stopped twice, the end is the same; without a memory it is not."""
    optim = OptimConfig(
        lr=0.03, ema_decay=0.9, clip_norm=0.5, muon=MuonConfig(lr=0.05), grokfast=GrokfastConfig(decay=0.8)
    )
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    fit(toy_job(whole, optim=optim))
    for step in (4, 10):
        with pytest.raises(Interrupted):
            fit(toy_job(stopped, optim=optim, stream=during(step, interrupt(signal.SIGINT))))
    fit(toy_job(stopped, optim=optim))
    assert end_of(stopped) == end_of(whole)
    (groups, *_) = [event for event in end_of(whole).events if event["kind"] == "step"]
    assert groups["muon_lr"] == pytest.approx(groups["lr"] * 0.05 / 0.03)
    names = [name for group in saved_groups(whole) for name in group["param_names"]]
    assert names == ["table.weight", "mix.bias", "norm.weight", "norm.bias", "mix.weight"]


def test_a_run_goes_on_with_the_optimiser_that_it_began_with(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        fit(toy_job(tmp_path, stream=during(4, interrupt(signal.SIGINT))))
    with pytest.raises(ConfigError, match="in other groups"):
        fit(toy_job(tmp_path, optim=OptimConfig(lr=0.03, ema_decay=0.9, muon=MuonConfig())))
