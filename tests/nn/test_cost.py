"""Structural FLOPs agree with what torch's own counter sees being executed."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ourospec.nn.cost import ModelCost, matmul_flops


class _Twice(nn.Module):
    """Runs its linear layer twice, so its structure alone would tell half."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(self.inner(x))

    def flops_per_row(self) -> int:
        return int(2 * matmul_flops(self.inner))


def test_sum_equals_what_torch_counts() -> None:
    module = nn.Sequential(
        nn.Linear(12, 20), nn.GELU(), nn.LayerNorm(20), _Twice(20), nn.Linear(20, 7, bias=False)
    )
    rows = 5
    with FlopCounterMode(display=False) as counter:
        module(torch.randn(rows, 12))
    assert counter.get_total_flops() == rows * matmul_flops(module)


def test_a_module_that_counts_itself_is_not_looked_into() -> None:
    assert matmul_flops(_Twice(8)) == 2 * (2 * 8 * 8)


def test_a_look_up_is_free() -> None:
    assert matmul_flops(nn.Embedding(1000, 16)) == 0


def test_an_unexplained_matrix_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Conv1d\.weight"):
        matmul_flops(nn.Sequential(nn.Linear(4, 4), nn.Conv1d(4, 4, 3)))


def test_executed_counts_first_and_later_passes() -> None:
    cost = ModelCost(fixed=100.0, first_pass=(10.0, 20.0), later_pass=(4.0, 8.0))
    assert cost.uniform() == 130.0
    assert cost.executed([1.0, 3.0]) == 100 + 10 + 20 + 2 * 8
    assert cost.executed([1.5, 1.0]) == 100 + 10 + 0.5 * 4 + 20
    assert cost.uniform(2.0) == cost.executed([2.0, 2.0])


def test_layers_must_match() -> None:
    with pytest.raises(ValueError, match="2 layers"):
        ModelCost(0.0, (1.0, 2.0), (1.0,))
    with pytest.raises(ValueError, match="zip"):
        ModelCost(0.0, (1.0,), (1.0,)).executed([1.0, 1.0])
