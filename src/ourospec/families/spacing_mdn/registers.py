"""Memory registers: learned tokens before or behind the spacings, and what may be taken away from them.

Letters: B rows, T spacings, M registers, D model width.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.errors import ConfigError
from ourospec.families.spacing_mdn.proxies import NoProxies, ProxyConfig
from ourospec.nn.visibility import Visibility

SlotIds = Literal["fixed", "off", "permute_per_batch"]
Content = Literal["normal", "zeroed"]


class NoRegisters(Config):
    """Spacings alone (E0)."""

    kind: Literal["none"] = "none"
    """Where registers stand."""


class PrefixRegisters(Config):
    """[M_1 … M_M, s_1 … s_T] (E1, E2): the spacings see the registers, the registers only each other."""

    kind: Literal["prefix"] = "prefix"
    """Where registers stand."""
    count: Annotated[int, Field(ge=1)] = 8
    """M."""
    ids: SlotIds = "fixed"
    """Which identity vector a register carries: its own, none, or in training a random one for each batch."""
    content: Content = "normal"
    """Whether registers have a content of their own besides their identity."""
    lr_share: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Learning rate of the registers as a share of the model's. They are kept divided by it, which under Adam is the
    same thing, but for weight decay, of which they take the whole share."""


class PostfixRegisters(Config):
    """[s_1 … s_T, M_1 … M_M] (E3, E4): the registers see everything, and the prediction is read from them alone."""

    kind: Literal["postfix"] = "postfix"
    """Where registers stand."""
    count: Annotated[int, Field(ge=1)] = 8
    """M."""
    ids: SlotIds = "fixed"
    """Which identity vector a register carries: its own, none, or in training a random one for each batch."""
    content: Content = "normal"
    """Whether registers have a content of their own besides their identity."""
    lr_share: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Learning rate of the registers as a share of the model's. They are kept divided by it, which under Adam is the
    same thing, but for weight decay, of which they take the whole share."""
    anonymous: bool = False
    """Registers share one position and do not see each other, so that nothing but content, identity and the readout's
    weight tells them apart; as documented, position and causal order do, whatever the identities."""
    task: ProxyConfig = NoProxies()
    """What the registers are asked to know besides."""
    dense_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the loss at all spacings (predicted by the same head) beside the one target behind the registers."""


RegisterConfig = Annotated[NoRegisters | PrefixRegisters | PostfixRegisters, Field(discriminator="kind")]


class Ablation(NamedTuple):
    """What is taken from the registers for one forward pass; the default takes nothing."""

    slots_off: tuple[int, ...] = ()
    """Registers, from 0, whose input vector (content and identity, not the position) is replaced."""
    replacement: Literal["zero", "mean"] = "zero"
    """By what: zeros, which the model has never seen there, or the mean vector of all registers."""
    content: Content | None = None
    """None leaves the content as configured."""
    ids: SlotIds | None = None
    """None leaves the identities as configured."""
    id_order: tuple[int, ...] | None = None
    """Which identity each register carries, a permutation of 0 to M − 1. None: in order."""


def order_of(count: int, seed: int, step: int) -> tuple[int, ...]:
    """The identities that registers carry in a training step with `permute_per_batch`: one order for all its rows,
    however many go through the model at once.

    From Philox at a counter that the stream of windows never reaches; raw output, sorted, which NumPy keeps for ever.
    """
    bits = np.random.Philox(key=np.array([seed, step], np.uint64), counter=np.array([0, 0, 0, 1], np.uint64))
    return tuple(np.argsort(bits.random_raw(count), kind="stable").tolist())


class Registers(nn.Module):
    """Content (one vector for each register) plus identity (one vector for each name that a register can carry)."""

    def __init__(self, config: PrefixRegisters | PostfixRegisters, width: int) -> None:
        super().__init__()
        self.config = config
        shape = (config.count, width)
        self.content = nn.Parameter(torch.zeros(shape), requires_grad=config.content == "normal")
        self.ids = nn.Parameter(torch.zeros(shape), requires_grad=config.ids != "off")

    def init_parameters(self) -> None:
        """Content small and random; identities orthogonal, set last, so that nothing overwrites them."""
        nn.init.normal_(self.content, std=0.02)
        nn.init.orthogonal_(self.ids, gain=0.02 * self.ids.shape[1] ** 0.5)
        for vectors in (self.content, self.ids):
            vectors.div_(self.config.lr_share)

    def forward(self, ablation: Ablation) -> Float[Tensor, "M D"]:
        """The registers' input vectors.

        Raises:
            ConfigError: an ablation that names registers which are not there, or an order that is no permutation.
        """
        count = self.config.count
        if any(not 0 <= slot < count for slot in ablation.slots_off):
            raise ConfigError(
                f"Registers are numbered 0 to {count - 1}; {ablation.slots_off} were to be off."
            )
        content = ablation.content or self.config.content
        vectors = self.content if content == "normal" else torch.zeros_like(self.content)
        if (ablation.ids or self.config.ids) != "off":
            vectors = vectors + self.ids[self._order(ablation)]
        vectors = vectors * self.config.lr_share
        if ablation.slots_off:
            off = torch.zeros(count, 1, dtype=torch.bool, device=vectors.device)
            off[list(ablation.slots_off)] = True
            mean = (
                vectors.mean(0, keepdim=True) if ablation.replacement == "mean" else torch.zeros_like(vectors)
            )
            vectors = torch.where(off, mean, vectors)
        return vectors

    def _order(self, ablation: Ablation) -> list[int]:
        count = self.config.count
        if ablation.id_order is not None:
            if sorted(ablation.id_order) != list(range(count)):
                raise ConfigError(f"{ablation.id_order} is no order of the numbers 0 to {count - 1}.")
            return list(ablation.id_order)
        return list(range(count))


class AnonymousRegisters(Visibility):
    """As causal attention, but the last `registers` positions see each only all spacings and itself."""

    def __init__(self, length: int, registers: int, device: torch.device) -> None:
        super().__init__(length, device)
        self.registers = registers

    def is_plain_causal(self, window: int) -> bool:
        """Never: the registers do not see each other."""
        del window
        return False

    def allowed(self, window: int) -> Bool[Tensor, "b T S"]:
        """True where a query may look."""
        allowed = super().allowed(window).clone()
        spacings = self.length - self.registers
        own = torch.eye(self.registers, dtype=torch.bool, device=self.device)
        allowed[:, spacings:, spacings:] = own
        return allowed
