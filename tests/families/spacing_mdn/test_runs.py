"""Runs of spacing_mdn: bit-exact after a stop, ended by patience, opened again, and refused where they must be."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from ourospec import api
from ourospec.contracts import Clock, Event
from ourospec.data.spacings import Series, SpacingBatch, SpacingData, TableSource, WignerSource, open_spacings
from ourospec.errors import ConfigError, DataError, Interrupted
from ourospec.families import PRESETS
from ourospec.families.spacing_mdn.objective import DensityObjective, SpacingObjective
from ourospec.families.spacing_mdn.proxies import NAMES, ProxyTask, proxies
from ourospec.families.spacing_mdn.registers import NoRegisters, PostfixRegisters, PrefixRegisters, order_of
from ourospec.families.spacing_mdn.transformer import SpacingTransformer, TransformerConfig
from ourospec.recipe import Recipe
from ourospec.runs import RunDirectory
from ourospec.train.checkpoint import list_checkpoints

SMOKES = ("spacing_mdn/smoke", "spacing_mdn/smoke_tones")


def small(name: str, **changes) -> Recipe:
    """A preset over a few independent spacings, on one precision, for six steps."""
    recipe = PRESETS[name]()
    train = recipe.train.model_copy(
        update={
            "steps": 6,
            "save_every": 2,
            "eval_every": 3,
            "eval_tokens": 60,
            "device": "cpu",
            "precision": "float32",
        }
    )
    data = SpacingData(source=WignerSource(count=6_000))
    return recipe.model_copy(update={"train": train, "data": data, **changes})


class Pausing:
    """Asks for a stop when a step is finished."""

    def __init__(self, run: Path, step: int) -> None:
        self.run, self.step = run, step

    def on_event(self, event: Event) -> None:
        if event.kind == "step" and event.step == self.step:
            (self.run / ".pause").touch()

    def close(self) -> None:
        """Nothing is held open."""


def end_of(path: Path) -> dict[str, torch.Tensor]:
    last = list_checkpoints(RunDirectory(path))[-1]
    return {
        f"{file.name}:{name}": tensor
        for file in sorted(last.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


@pytest.mark.parametrize("name", SMOKES)
def test_a_stopped_run_ends_like_one_that_was_not(tmp_path, name):
    """With identities permuted and dropout, so that generators have to come back, too."""
    recipe = small(name)
    if recipe.model.kind == "transformer":
        place = PostfixRegisters(ids="permute_per_batch", task=ProxyTask(), dense_weight=0.5)
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"registers": place})})
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    api.train(recipe, whole)
    with pytest.raises(Interrupted):
        api.train(recipe, stopped, observers=[Pausing(stopped, 3)])
    assert api.train(recipe, stopped).status == "complete"
    one, other = end_of(whole), end_of(stopped)
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def test_patience_ends_a_run_before_its_time_and_for_good(tmp_path):
    recipe = small("spacing_mdn/smoke", patience=4)
    settings = recipe.train.model_copy(update={"steps": 400, "eval_every": 2})
    # So small a rate moves nothing, so the loss is its best at the first evaluation or soon after.
    recipe = recipe.model_copy(
        update={
            "train": settings,
            "optim": recipe.optim.model_copy(update={"lr": 1e-12, "warmup_fraction": 0.0}),
        }
    )
    finish = api.train(recipe, tmp_path / "run")
    assert finish.status == "complete" and 6 <= finish.step < 60
    events = list(RunDirectory(tmp_path / "run").read_events())
    assert "no held-out loss below" in events[-1]["stopped_early"]
    scored = {event["step"]: event["loss"] for event in events if event["kind"] == "eval"}
    best = min(scored, key=lambda step: (scored[step], step))
    assert finish.step - best >= 4 and finish.step - best < 4 + 2
    assert api.train(recipe, tmp_path / "run").status == "already complete"
    assert api.open_fitted(tmp_path / "run").origin.step == finish.step


def test_patience_has_one_meaning_under_either_name(tmp_path):
    """The recipes' own name came first, and stands in their run directories."""
    ends = {}
    for name in ("own", "shared"):
        recipe = small("spacing_mdn/smoke", **({"patience": 4} if name == "own" else {}))
        changes = {"steps": 100, "eval_every": 2, **({"patience": 4} if name == "shared" else {})}
        optim = recipe.optim.model_copy(update={"lr": 1e-12, "warmup_fraction": 0.0})
        train = recipe.train.model_copy(update=changes)
        recipe = recipe.model_copy(update={"train": train, "optim": optim})
        ends[name] = api.train(recipe, tmp_path / name).step
        written = json.loads((tmp_path / name / "recipe.json").read_text())
        assert (written["patience"], written["train"].get("patience")) == (
            (4, None) if name == "own" else (0, 4)
        )
    assert ends["own"] == ends["shared"] < 100
    with pytest.raises(ValidationError, match="they are one setting"):
        own = small("spacing_mdn/smoke", patience=4)
        type(own).model_validate({**dict(own), "train": own.train.model_copy(update={"patience": 5})})


