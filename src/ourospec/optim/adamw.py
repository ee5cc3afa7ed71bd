"""AdamW over the groups of `parameter_groups`."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import nn

from ourospec.device import DevicePolicy
from ourospec.optim.config import OptimConfig
from ourospec.optim.groups import parameter_groups


def build_adamw(
    model: nn.Module, config: OptimConfig, policy: DevicePolicy, without: Collection[nn.Parameter] = ()
) -> torch.optim.AdamW:
    """The optimiser of all trainable parameters, or of all but some.

    Args:
        without: parameters that are left to another optimiser.

    Raises:
        ValueError: the model has no trainable parameter.
    """
    return torch.optim.AdamW(
        parameter_groups(model, config.weight_decay, without),
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=policy.fused_optimizer,
    )
