"""AdamW over the groups of `parameter_groups`."""

from __future__ import annotations

import torch
from torch import nn

from ourospec.device import DevicePolicy
from ourospec.optim.config import OptimConfig
from ourospec.optim.groups import parameter_groups


def build_adamw(model: nn.Module, config: OptimConfig, policy: DevicePolicy) -> torch.optim.AdamW:
    """The optimiser of all trainable parameters; the learning rate is set anew before every step.

    Raises:
        ValueError: the model has no trainable parameter.
    """
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=policy.fused_optimizer,
    )
