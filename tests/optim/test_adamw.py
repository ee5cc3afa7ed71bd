"""AdamW as it is built here, against the update written out in float64."""

import torch
from torch import nn

from ourospec.device import DevicePolicy
from ourospec.optim.adamw import build_adamw
from ourospec.optim.config import OptimConfig

CPU = torch.device("cpu")


def test_three_updates_follow_the_equations() -> None:
    config = OptimConfig(lr=0.01, beta1=0.8, beta2=0.9, eps=1e-6, weight_decay=0.3)
    torch.manual_seed(0)
    model = nn.Linear(3, 2).double()
    optimizer = build_adamw(model, config, DevicePolicy(CPU, None, fused_optimizer=True))
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    mean = {name: torch.zeros_like(p) for name, p in expected.items()}
    square = {name: torch.zeros_like(p) for name, p in expected.items()}
    for t in range(1, 4):
        for name, parameter in model.named_parameters():
            gradient = torch.randn_like(parameter)
            parameter.grad = gradient
            mean[name] = 0.8 * mean[name] + 0.2 * gradient
            square[name] = 0.9 * square[name] + 0.1 * gradient**2
            decay = 0.3 if name == "weight" else 0.0
            direction = (mean[name] / (1 - 0.8**t)) / ((square[name] / (1 - 0.9**t)).sqrt() + 1e-6)
            expected[name] = expected[name] * (1 - 0.01 * decay) - 0.01 * direction
        optimizer.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), expected[name], rtol=1e-12, atol=1e-14)


def test_the_policy_decides_on_the_fused_kernel() -> None:
    for fused in (True, False):
        optimizer = build_adamw(nn.Linear(2, 2), OptimConfig(), DevicePolicy(CPU, None, fused))
        assert {group["fused"] for group in optimizer.param_groups} == {fused}


def test_every_parameter_type_moves() -> None:
    model = nn.ModuleDict(
        {
            "table": nn.Embedding(4, 3),
            "linear": nn.Linear(3, 3),
            "norm": nn.LayerNorm(3),
            "conv": nn.Conv1d(3, 3, 2),
        }
    )
    optimizer = build_adamw(model, OptimConfig(), DevicePolicy(CPU, None, fused_optimizer=True))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert all(not torch.equal(before[name], p) for name, p in model.named_parameters())
