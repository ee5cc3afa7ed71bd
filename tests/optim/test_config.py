"""Recipes of AdamW alone read and write as they did before there was anything else."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from ourospec.families.dense_lm.presets import smoke
from ourospec.optim.config import GrokfastConfig, MuonConfig, OptimConfig, QKClipConfig
from ourospec.optim.phases import PHASES
from ourospec.train.recipe_file import recipe_digest

WRITTEN = {
    "lr": 0.003, "final_lr_fraction": 0.1, "warmup_fraction": 0.02, "beta1": 0.9, "beta2": 0.95, "eps": 1e-08,
    "weight_decay": 0.1, "clip_norm": 1.0, "ema_decay": 0.0,
}  # fmt: skip
"""Settings in the recipe.json of a run from before Muon."""
ALL = OptimConfig(
    muon=MuonConfig(lr=0.01), grokfast=GrokfastConfig(strength=0.3), qk_clip=QKClipConfig(limit=30.0)
)


def test_a_recipe_from_before_is_read_and_written_as_it_was() -> None:
    config = OptimConfig.model_validate_json(json.dumps(WRITTEN))
    assert config == OptimConfig(lr=3e-3)
    assert json.loads(config.model_dump_json()) == config.model_dump() == WRITTEN
    recipe = smoke()
    assert json.loads(recipe.to_json())["optim"] == WRITTEN
    assert type(recipe).model_validate_json(recipe.to_json()) == recipe


def test_what_is_on_is_written_and_makes_another_recipe() -> None:
    values = json.loads(ALL.model_dump_json())
    assert values["muon"] == {"lr": 0.01, "momentum": 0.95, "iterations": 5, "scale": "spectral"}
    assert values["grokfast"] == {"decay": 0.98, "strength": 0.3}
    assert values["qk_clip"] == {"limit": 30.0}
    assert OptimConfig.model_validate_json(ALL.model_dump_json()) == ALL
    digests = {
        recipe_digest(smoke().model_copy(update={"optim": optim}).to_json())
        for optim in (
            OptimConfig(),
            *(ALL.model_copy(update={name: None}) for name in ("muon", "grokfast", "qk_clip")),
            ALL,
        )
    }
    assert len(digests) == 5


def test_both_rates_are_scaled() -> None:
    scaled = ALL.scaled(0.3)
    assert (scaled.lr, scaled.muon and scaled.muon.lr) == (0.3 * ALL.lr, 0.3 * 0.01)
    assert scaled.grokfast == ALL.grokfast
    assert OptimConfig(lr=0.1).scaled(0.5) == OptimConfig(lr=0.05)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (MuonConfig, {"lr": 0.0}),
        (MuonConfig, {"momentum": 1.0}),
        (MuonConfig, {"iterations": 0}),
        (MuonConfig, {"nesterov": False}),
        (GrokfastConfig, {"decay": 1.0}),
        (GrokfastConfig, {"strength": -0.1}),
        (QKClipConfig, {"limit": 0.0}),
    ],
)
def test_what_cannot_be_is_refused(kind: type, values: dict) -> None:
    with pytest.raises(ValidationError):
        kind(**values)


@pytest.mark.parametrize(
    ("phase", "muon_lr", "lr", "strength"),
    [
        ("phase_1_first", 1e-2, 1e-3, 0.05),
        ("phase_1_halved", 5e-3, 5e-4, 0.02),
        ("phase_1", 1e-3, 1e-3, 0.3),
        ("phase_3", 5e-4, 5e-4, 0.1),
        ("phase_5", 1e-3, 1e-3, 2.0),
        ("phase_6", 1e-4, 1e-4, 0.2),
        ("phase_7", 5e-4, 5e-4, 0.15),
    ],
)
def test_the_phases_are_the_documentations(phase: str, muon_lr: float, lr: float, strength: float) -> None:
    found = PHASES[phase]()
    assert found.muon and found.grokfast and found.qk_clip
    assert (found.muon.lr, found.lr, found.grokfast.strength) == (muon_lr, lr, strength)
    assert (found.muon.momentum, found.muon.iterations, found.muon.scale) == (0.95, 5, "spectral")
    assert (found.grokfast.decay, found.qk_clip.limit, found.clip_norm) == (0.98, 30.0, 1.0)
    assert OptimConfig.model_validate_json(found.model_dump_json()) == found


def test_the_halved_phase_ends_at_a_millionth() -> None:
    halved = PHASES["phase_1_halved"]()
    assert halved.warmup_fraction == 0.1
    assert halved.lr * halved.final_lr_fraction == pytest.approx(1e-6)