def test_epochs_and_best_weights_of_spacings(tmp_path):
    recipe = small("spacing_mdn/smoke")
    changes = {"epochs": 0.5, "eval_every": 2, "keep_best": True}
    recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update=changes)})
    finish = api.train(recipe, tmp_path / "run")
    events = list(RunDirectory(tmp_path / "run").read_events())
    assert finish.step == json.loads((tmp_path / "run" / "recipe.json").read_text())["train"]["steps"]
    assert api.open_fitted(tmp_path / "run", which="best").origin.step == events[-1]["best_step"]


def test_evaluation_is_the_score_of_the_frozen_targets(tmp_path):
    run = tmp_path / "run"
    recipe = small("spacing_mdn/smoke")
    api.train(recipe, run)
    fitted = api.open_fitted(run)
    figures = fitted.evaluate()
    targets = fitted.targets
    past, heights = targets.looking_back(64)
    with torch.no_grad():
        found = fitted.model.predict(torch.from_numpy(past.astype(np.float32)), torch.from_numpy(heights))
        nats = -found.log_prob(torch.from_numpy(targets.target.astype(np.float32)))
    assert figures["loss"] == pytest.approx(float(nats.mean()), abs=1e-5)
    assert figures["targets"] == len(targets.target) and figures["loss_se"] > 0
    assert dict(fitted.rows(figures))["loss"].startswith(f"{figures['loss']:.4f}")
    with pytest.raises(ConfigError, match="does not read text"):
        api.load(run)


def test_other_spacings_than_those_of_the_training_are_refused(tmp_path):
    heights = np.cumsum(np.random.default_rng(0).gamma(4.0, 0.25, 6_000)) + 10
    table = tmp_path / "zeros.txt"
    np.savetxt(table, heights)
    recipe = small("spacing_mdn/smoke", data=SpacingData(source=TableSource(path=str(table), check=False)))
    api.train(recipe, tmp_path / "run")
    heights[-1] += 0.1
    np.savetxt(table, heights)
    with pytest.raises(DataError, match="no longer those of the training"):
        api.open_fitted(tmp_path / "run").evaluate()


def test_windows_that_do_not_fit_the_model_are_refused():
    for name, window in (("spacing_mdn/smoke", 65), ("spacing_mdn/smoke_tones", 100)):
        data = PRESETS[name]().model_dump()
        data["train"]["window"] = window
        with pytest.raises(ValidationError, match=r"train\.window"):
            Recipe.families["spacing_mdn"].model_validate(data)


@pytest.mark.parametrize("dense", [0.0, 0.7])
def test_the_objective_by_hand(dense):
    torch.manual_seed(0)
    place = PostfixRegisters(count=8, dense_weight=dense, task=ProxyTask(first_weight=0.5))
    config = TransformerConfig(
        width=16, layers=1, heads=2, mlp_hidden=16, context=12, dropout=0.0, registers=place
    )
    model = SpacingTransformer(config)
    past = torch.rand(3, 12) + 0.5
    heights = 1e4 + torch.cat([torch.zeros(3, 1), past], dim=1).cumsum(1).double()
    batch = SpacingBatch(past, heights, torch.tensor([[1.0], [0.8], [1.3]]))
    step = SpacingObjective(DensityObjective(entropy_weight=0.1), place)(
        model, batch, None, Clock(250, 1_000)
    )
    found = model(past, heights, each=True)
    wanted = -found.last.log_prob(batch.targets[:, 0]).sum() - 0.1 * found.last.weight_entropy().sum()
    for t in range(11):
        wanted = wanted - dense / 11 * found.each.at((slice(None), t)).log_prob(past[:, t + 1]).sum()
    # Half way up the first ramp, which ends at 0.5.
    wanted = wanted + 0.25 * model.proxies(found.slots, past, place.task)
    torch.testing.assert_close(step.loss_sum, wanted)
    assert step.num_targets == 3


