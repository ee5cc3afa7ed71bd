"""The leak tests let honest models pass and catch each kind of leak."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch

from ourospec.claims.leaks import leak_tests
from ourospec.contracts import Effort

spec = importlib.util.spec_from_file_location(
    "miniature", Path(__file__).parents[1] / "contract" / "miniature.py"
)
miniature = importlib.util.module_from_spec(spec)
spec.loader.exec_module(miniature)

MODELS = {
    name: miniature.disagreeing(recipe, std=1.0).float()
    for name, recipe in miniature.miniatures(
        ["adaptive_lm/smoke", "adaptive_lm/tiny_fixed_2", "dense_lm/smoke"]
    ).items()
}
EFFORTS = {"adaptive_lm/smoke": Effort(threshold=0.5)}
TOKENS = torch.randint(128, (3, miniature.LENGTH), generator=torch.Generator().manual_seed(0))


def outcomes(model, effort=None):
    return {leak.name: leak for leak in leak_tests(model, TOKENS, effort)}


@pytest.mark.parametrize("name", MODELS)
def test_honest_models_pass_and_stay_as_they_are(name):
    model, before = MODELS[name], copy.deepcopy(MODELS[name].state_dict())
    found = outcomes(model, EFFORTS.get(name))
    assert len(found) == 4
    assert all(leak.held and not leak.note for leak in found.values()), found
    after = model.state_dict()
    assert all(
        torch.equal(value, after[key]) and after[key].dtype == value.dtype for key, value in before.items()
    )


class Leaky(torch.nn.Module):
    """A model whose states are changed by what it must not see."""

    def __init__(self, model, spoil):
        super().__init__()
        self.model, self.spoil, self.max_length = model, spoil, model.max_length

    def forward(self, tokens, documents=None, cache=None, effort=None):
        output = self.model(tokens, documents, cache=cache, effort=effort)
        return self.spoil(tokens, output, cache)

    def logits(self, states):
        return self.model.logits(states)

    def new_cache(self, batch, capacity):
        return self.model.new_cache(batch, capacity)


def small(tokens):
    return 1e-3 * tokens.double()


def from_later(tokens, output, cache):
    return output._replace(states=output.states + small(tokens).mean(1)[:, None, None])


def from_mates(tokens, output, cache):
    return output._replace(states=output.states + small(tokens).sum(0)[None, :, None])


def without_cache(tokens, output, cache):
    return output._replace(states=output.states * (1.001 if cache is not None else 1.0))


def depth_of_mates(tokens, output, cache):
    """The expert's trap: logits are right, but how long a token thinks depends on who is beside it."""
    passes = output.passes.clone()
    passes[:, int(tokens[:, 0].argmin())] += 1
    return output._replace(passes=passes)


@pytest.mark.parametrize(
    ("spoil", "caught"),
    [
        (from_later, "a changed suffix leaves the prefix alone"),
        (from_mates, "batch-mates change nothing"),
        (without_cache, "cached equals uncached"),
        (depth_of_mates, "batch-mates change nothing"),
    ],
)
def test_each_leak_is_caught(spoil, caught):
    found = outcomes(Leaky(MODELS["adaptive_lm/smoke"], spoil), Effort(threshold=0.5))
    assert not found[caught].held
    assert found[caught].difference > 1e-8 or found[caught].passes_differ > 0


def test_a_test_that_cannot_be_made_says_so():
    recipe = miniature.miniatures(["adaptive_lm/smoke"], kv="per_pass")["adaptive_lm/smoke"]
    found = outcomes(miniature.disagreeing(recipe, std=1.0), Effort(threshold=0.5))
    assert found["cached equals uncached"].note.startswith("not made: ")
    assert found["a changed suffix leaves the prefix alone"].held
