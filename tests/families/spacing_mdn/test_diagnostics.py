"""Diagnostics A to K: numbers that are known beforehand, and runs of every kind of register."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ourospec import api
from ourospec.cli.findings import show_together, together
from ourospec.data.spacings import SpacingData, WignerSource
from ourospec.families import PRESETS
from ourospec.families.spacing_mdn.diagnostics import diagnose
from ourospec.families.spacing_mdn.findings import DOCUMENT, take_sample
from ourospec.families.spacing_mdn.register_effects import best_of, loss_added, register_effects
from ourospec.families.spacing_mdn.register_vectors import centres, effective_rank, register_vectors
from ourospec.families.spacing_mdn.registers import Ablation, NoRegisters, PostfixRegisters, PrefixRegisters
from ourospec.families.spacing_mdn.transformer import TransformerConfig
from ourospec.measure.report.plot import Painter

PLACES = {
    "none": NoRegisters(),
    "prefix": PrefixRegisters(count=4),
    "postfix": PostfixRegisters(count=4),
}


def train(place, folder):
    """Two steps of a very small model on independent spacings."""
    recipe = PRESETS["spacing_mdn/smoke"]()
    changes = {"steps": 2, "window": 16, "eval_tokens": 20, "device": "cpu", "precision": "float32"}
    model = TransformerConfig(width=16, layers=2, heads=2, mlp_hidden=16, context=16, registers=place)
    recipe = recipe.model_copy(
        update={
            "train": recipe.train.model_copy(update=changes),
            "data": SpacingData(source=WignerSource(count=2_600), window=64),
            "model": model,
        }
    )
    api.train(recipe, folder)
    return api.open_fitted(folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return {name: train(place, tmp_path_factory.mktemp("run") / name) for name, place in PLACES.items()}


@pytest.fixture
def registers(runs):
    """The run with registers behind, its vectors large enough to matter; as it was afterwards."""
    fitted = runs["postfix"]
    before = {name: value.clone() for name, value in fitted.model.state_dict().items()}
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in fitted.model.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
    yield fitted
    fitted.model.load_state_dict(before)


def by_letter(findings):
    return {finding.letter: finding for finding in findings}


def effects(fitted, most=120):
    return by_letter(register_effects(take_sample(fitted, most, DOCUMENT, lambda _: None))[0])


def vectors(fitted, most=120):
    return by_letter(register_vectors(take_sample(fitted, most, DOCUMENT, lambda _: None))[0])


def test_the_best_of_many_is_not_overrated():
    generator, block = np.random.default_rng(0), np.arange(400) // 20
    found, naive = [], []
    for _ in range(60):
        noise = generator.normal(size=(8, 400))
        found.append(best_of(noise, block).value)
        naive.append(noise.mean(1).max())
    assert abs(np.mean(found)) < 4 * np.std(found) / 60**0.5
    assert np.mean(naive) > 10 * np.std(naive) / 60**0.5
    one = np.zeros((8, 400))
    one[5] = 0.3
    assert best_of(one, block) == (pytest.approx(0.3), pytest.approx(0))


def test_rank_and_centres_of_what_is_known():
    generator = np.random.default_rng(0)
    direction = generator.normal(size=32)
    assert effective_rank(generator.normal(size=(20, 8, 1)) * direction) == pytest.approx(1 / 32)
    assert effective_rank(generator.normal(size=(20, 8, 32))) > 0.7
    assert effective_rank(generator.normal(size=(1, 4, 32))) <= 1, "no more directions than rows, less one"
    weights = np.array([[0, 1.0, 0, 0], [1, 0, 0, 3.0]])
    assert centres(weights).tolist() == [1.0, 2.25]


@pytest.mark.parametrize("name", PLACES)
def test_every_kind_of_model_gets_the_table(runs, name, tmp_path):
    found = diagnose(runs[name], 60)
    findings = {one["letter"]: one for one in found["findings"]}
    assert list(findings)[:11] == list("ABCDEFGHIJK")
    json.dumps(found)
    missing = {letter for letter in "ABCDEFGHIJK" if findings[letter]["value"] is None}
    assert missing == {"none": set("ABCDEFIJK"), "prefix": set("DI"), "postfix": set()}[name]
    assert all(findings[letter]["passed"] is None for letter in missing)
    assert findings["primes"]["evidence"].startswith("prime powers heard")
    painter = Painter()
    for figure in runs[name].figures(found):
        painter.paint(figure, tmp_path / f"{figure.name}.png")
    drawn = {path.stem for path in tmp_path.iterdir()}
    assert {"pit", "rollout", "number-variance", "pair-correlation", "primes"} <= drawn
    assert ("attention" in drawn) == (name == "postfix")


def test_a_register_is_worth_what_is_lost_without_it(registers):
    sample = take_sample(registers, 120, DOCUMENT, lambda _: None)
    found = by_letter(register_effects(sample)[0])
    alone = [float(loss_added(sample, Ablation(slots_off=(slot,))).mean()) for slot in range(4)]
    assert found["A"].value <= max(alone) + 1e-9
    assert f"{alone[2]:+.4f}" in found["A"].evidence
    assert 0 < found["E"].value <= np.log(4) + 1e-9


def test_identities_that_are_alike_are_not_relied_upon(registers):
    assert abs(effects(registers)["J"].value) > 1e-4
    with torch.no_grad():
        registers.model.registers.ids.copy_(registers.model.registers.ids[:1].expand(4, -1).clone())
    found = effects(registers)
    assert found["J"].value == pytest.approx(0, abs=1e-7) and found["J"].passed
    assert vectors(registers)["B"].value > 0.2


def test_a_readout_of_one_register_and_registers_of_one_vector_fail(registers):
    with torch.no_grad():
        registers.model.readout.copy_(torch.tensor([20.0, 0, 0, 0]))
        for part in (registers.model.registers.content, registers.model.registers.ids):
            part.copy_(part[:1].expand(4, -1).clone())
    found = vectors(registers)
    assert found["D"].value < 0.01 and found["D"].passed is False
    assert found["B"].value == pytest.approx(1, abs=1e-6) and found["B"].passed is False
    with torch.no_grad():
        registers.model.readout.zero_()
    even = vectors(registers)["D"]
    assert even.value == pytest.approx(1) and even.passed and "hardly moved" in even.evidence


def test_gradients_are_those_of_the_loss(registers):
    """C and K rest on them: a step along a register's mean gradient changes the mean loss as foretold."""
    from ourospec.families.spacing_mdn.register_vectors import BATCHES, gradients_of

    sample = take_sample(registers, BATCHES * 4, DOCUMENT, lambda _: None)
    gradient = torch.from_numpy(gradients_of(sample).mean(0)).float()
    step = 1e-3 * gradient / gradient.norm()
    content = registers.model.registers.content
    share = registers.model.registers.config.lr_share
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            content.add_(sign * step / share)
        losses.append(take_sample(registers, BATCHES * 4, DOCUMENT, lambda _: None).losses.mean())
        with torch.no_grad():
            content.sub_(sign * step / share)
    assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(float(gradient.norm()), rel=0.02)


def test_several_runs_together(capsys):
    def one(value, passed):
        finding = {"letter": "A", "name": "worth", "value": value, "threshold": "≥ 0.02", "passed": passed}
        return {"findings": [finding]}

    found = [one(0.01, False), one(0.03, True), one(None, None)]
    (row,) = together(found)
    assert (row["mean"], row["passed"], row["judged"], row["runs"]) == (pytest.approx(0.02), 1, 2, 2)
    assert row["deviation"] == pytest.approx(0.02 / 2**0.5)
    show_together(found)
    assert "0.0200 ± 0.0141" in capsys.readouterr().out


def test_thresholds_are_the_documents_and_can_be_others(registers):
    sample = take_sample(registers, 60, DOCUMENT, lambda _: None)
    strict = sample._replace(thresholds=DOCUMENT.model_copy(update={"similarity": -1.0}))
    assert by_letter(register_vectors(strict)[0])["B"].passed is False
    assert replace(registers).name == registers.name
