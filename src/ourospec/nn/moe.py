"""A dropless mixture of experts: every token reaches all the experts it chose, however crowded they are."""

from __future__ import annotations

from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.nn.init import mark_by_entry
from ourospec.nn.mlp import SwiGLU


class MoEConfig(Config):
    """How many experts there are and how they are chosen."""

    experts: Annotated[int, Field(ge=2)] = 8
    """Routed experts."""
    top_k: Annotated[int, Field(ge=1)] = 2
    """Experts that each token visits."""
    hidden: Annotated[int, Field(ge=1)] = 512
    """Inner width of one expert."""
    shared_hidden: Annotated[int, Field(ge=0)] = 512
    """Inner width of the expert that every token visits; 0 for none."""
    balance: Annotated[float, Field(ge=0)] = 0.01
    """Weight of the load-balancing loss, per call of the layer."""

    @model_validator(mode="after")
    def _enough_experts(self) -> MoEConfig:
        if self.top_k > self.experts:
            raise ValueError(f"top_k ({self.top_k}) cannot be more than there are experts ({self.experts})")
        return self


class MoE(nn.Module):
    """y_t = shared(x_t) + Σ_{i in top-k} w_i expert_i(x_t), w = softmax of the router over the chosen ones.

    The balancing loss is E·Σ_i f_i·P_i (Fedus et al. 2021, arXiv 2101.03961, equation 4), f_i being the share
    of choices that fell on expert i and P_i the mean router probability; it is 1 when all are used equally.
    """

    def __init__(self, width: int, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        self.router = mark_by_entry(nn.Linear(width, config.experts, bias=False))
        self.experts = nn.ModuleList(SwiGLU(width, config.hidden) for _ in range(config.experts))
        self.shared = SwiGLU(width, config.shared_hidden) if config.shared_hidden else None

    def forward(
        self, x: Float[Tensor, "*rows D"], counted: Bool[Tensor, "*rows"] | None = None
    ) -> tuple[Float[Tensor, "*rows D"], Float[Tensor, ""]]:
        """The output, and the balancing loss already weighted, in nats.

        Args:
            counted: the rows that the balance is about; None: all.
        """
        rows = x.reshape(-1, x.shape[-1])
        wide = torch.promote_types(rows.dtype, torch.float32)
        # The router decides in float32: a rounding error here is a different expert, not a small difference.
        with torch.autocast(rows.device.type, enabled=False):
            scores = nn.functional.linear(rows.to(wide), self.router.weight.to(wide))
        probabilities = scores.softmax(-1)
        top, chosen = probabilities.topk(self.config.top_k, dim=-1)
        weights = top / top.sum(-1, keepdim=True)
        y = self._dispatch(rows, weights, chosen)
        if self.shared is not None:
            y = y + self.shared(rows)
        return y.view(x.shape), self.config.balance * self._imbalance(probabilities, chosen, counted)

    def _dispatch(self, rows: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """Sort the (token, expert) pairs by expert, run each expert on its rows, add the results back."""
        experts, order = chosen.flatten().sort(stable=True)
        tokens = order // self.config.top_k
        counts = torch.bincount(experts, minlength=self.config.experts).tolist()
        packed = rows[tokens]
        outputs = [run(part) for run, part in zip(self.experts, packed.split(counts), strict=True)]
        weighted = torch.cat(outputs) * weights.flatten()[order, None].to(outputs[0].dtype)
        # Unsort, then add each token's k results in the fixed order of its choices: the sum does not depend
        # on which other tokens are present.
        back = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
        return weighted[back].view(rows.shape[0], self.config.top_k, -1).sum(1)

    def _imbalance(self, probabilities: Tensor, chosen: Tensor, counted: Tensor | None) -> Tensor:
        weights = (
            torch.ones_like(probabilities[:, 0]) if counted is None else counted.flatten().to(probabilities)
        )
        total = weights.sum().clamp(min=1)
        votes = weights[:, None].expand_as(chosen).flatten()
        share = torch.bincount(chosen.flatten(), votes, minlength=self.config.experts) / (
            total * self.config.top_k
        )
        return (
            self.config.experts
            * (share.to(weights) * (weights[:, None] * probabilities).sum(0) / total).sum()
        )

    def flops_per_row(self) -> int:
        """Multiply-adds counted twice, for the experts that one token really visits."""
        width = self.router.in_features
        active = self.config.top_k * self.config.hidden + self.config.shared_hidden
        return 2 * width * self.config.experts + 6 * width * active
