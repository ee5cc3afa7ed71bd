"""Stopping in every phase and going on: weights, market and events are those of a run that was not stopped."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ourospec.contracts import Event
from ourospec.data.corpus import FilesSource
from ourospec.data.text import TextData
from ourospec.data.tokenizers import ByteTokenizerConfig
from ourospec.errors import Interrupted
from ourospec.families.adaptive_lm.credit import CouponConfig, ExplorationConfig, GainConfig, NoCreditConfig
from ourospec.families.adaptive_lm.economy import DualAscentConfig, LegacyConfig, QuotaConfig
from ourospec.families.adaptive_lm.model import AdaptiveConfig
from ourospec.families.adaptive_lm.objective import DepthObjective
from ourospec.families.adaptive_lm.recipe import AdaptiveRecipe
from ourospec.families.adaptive_lm.schedule import Schedule
from ourospec.families.terms import SMOKE
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.depth import DepthConfig
from ourospec.runs import RunDirectory
from ourospec.telemetry.jsonl import JsonlObserver
from ourospec.train.checkpoint import list_checkpoints
from ourospec.train.config import TrainConfig
from ourospec.train.loop import fit

from .small import EXPERTS

STEPS = 16
WARM_UP, PRICE, RESTING = 2, 5, 12
"""Finished steps after which the runs are stopped: in the warm-up, before the first price, in the deadband."""
SCHEDULE = Schedule(
    unit="steps",
    forced_until=3,
    price_from=PRICE,
    ceiling_until=8,
    audit_share=0.25,
    exploration=0.1,
)
# Under gains it is the price that moves the threshold.
ANNEALED = SCHEDULE.model_copy(update={"first_threshold": 0.1, "threshold_until": 10})
MARKET = DualAscentConfig(target=1.6, tolerance=0.9, patience=2)
CASES: dict[str, dict[str, Any]] = {
    "gain": {"credit": GainConfig()},
    "coupon": {"credit": CouponConfig()},
    "coupon, experts": {"credit": CouponConfig(), "experts": True},
    "exploration": {"credit": ExplorationConfig()},
    "rationed": {"credit": NoCreditConfig(), "price": QuotaConfig(target=1.6)},
    "author's": {
        "credit": CouponConfig(detached=False, reference="last_layer"),
        "price": LegacyConfig(rate=0.01, target=1.2),
        "experts": True,
    },
}
OF_THE_CLOCK = ("time", "seconds", "step_seconds", "tokens_per_second")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A dozen texts, and a place for what is made of them."""
    place = tmp_path_factory.mktemp("texts") / "texts"
    place.mkdir()
    for number in range(12):
        chance = random.Random(number)
        (place / f"{number:02}.txt").write_text("\n".join(str(chance.random()) for _ in range(60)) + "\n")
    return place


def recipe_of(texts: Path, credit: Any, price: Any = MARKET, experts: bool = False) -> AdaptiveRecipe:
    gains = credit.kind == "gain"
    return AdaptiveRecipe(
        name="resumed",
        prompts=("0.",),
        data=TextData(
            source=FilesSource(paths=(str(texts),)),
            tokenizer=ByteTokenizerConfig(),
            heldout_fraction=0.2,
            cache=str(texts.with_name("cache")),
        ),
        train=TrainConfig(
            steps=STEPS,
            save_every=4,
            batch_size=4,
            micro_batch_size=2,
            window=24,
            eval_every=STEPS,
            eval_tokens=200,
            sample_every=0,
            device="cpu",
            precision="float32",
        ),
        optim=SMOKE.optim,
        model=AdaptiveConfig(
            width=32,
            layers=2,
            attention=AttentionConfig(heads=4),
            mlp_hidden=40,
            moe=EXPERTS if experts else None,
            depth=DepthConfig(
                max_passes=3, threshold=0.4, gate_bias=0.5, weight="full" if gains else "survival"
            ),
            max_length=24,
        ),
        objective=DepthObjective(schedule=SCHEDULE if gains else ANNEALED, price=price, credit=credit),
    )


class Pausing:
    """Asks for a pause when a step is finished."""

    def __init__(self, run: RunDirectory, step: int) -> None:
        self.run, self.step = run, step

    def on_event(self, event: Event) -> None:
        if event.kind == "step" and event.step == self.step:
            (self.run.path / ".pause").touch()

    def close(self) -> None:
        """Nothing is held open."""


def train(recipe: AdaptiveRecipe, path: Path, until: int = 0) -> None:
    run = RunDirectory(path)
    torch.manual_seed(until)  # whatever was drawn before does not matter
    fit(recipe.assemble(run, [JsonlObserver(run), Pausing(run, until)]))


def steps_of(path: Path) -> list[dict[str, Any]]:
    """The step events, without what depends on how busy the machine is."""
    events = [event for event in RunDirectory(path).read_events() if event["kind"] == "step"]
    return [{name: value for name, value in e.items() if name not in OF_THE_CLOCK} for e in events]


def end_of(path: Path) -> tuple[dict[str, torch.Tensor], Any]:
    """All tensors of the last checkpoint, and the market's state."""
    last = list_checkpoints(RunDirectory(path))[-1]
    tensors = {
        f"{file.name}:{name}": tensor
        for file in sorted(last.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }
    return tensors, json.loads((last / "state.json").read_text())["objective"]


@pytest.mark.parametrize("name", CASES)
def test_a_run_stopped_in_every_phase_ends_like_one_that_was_not(texts, tmp_path, name):
    recipe = recipe_of(texts, **CASES[name])
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(recipe, whole)
    for until in (WARM_UP, PRICE, RESTING):
        with pytest.raises(Interrupted, match=rf"after step {until} of {STEPS}"):
            train(recipe, stopped, until)
    train(recipe, stopped)
    events = steps_of(whole)
    assert [event["step"] for event in events] == list(range(1, STEPS + 1))
    kinds = [event["step_kind"] for event in events]
    assert kinds[WARM_UP - 1] == "forced" and kinds[PRICE - 1] == "policy" and "audit" in kinds
    assert "ponder" not in events[PRICE - 1] and "ponder" in events[PRICE]
    rationed = name == "rationed"
    if not rationed and name != "author's":
        assert events[RESTING - 1]["deadband"] and events[RESTING - 1]["deadband_steps"] > 0
    moves = "layer_zero_point" if rationed else "price"
    assert len({str(event[moves]) for event in events}) > 2, "a market that moves"
    assert steps_of(stopped) == events
    (tensors, market), (tensors_stopped, market_stopped) = end_of(whole), end_of(stopped)
    assert market == market_stopped
    assert market["zero_points" if rationed else "price"] == events[-1][moves if rationed else "price_next"]
    assert tensors.keys() == tensors_stopped.keys()
    differing = [key for key, tensor in tensors.items() if not torch.equal(tensor, tensors_stopped[key])]
    assert differing == []


def test_forgetting_the_market_would_show(texts, tmp_path):
    """Otherwise the test above would say little about it."""
    recipe = recipe_of(texts, GainConfig())
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(recipe, whole)
    with pytest.raises(Interrupted):
        train(recipe, stopped, RESTING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ourospec.families.adaptive_lm.objective.AdaptiveObjective.load_state_dict",
            lambda objective, state: None,
        )
        train(recipe, stopped)
    assert steps_of(stopped)[RESTING:] != steps_of(whole)[RESTING:]
