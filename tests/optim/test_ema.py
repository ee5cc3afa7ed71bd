"""The average of the weights."""

import pytest
import torch
from torch import nn

from ourospec.optim.ema import WeightAverage


def trained(decay: float, steps: int) -> tuple[nn.Linear, WeightAverage, list[torch.Tensor]]:
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    average = WeightAverage(model, decay)
    history = [model.weight.detach().clone()]
    for step in range(steps):
        with torch.no_grad():
            model.weight.add_(torch.randn_like(model.weight))
        average.update(step)
        history.append(model.weight.detach().clone())
    return model, average, history


def test_follows_the_recurrence_from_the_initial_weights() -> None:
    _, average, history = trained(0.3, 12)
    expected = history[0]
    for step, weight in enumerate(history[1:]):
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weight
    torch.testing.assert_close(average.tensors["weight"], expected, rtol=1e-12, atol=1e-12)


def test_swaps_in_and_back_to_the_last_bit_even_if_the_inside_fails() -> None:
    model, average, history = trained(0.9, 5)
    mean = average.tensors["weight"].clone()
    with pytest.raises(ZeroDivisionError), average.swapped():
        assert torch.equal(model.weight, mean)
        raise ZeroDivisionError
    assert torch.equal(model.weight, history[-1])
    assert torch.equal(average.tensors["weight"], mean)


def test_a_saved_average_comes_back() -> None:
    model, average, _ = trained(0.9, 5)
    saved = {name: tensor.clone() for name, tensor in average.tensors.items()}
    average.update(5)
    assert not torch.equal(average.tensors["weight"], saved["weight"])
    average.load(saved)
    assert torch.equal(average.tensors["weight"], saved["weight"])
    with pytest.raises(KeyError):
        average.load({"weight": model.weight})


def test_parameters_that_do_not_train_keep_their_values() -> None:
    model = nn.Linear(2, 2)
    model.bias.requires_grad_(False)
    average = WeightAverage(model, 0.5)
    average.update(0)
    assert torch.equal(average.tensors["bias"], model.bias)