def test_identities_are_permuted_once_a_step_however_many_rows_go_at_once():
    """And as a function of (seed, step) alone, so that a resumed run has the same."""
    torch.manual_seed(0)
    place = PostfixRegisters(count=8, ids="permute_per_batch")
    config = TransformerConfig(
        width=16, layers=1, heads=2, mlp_hidden=16, context=12, dropout=0, registers=place
    )
    model = SpacingTransformer(config).train()
    torch.nn.init.normal_(model.registers.ids)
    past = torch.rand(4, 12) + 0.5
    heights = 1e4 + torch.cat([torch.zeros(4, 1), past], dim=1).cumsum(1).double()
    objective = SpacingObjective(DensityObjective(), place, seed=3)

    def loss(rows: slice, step: int) -> torch.Tensor:
        batch = SpacingBatch(past[rows], heights[rows], past[rows, :1])
        return objective(model, batch, None, Clock(step, 10)).loss_sum.detach()

    torch.testing.assert_close(loss(slice(0, 2), 5) + loss(slice(2, 4), 5), loss(slice(None), 5))
    assert len({float(loss(slice(None), step)) for step in range(6)}) > 3
    orders = {order_of(8, 3, step) for step in range(200)}
    assert len(orders) > 190 and all(sorted(order) == list(range(8)) for order in orders)
    firsts = np.bincount([order[0] for order in orders], minlength=8)
    assert firsts.min() > 8, "every identity comes to every register"


@pytest.mark.parametrize("place", [PostfixRegisters(task=ProxyTask()), PrefixRegisters(), NoRegisters()])
def test_head_and_loss_are_float32_under_autocast(place):
    """Inputs, readout, head and auxiliary task; what is between them may be bfloat16."""
    torch.manual_seed(0)
    config = TransformerConfig(width=16, layers=1, heads=2, mlp_hidden=16, context=12, registers=place)
    model, made = SpacingTransformer(config), {}

    def note(name):
        return lambda module, inputs, output: made.update({name: (inputs[0].dtype, output)})

    for name in ("inputs", "norm", "proxies"):
        if getattr(model, name) is not None:
            getattr(model, name).register_forward_hook(note(name))
    model.head.out.register_forward_hook(note("head"))
    past = torch.rand(3, 12) + 0.5
    heights = 1e4 + torch.cat([torch.zeros(3, 1), past], dim=1).cumsum(1).double()
    with torch.autocast("cpu", torch.bfloat16):
        batch = SpacingBatch(past, heights, past[:, :1])
        step = SpacingObjective(DensityObjective(), place)(model, batch, None, Clock(2_000, 10_000))
    assert step.loss_sum.dtype == torch.float32
    exact = made["inputs"][1]
    torch.testing.assert_close(
        exact, torch.nn.functional.linear(past[..., None], model.inputs.weight, model.inputs.bias)
    )
    assert made["head"][0] == torch.float32 and made["head"][1].dtype == torch.float32
    states = made["norm"][1]
    assert states.dtype == torch.float32
    if model.proxies is not None:
        with torch.no_grad():
            read = torch.nn.functional.linear(
                states[:, 12:], model.proxies.out.weight, model.proxies.out.bias
            )
            wanted = (proxies(past) - model.proxies.mean) / model.proxies.scale
            by_hand = (read.mean(1) - wanted).square().mean(1).sum()
        torch.testing.assert_close(made["proxies"][1].detach(), by_hand, rtol=1e-6, atol=0)


def test_the_documents_sizes():
    """6 layers, 8 heads, D = 256, K = 8: "about 4.8 M", counted by hand."""
    width, layers, components, registers = 256, 6, 8, 8
    block = 4 * width**2 + 2 * 4 * width**2 + 2 * width  # attention, MLP, two gains
    plain = layers * block + width + 2 * width + 256 * width  # last gain, Linear(1, D), positions
    plain += 3 * components * width + 3 * components  # head
    memory = 3 * registers * width  # content, identities, positions
    sizes = {"e0": plain, "e1": plain + memory, "e2": plain + memory}
    sizes["e3"] = plain + memory + registers  # the readout's weights
    sizes["e4"] = sizes["e3"] + 8 * width + 8  # Linear(D, 8) of the auxiliary task
    for name, size in sizes.items():
        model = PRESETS[f"spacing_mdn/{name}"]().build_model()
        assert sum(parameter.numel() for parameter in model.parameters()) == size, name
    assert round(plain / 1e6, 1) == 4.8


def test_experiments_differ_only_where_the_document_says():
    recipes = {name: PRESETS[f"spacing_mdn/{name}"]().model_dump() for name in ("e0", "e1", "e2", "e3", "e4")}
    tiny = {name: PRESETS[f"spacing_mdn/{name}_tiny"]().model_dump() for name in recipes}

    def differ(one, other, at=()):
        if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
            return {place for key in one for place in differ(one[key], other[key], (*at, key))}
        return set() if one == other else {".".join(at)}

    for made in (recipes, tiny):
        assert differ(made["e0"], made["e1"]) == {"name", "model.registers"}
        assert differ(made["e1"], made["e2"]) == {"name", "seed"}
        assert differ(made["e3"], made["e4"]) == {
            "name",
            "patience",
            "model.registers.ids",
            "model.registers.task",
        }


