"""The pass loop: a layer that every token runs through as often as its gate wants.

Letters: B rows, T positions, D width. `s` is a token's survival: the product of its gates so far.

The keys and values come from the layer's first input and stay (`kv="first"`). A later pass therefore needs of a
token only its own state and those keys and values: nothing that other tokens do in their later passes reaches it,
which is what makes leaving early exact, cached decoding equal to the full forward pass, and compaction possible.
"""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from ourospec.config import Config
from ourospec.contracts import Effort, Rehearsal
from ourospec.nn.attention import Attention, AttentionConfig
from ourospec.nn.cache import Cache, KeyValues
from ourospec.nn.compaction import Compacting, Everyone, Gathering, Packed, pays
from ourospec.nn.cost import matmul_flops
from ourospec.nn.effort import limits
from ourospec.nn.gate import ContinueGate, Feature, Update, read_out
from ourospec.nn.init import mark_by_entry
from ourospec.nn.layer_trace import LayerTrace, Record
from ourospec.nn.ledger import Ledger
from ourospec.nn.matmul_attention import share
from ourospec.nn.mlp import Activation, build_mlp
from ourospec.nn.moe import MoE, MoEConfig
from ourospec.nn.norm import RMSNorm
from ourospec.nn.visibility import Visibility

BATCH_EXIT_SHARE = 0.02


class DepthConfig(Config):
    """How often a layer may run and what decides it."""

    max_passes: Annotated[int, Field(ge=1, le=64)] = 4
    """Passes that a token can run in a layer."""
    scales: tuple[float, ...] = (1.0, 0.7, 0.5, 0.35)
    """What each pass's update is multiplied by; one number per pass."""
    learned_passes: bool = False
    """Whether each pass after the first has gains of its own, by which it reads and writes the stream (two vectors,
    which begin at 1 and at the pass's scale). The weights are shared, and without this a further pass can but repeat
    what the first did: it unlearns to help where few tokens run it."""
    networks: Literal["shared", "own"] = "shared"
    """Whether all passes run the same position-wise network, or each later pass one of its own, as wide; attention is
    shared in any case. A network that has to serve all passes learns little for the later ones (docs/log.md)."""
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.10
    """Survival under which a token leaves the layer."""
    halting: Literal["token", "batch", "fixed"] = "token"
    """token: each leaves for itself; fixed: all run every pass, without a gate; batch: the rule of Ouro-Spec's
    documentation, where tokens under the threshold go on being updated until at most 2% of the batch are above
    it. That rule looks at batch-mates and later tokens; it holds in training only, for comparison, and a model
    trained with it is scored and decoded by the token rule."""
    by_layer: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Under halting fixed: passes of each layer, where they differ; empty for max_passes in all."""
    kv: Literal["first", "per_pass"] = "first"
    """Keys and values from the layer's first input, or anew in each pass (then without cached decoding)."""
    features: tuple[Feature, ...] = ("state", "update", "direction")
    """What the gate sees, besides the number of the pass."""
    gate_width: Annotated[int, Field(ge=1)] = 16
    """Projections of a token's state, and as many of its update, that the gate sees: most of what a gate costs."""
    gate_bias: float = -2.0
    """Initial bias of the gate's output; −2 makes its probability about 0.12."""
    weight: Literal["survival", "full"] = "survival"
    """What a pass after the first weighs in the stream: the token's survival, through which the loss reaches the
    gates, or all of its scale, for gates that are taught otherwise (objective.credit gain)."""

    @model_validator(mode="after")
    def _one_scale_per_pass(self) -> DepthConfig:
        if len(self.scales) < self.max_passes:
            raise ValueError(f"{self.max_passes} passes need as many scales; {len(self.scales)} were given")
        return self

    @model_validator(mode="after")
    def _by_layer_is_fixed(self) -> DepthConfig:
        if self.by_layer and (self.halting != "fixed" or max(self.by_layer) != self.max_passes):
            raise ValueError("by_layer is for halting fixed, and its greatest number is max_passes")
        return self

    def of_layer(self, index: int) -> DepthConfig:
        """As the layer of that number sees it, from 0."""
        if not self.by_layer:
            return self
        return self.model_copy(update={"by_layer": (), "max_passes": self.by_layer[index]})

    @model_validator(mode="after")
    def _dead_by_their_survival(self) -> DepthConfig:
        if self.halting == "batch" and self.weight == "full":
            raise ValueError("halting batch goes on updating the dead by their survival: set weight survival")
        return self


