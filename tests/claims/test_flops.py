"""Training FLOPs: as many as can be worked out by hand, and a run that does not notice being counted."""

import contextlib

import pytest
import torch
import torch.nn.functional as F

from ourospec.claims.flops import COUNTED, EVERY, CountedObjective, FlopCount
from ourospec.claims.training import read_trained, train_run
from ourospec.contracts import Clock, Step
from ourospec.data.files import FilesSource
from ourospec.data.text import open_text
from ourospec.families import PRESETS
from ourospec.nn.attention import Attention, AttentionConfig
from ourospec.nn.ragged import kernel, torch_only
from ourospec.nn.visibility import Visibility
from ourospec.recipe import TextRecipe
from ourospec.runs import RunDirectory
from ourospec.train.loop import fit
from ourospec.train.weights import load_weights


def test_matrix_products_forward_and_backward():
    a, b = torch.randn(5, 7, requires_grad=True), torch.randn(7, 3, requires_grad=True)
    with FlopCount() as counted:
        (a @ b).sum().backward()
    assert counted.total == 3 * 2 * 5 * 7 * 3


def test_nothing_but_matrix_products_counts():
    with FlopCount() as counted:
        torch.randn(50, 50).exp().add(1).sum()
    assert counted.total == 0


def test_products_in_place_count():
    total, a, b = torch.zeros(3, 5, 2), torch.randn(3, 5, 7), torch.randn(3, 7, 2)
    with FlopCount() as counted:
        total.baddbmm_(a, b)
        torch.zeros(5, 2).addmm_(a[0], b[0])
    assert counted.total == 2 * (3 * 5 * 7 * 2 + 5 * 7 * 2)


def test_attention_counts_scores_and_mixtures():
    query, key, value = (torch.randn(2, 3, 8, 4, requires_grad=True) for _ in range(3))
    with FlopCount() as counted:
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        forward = counted.total
        mixed.sum().backward()
    assert forward == 2 * 2 * (2 * 3 * 8 * 8 * 4)
    assert counted.total - forward == 5 * 2 * (2 * 3 * 8 * 8 * 4)


def test_our_kernel_counts_as_torchs():
    """The registry's convention for both: all pairs of queries and keys, seen or not."""
    if kernel(torch.float32) is None:
        pytest.skip("no kernel here: it takes AVX-512 and a C compiler")
    module, x = Attention(64, AttentionConfig(heads=2)), torch.randn(3, 64, 64, requires_grad=True)
    counts = []
    for only in (contextlib.nullcontext(), torch_only()):
        with only, FlopCount() as counted:
            module(x, Visibility(64, x.device)).sum().backward()
        counts.append(counted.total)
    assert counts[0] == counts[1] > 0


class Silent:
    """An objective that multiplies two matrices in every call."""

    def __call__(self, model, batch, carry, clock):
        return Step((torch.ones(2, 2) @ torch.ones(2, 2)).sum(), 1, {})

    def update(self, metrics, clock):
        return {"own": 1}

    def state_dict(self):
        return {"price": 3}

    def load_state_dict(self, state):
        raise AssertionError("not here")


def test_one_step_in_seven_is_counted_with_all_its_micro_batches():
    objective = CountedObjective(Silent(), steps=1_000)
    read = []
    for step in range(2 * EVERY):
        for _ in range(3):
            objective(None, None, None, Clock(step, 1_000))
        read.append(objective.update({}, Clock(step + 1, 1_000)))
    assert [at for at, one in enumerate(read) if COUNTED in one] == [0, EVERY]
    assert read[0] == {"own": 1, COUNTED: 3 * 16}
    assert objective.state_dict() == {"price": 3}


def small(tmp_path, preset, **train) -> TextRecipe:
    """A recipe of a few steps on a few lines."""
    folder = tmp_path / "text"
    folder.mkdir(exist_ok=True)
    for number in range(12):
        lines = "".join(f"def name_{number}_{line}(x):\n    return x + {line}\n" for line in range(10))
        (folder / f"{number}.py").write_text(lines)
    recipe = PRESETS[preset]()
    assert isinstance(recipe, TextRecipe)
    data = recipe.data.model_copy(
        update={
            "source": FilesSource(paths=(str(folder),)),
            "cache": str(tmp_path / "cache"),
            "heldout_fraction": 0.3,
        }
    )
    settings = {"steps": 4, "eval_every": 0, "sample_every": 0, "eval_tokens": 200, **train}
    return recipe.model_copy(update={"data": data, "train": recipe.train.model_copy(update=settings)})


def test_a_run_does_not_notice_being_counted(tmp_path):
    recipe = small(tmp_path, "adaptive_lm/smoke")
    plain = RunDirectory(tmp_path / "plain")
    fit(recipe.assemble(plain, []))
    trained = train_run(recipe, tmp_path / "runs")
    (counted,) = (tmp_path / "runs").iterdir()
    one, other = (load_weights(run)[0] for run in (plain, RunDirectory(counted)))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert trained is not None and trained.counted_steps == 4
    assert trained == read_trained(RunDirectory(counted)) == train_run(recipe, tmp_path / "runs")


@pytest.mark.parametrize(("precision", "products"), [("float32", 2 + 5), ("bfloat16", 2 + 4)])
def test_a_plain_model_costs_three_times_its_forward_pass(tmp_path, precision, products):
    """The fused kernel takes the scores anew on the way back, matrix products have kept them."""
    recipe = small(tmp_path, "dense_lm/smoke", steps=2, precision=precision, device="cpu")
    trained = train_run(recipe, tmp_path / "runs")
    assert trained is not None
    tokens = 2 * recipe.train.batch_size * recipe.train.window
    assert trained.tokens == tokens
    model = recipe.build_model(open_text(recipe.data).tokenizer)
    # All pairs of the one block that such a short window is.
    attention = recipe.model.layers * 2 * recipe.train.window * recipe.model.width
    assert trained.flops / tokens == 3 * model.cost(0.0).uniform(1.0) + products * attention


def test_more_passes_cost_more_training(tmp_path):
    recipes = [small(tmp_path, "adaptive_lm/tiny_fixed_1"), small(tmp_path, "adaptive_lm/tiny_fixed_2")]
    flops = []
    for recipe in recipes:
        model = recipe.model.model_copy(update={"width": 32, "layers": 2, "mlp_hidden": 64})
        data = recipe.data.model_copy(update={"tokenizer": PRESETS["dense_lm/smoke"]().data.tokenizer})
        train = recipe.train.model_copy(
            update={"steps": 1, "batch_size": 2, "micro_batch_size": 2, "window": 32}
        )
        trained = train_run(
            recipe.model_copy(update={"model": model, "data": data, "train": train}), tmp_path / "runs"
        )
        assert trained is not None
        flops.append(trained.flops)
    assert 1.4 < flops[1] / flops[0] < 2.0
