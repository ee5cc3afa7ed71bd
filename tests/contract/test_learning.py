"""What training has to do, over the families: five golden steps, a gradient for everything, no leak of targets."""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch

from ourospec.contracts import Clock
from ourospec.data.batch import TokenBatch

spec = importlib.util.spec_from_file_location("miniature", Path(__file__).parent / "miniature.py")
miniature = importlib.util.module_from_spec(spec)
spec.loader.exec_module(miniature)

GOLDEN = Path(__file__).parents[1] / "golden" / "five_steps.json"
TOKENIZER = miniature.tokenizer()
RECIPES = miniature.miniatures()
every_preset = pytest.mark.parametrize("name", RECIPES)


def random_batch(seed: int, rows: int = 4, length: int = 32, vocabulary: int = 128) -> TokenBatch:
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randint(vocabulary, (rows, length + 1), generator=generator)
    documents = torch.cumsum(torch.rand(rows, length, generator=generator) < 0.05, 1)
    return TokenBatch(stream[:, :-1], stream[:, 1:], documents, rows * length, rows * length)


def five_steps(name: str) -> dict[str, list[float]]:
    """Losses, gradient norms and mean passes of five plain SGD steps in float64, the last three with free gates."""
    torch.manual_seed(0)
    recipe = RECIPES[name]
    model, objective = recipe.build_model(TOKENIZER).double(), recipe.build_objective()
    trace: dict[str, list[float]] = {"loss": [], "gradient": [], "passes": []}
    for step in range(5):
        batch = random_batch(step)
        result = objective(model, batch, None, Clock(0 if step < 2 else 9, 10))
        loss = result.loss_sum / result.num_targets
        model.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= 0.1 * parameter.grad
        passes = result.metrics.get("mean_passes")
        trace["loss"].append(float(loss.detach()))
        trace["gradient"].append(float(norm))
        trace["passes"].append(float(passes.total / passes.weight) if passes else 1.0)
    return trace


@every_preset
def test_five_golden_steps(name):
    """A change of these numbers is a change of what is computed. Rewrite them with: python tests/golden/write.py"""
    golden = json.loads(GOLDEN.read_text())[name]
    found = five_steps(name)
    assert found.keys() == golden.keys()
    for key, values in golden.items():
        # float64 throughout; sums taken in another order on another machine lose a few of the last digits.
        assert found[key] == pytest.approx(values, rel=1e-9), key


@every_preset
def test_every_parameter_gets_a_gradient(name):
    torch.manual_seed(0)
    recipe = miniature.miniatures([name], threshold=0.001)[name]
    model, objective = recipe.build_model(TOKENIZER).double(), recipe.build_objective()
    if getattr(objective, "gated", False):
        objective.set_price(-1.0)  # as cheap as can be, so that the last pass is run, too
    # All 257 tokens occur, so that rows of tables count too.
    for seed, clock in ((0, Clock(0, 10)), (1, Clock(9, 10))):
        objective(model, random_batch(seed, vocabulary=257), None, clock).loss_sum.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None or float(p.grad.abs().max()) == 0]
    assert silent == []


@pytest.mark.parametrize("name", ["adaptive_lm/smoke", "dense_lm/smoke", "recursive_lm/smoke"])
def test_random_tokens_never_beat_their_entropy(name):
    """On fresh random tokens nobody can do better than ln V: a model that does has seen its targets."""
    torch.manual_seed(0)
    vocabulary, recipe = 16, RECIPES[name]
    model, objective = recipe.build_model(TOKENIZER), recipe.build_objective()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(150):
        batch = random_batch(step, rows=16, vocabulary=vocabulary)
        result = objective(model, batch, None, Clock(step, 150))
        losses.append(float(result.metrics["lm_loss"].total) / result.num_targets)
        optimizer.zero_grad()
        (result.loss_sum / result.num_targets).backward()
        optimizer.step()
    late = torch.tensor(losses[-30:])
    # 30 x 512 targets: the mean is known to about 0.003 nats.
    assert float(late.mean()) > math.log(vocabulary) - 0.005
    assert float(late.mean()) < math.log(vocabulary) + 0.1, "it must have learned which tokens occur at all"