class AdaptiveLayer(Compacting):
    """h ← h + s·α_k·u_k for k = 1..K, u_k = a + MLP(norm(h + a)), a = Attention(norm(h); KV of the first input).

    After pass k the gate gives p_k and s ← s·p_k; under the token rule a token with s below the threshold leaves
    and neither computes nor changes any more: compaction.py.
    """

    def __init__(
        self,
        width: int,
        attention: AttentionConfig,
        mlp_hidden: int,
        activation: Activation,
        depth: DepthConfig,
        moe: MoEConfig | None = None,
    ) -> None:
        super().__init__()
        self.depth = depth
        self.attention_norm, self.mlp_norm = RMSNorm(width), RMSNorm(width)
        self.attention = Attention(width, attention)

        def network() -> nn.Module:
            return MoE(width, moe) if moe else build_mlp(activation, width, mlp_hidden)

        later = range(1, depth.max_passes)
        own, gains = (later if depth.networks == "own" else ()), (later if depth.learned_passes else ())
        self.mlp = network()
        self.later_mlps = nn.ModuleList(network() for _ in own)
        self.reads = nn.ParameterList(nn.Parameter(torch.ones(width)) for _ in gains)
        self.writes = nn.ParameterList(nn.Parameter(torch.full((width,), depth.scales[k])) for k in gains)
        gated = depth.halting != "fixed" and depth.max_passes > 1
        self.gate = None
        if gated:
            gate = ContinueGate(width, depth.max_passes, depth.features, depth.gate_bias, depth.gate_width)
            self.gate = mark_by_entry(gate)

    def forward(
        self,
        h: Float[Tensor, "B T D"],
        visibility: Visibility,
        effort: Effort,
        cache: tuple[Cache, int] | None = None,
    ) -> tuple[Float[Tensor, "B T D"], LayerTrace, Tensor | None]:
        """The new state, the trace, and the sum of the passes' auxiliary losses (None without a router).

        Args:
            effort: passes for this call, where they differ from the configuration.
            cache: the decoding cache and this layer's number in it.
        """
        limit, forced = limits(effort, h.shape[:2], self.depth.max_passes, gated=self.gate is not None)
        rehearsal = effort.training
        asked = self._asks(effort, forced)
        ledger = Ledger(h, self.depth.threshold if effort.threshold is None else effort.threshold)
        record, gathering = Record(), Gathering(h, visibility)
        kv, previous = None, None
        for index in range(limit):
            if index and not forced and not self._by_batch:
                alive, widest = ledger.remaining()
                if not alive:
                    break
                self._narrow(gathering, ledger, alive, widest, visibility, previous)
            company, x = gathering.company, gathering.x
            entering = ledger.enter(dead_too=self._by_batch)
            state = self.attention_norm(x, self._read(index))
            queries, kv = self._queries(state, kv, company, cache)
            change, loss = self._update(index, x, queries, kv, company, ledger.alive)
            if loss is not None:
                record.losses.append(loss)
            update = Update(index, state, x, change, previous)
            weight = ledger.alive if self.depth.weight == "full" else entering
            # Of packed tokens all are alive.
            whole = index == 0 or (weight is ledger.alive and isinstance(company, Packed))
            gathering.x = x + (change if whole else company.take(weight)[..., None] * change)
            if rehearsal is not None:
                record.relative.append(company.spread(update.relative))
                if index == 0:
                    record.first = gathering.x.detach()
                    record.entropy = self._entropy(queries, kv, visibility, rehearsal.watched_rows)
            p = None
            if asked and index < self.depth.max_passes - 1:
                p, bid = (company.spread(one) for one in self._continue(update, effort, queries, kv, company))
                if not self._by_batch and not forced:
                    # Of those who have left nobody asked; what was computed of them along with others is no one's.
                    p, bid = p * ledger.alive, bid * ledger.alive
                record.gates.append(p)
                record.bids.append(bid)
                previous = update
            if self._settle(ledger, effort, p, forced):
                break
        aux = sum(record.losses[1:], record.losses[0]) if record.losses else None
        return gathering.everyone(), record.trace(ledger), aux

    @property
    def _by_batch(self) -> bool:
        return self.depth.halting == "batch" and self.training

    def _asks(self, effort: Effort, forced: bool) -> bool:
        """Whether the gates are asked: because they decide, because they weigh, or because they are taught."""
        if effort.plan is not None:
            return self.gate is not None and self.depth.weight == "survival"
        return not forced or (effort.training is not None and self.gate is not None)

    def _narrow(
        self,
        gathering: Gathering,
        ledger: Ledger,
        alive: int,
        widest: int,
        visibility: Visibility,
        previous: Update | None,
    ) -> None:
        """Go on with those who are left alone, where that is faster; who were packed once stay packed."""
        if self.execution == "masked" or self.depth.kv != "first":
            return
        company = gathering.company
        if isinstance(company, Packed):
            if len(company.tokens) == alive:
                return
        elif self.execution == "auto":
            width = self.attention.out.in_features
            if not pays((alive, widest), visibility, len(ledger.alive), width, self._row_flops):
                return
        index = gathering.narrow(Packed(ledger.alive, alive, widest, visibility))
        if previous is not None:
            previous.narrow(index)

    def _settle(self, ledger: Ledger, effort: Effort, p: Tensor | None, forced: bool) -> bool:
        """Let those go who are done; whether the batch ends here, which by the token rule it never does.

        Args:
            p: [B, T], what the gates say, where they were asked.
        """
        if effort.plan is not None:
            ledger.follow(effort.plan, p)
        elif p is None:
            return False
        elif forced:
            if self.depth.weight == "survival":
                ledger.stay(p)
        else:
            rehearsal = effort.training or Rehearsal()
            # By batch the dead are updated anyway: there is nothing to explore.
            ledger.leave(p, 0.0 if self._by_batch else rehearsal.exploration, rehearsal.audited)
            return self._by_batch and bool(ledger.alive.float().mean() <= BATCH_EXIT_SHARE)
        return False

    def _read(self, index: int) -> Float[Tensor, " D"] | None:
        """The gains by which the pass reads the stream, where it has its own."""
        return self.reads[index - 1] if index and self.depth.learned_passes else None

    def _queries(
        self,
        state: Tensor,
        kv: KeyValues | None,
        company: Everyone | Packed,
        cache: tuple[Cache, int] | None,
    ) -> tuple[Tensor, KeyValues]:
        """[B, H, T, d] or [1, H, N, d], and the keys and values that they read."""
        if kv is not None and self.depth.kv == "first":
            return company.query(self.attention, state), kv
        queries, kv = self.attention.project(state, company.visibility)
        if cache is not None:
            kv = cache[0].extend(cache[1], kv)
        return queries, KeyValues(*share(*kv))

    def _update(
        self,
        index: int,
        x: Tensor,
        queries: Tensor,
        kv: KeyValues,
        company: Everyone | Packed,
        alive: Tensor,
    ) -> tuple[Tensor, Tensor | None]:
        """α_k·u_k [*rows, D], from a token's own state and queries and the layer's keys and values."""
        attended = company.attend(self.attention, queries, kv)
        inner, loss = self.mlp_norm(x + attended, self._read(index)), None
        mlp = self.later_mlps[index - 1] if index and self.later_mlps else self.mlp
        if isinstance(mlp, MoE):
            inner, loss = mlp(inner, company.take(alive))
        else:
            inner = mlp(inner)
        update = attended + inner
        if index and self.depth.learned_passes:
            return self.writes[index - 1] * update, loss
        scale = self.depth.scales[index]
        return (update if scale == 1.0 else scale * update), loss

    def _continue(
        self, update: Update, effort: Effort, queries: Tensor, kv: KeyValues, company: Everyone | Packed
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows"]]:
        """The probability of going on, and its logit before floor and ceiling."""
        if effort.readout is not None:
            p = read_out(effort.readout, update)
            return p, torch.logit(p, eps=1e-6)
        assert self.gate is not None
        seen = None
        if self.gate.uses_attention:
            still = KeyValues(kv.keys.detach(), kv.values.detach())
            seen = company.statistics(self.attention, queries.detach(), still)
        bid = self.gate(update, seen)
        p = bid.sigmoid()
        if effort.training is not None:
            # The value is held at the floor, the gradient is not: a closed gate can still be opened.
            p = p.clamp(max=effort.training.ceiling)
            p = p + (p.clamp(min=effort.training.floor) - p).detach()
        return p, bid

    @torch.no_grad()
    def _entropy(
        self, queries: Tensor, kv: KeyValues, visibility: Visibility, rows: int
    ) -> Float[Tensor, "rows T"] | None:
        if rows == 0:
            return None
        few = KeyValues(kv.keys[:rows], kv.values[:rows])
        return self.attention.statistics(queries[:rows], few, visibility.first_rows(rows)).entropy

    @cached_property
    def _row_flops(self) -> float:
        """FLOPs of one token through a later pass, without attention's products with the keys."""
        return self.pass_flops(0, first=False)

    def pass_flops(self, context: float, *, first: bool) -> float:
        """FLOPs per token of the first pass or of a later one, its gate included, without attention statistics.

        The last possible pass asks no gate: a token that runs it is billed that much too high, by under 1%.
        """
        gate = self.gate.flops_per_row() if self.gate is not None else 0
        # All networks of a layer cost the same.
        return self.attention.pass_flops(context, with_keys=first) + matmul_flops(self.mlp) + gate