def test_the_ramp_of_the_auxiliary_task():
    weights = [ProxyTask().weight_at(step) for step in (0, 250, 500, 1_750, 3_000, 9_000)]
    assert weights == pytest.approx([0, 5e-4, 1e-3, 5.5e-3, 1e-2, 1e-2])


@pytest.mark.parametrize("split", ["tail", "interleaved"])
@pytest.mark.parametrize("name", SMOKES)
def test_nothing_of_the_heldout_side_reaches_what_is_trained(name, split, monkeypatch):
    """Tones, standardisation and batches: the same, whatever the held-out zeros are."""
    recipe = small(name, data=SpacingData(source=WignerSource(count=6_000), split=split, block=300))
    if recipe.model.kind == "transformer":
        registers = PostfixRegisters(task=ProxyTask())
        recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update={"registers": registers})})
    dataset, found = open_spacings(recipe.data), []
    nonsense = [Series(series.heights * np.nan, series.spacings * np.nan) for series in dataset.heldout]
    for opened in (dataset, replace(dataset, heldout=nonsense)):
        monkeypatch.setattr(
            "ourospec.families.spacing_mdn.recipe.open_spacings", lambda *_, opened=opened: opened
        )
        job = recipe.assemble(RunDirectory(Path("nowhere")), [], None)
        found.append((job.model.state_dict(), job.stream))
    (one, ours), (other, theirs) = found
    assert [key for key in one if not torch.equal(one[key], other[key])] == []
    for step in (0, 40):
        for a, b in zip(ours.batches(step), theirs.batches(step), strict=True):
            assert torch.equal(a.past_heights, b.past_heights) and torch.equal(a.targets, b.targets)


def test_the_mixture_is_a_density():
    """Against a plain sum over components, and its integral by a fine grid."""
    model = SpacingTransformer(
        TransformerConfig(width=16, layers=1, heads=2, mlp_hidden=16, context=8)
    ).eval()
    past = torch.rand(1, 8)
    heights = 1e4 + torch.cat([torch.zeros(1, 1), past], dim=1).cumsum(1)
    with torch.no_grad():
        found = model.predict(past, heights)
    grid = torch.linspace(-4, 7, 20_001)
    density = torch.exp(found.at(0).log_prob(grid)) if found.means.shape[0] == 1 else None
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1.0, abs=1e-4)
    pi, mu, sigma = (tensor[0].double() for tensor in (found.log_weights.exp(), found.means, found.scales))
    by_hand = sum(
        p * math.exp(-0.5 * ((0.9 - m) / s) ** 2) / (s * math.sqrt(2 * math.pi))
        for p, m, s in zip(pi.tolist(), mu.tolist(), sigma.tolist(), strict=True)
    )
    assert float(found.log_prob(torch.tensor([0.9])).exp()) == pytest.approx(by_hand, rel=1e-5)


def test_the_proxies_by_their_definitions():
    x = torch.rand(4, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2
    guide, original = (dict(zip(NAMES, proxies(x, who).T, strict=True)) for who in ("guide", "original"))
    for row in range(4):
        window = x[row].numpy()
        dx, bend = np.diff(window), np.diff(window, 2)
        assert guide["mean"][row] == pytest.approx(window.mean() - 1)
        assert guide["roughness"][row] == pytest.approx(np.abs(dx).max())
        assert guide["floor"][row] == pytest.approx(np.quantile(window, 0.01))
        assert guide["curvature"][row] == pytest.approx(np.abs(bend).mean())
        shares = np.histogram(window, 16, (0, 4))[0] / 64
        assert guide["entropy"][row] == pytest.approx(-sum(p * math.log(p) for p in shares if p))
        stairs = np.cumsum(window)
        line = np.polyval(np.polyfit(np.arange(64), stairs, 1), np.arange(64))
        assert guide["rigidity"][row] == pytest.approx(np.mean((stairs - line) ** 2))
        power = np.abs(np.fft.rfft(dx - dx.mean())) ** 2
        assert guide["high frequency"][row] == pytest.approx(power[-8:].sum() / power.sum())
        assert original["entropy"][row] == pytest.approx(
            0.5 * math.log(2 * math.pi * math.e * window.var(ddof=1))
        )
        assert original["halves"][row] == pytest.approx(abs(window[:32].mean() - window[32:].mean()))
        assert original["high frequency"][row] == pytest.approx(np.mean(bend**2))
        parts = window.reshape(4, 16).var(axis=1, ddof=1)
        assert original["rigidity"][row] == pytest.approx(parts.var(ddof=1))
    assert (guide["halves"] >= 0).all() and (guide["halves"] <= math.log(2)).all()
