"""How good a model's gates are: whether they know what a pass is worth, and whether they give it to the right tokens.

Letters: B rows, T positions, L layers, K passes at most, n tokens (targets).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from ourospec.contracts import Effort, LanguageModel
from ourospec.device import DevicePolicy
from ourospec.errors import ConfigError
from ourospec.measure.oracle import by_document, regret, with_error
from ourospec.measure.ranks import over_documents, spearman
from ourospec.measure.tokens import (
    IGNORED,
    Chunk,
    Grid,
    ScoredDocument,
    TokenScorer,
    cut,
    in_batches,
    lay_out,
)

SAMPLE_TOKENS = 8_000
"""Targets that the gates are judged on, about."""
BINS = 10
"""Bins of equally many tokens, by what the gate says."""
QUARTERS = 4
"""Bins of equally many tokens, by how hard they are."""


class GatedModel(LanguageModel, Protocol):
    """A language model whose passes can be put to the test one by one."""

    def probe_gain(
        self,
        tokens: Tensor,
        documents: Tensor | None,
        targets: Tensor,
        layer: int,
        passes: int,
        effort: Effort | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The fall of −ln p(target) [B, T] when `layer` runs passes + 1 instead of `passes`, all else by `effort`; the
        logit [B, T] of the gate that is asked in between; and −ln p(target) [B, T] without the further pass."""
        ...


class Policy(NamedTuple):
    """What the gates did on the sample."""

    nats: np.ndarray
    """[n], −ln p."""
    passes: np.ndarray
    """[L, n]."""


@dataclass(frozen=True)
class GateBench:
    """A sample laid out for a model, read again and again at different efforts."""

    model: GatedModel
    policy: DevicePolicy
    grids: list[Grid]
    documents: np.ndarray
    """[n], the number of the document of each target."""
    effort: Effort | None
    """How the gates decide: as trained."""
    tell: Callable[[str], None]

    def read(self, effort: Effort | None) -> Policy:
        """Every target's loss and passes."""
        scorer = TokenScorer(self.model, self.policy)
        found = [(grid.scored, scorer.score(grid, effort)) for grid in self.grids]
        nats = [scored.nats[mask].numpy() for mask, scored in found]
        passes = [scored.passes[:, mask].numpy() for mask, scored in found]
        return Policy(np.concatenate(nats), np.concatenate(passes, axis=1))

    def probe(self, layer: int, passes: int) -> tuple[np.ndarray, np.ndarray]:
        """What one more pass gains [n], in nats, and what the gate says of it [n], a probability."""
        gains, gates = [], []
        for grid in self.grids:
            inputs, targets = (tensor.to(self.policy.device) for tensor in grid)
            with self.policy.inference(self.model):
                gain, logit, _ = self.model.probe_gain(inputs, None, targets, layer, passes, self.effort)
            gains.append(gain.cpu().double()[grid.scored].numpy())
            gates.append(torch.sigmoid(logit.double()).cpu()[grid.scored].numpy())
        return np.concatenate(gains), np.concatenate(gates)


def lay_out_bench(
    model: GatedModel,
    documents: Iterable[ScoredDocument],
    end_id: int,
    window: int,
    policy: DevicePolicy,
    rows: int,
    effort: Effort | None,
    tell: Callable[[str], None] | None = None,
) -> GateBench:
    """Documents as grids of at most `rows` chunks of at most `window` targets, see measure.likelihood."""
    chunks = cut(documents, end_id, min(window, model.max_length))
    return lay_out_chunks(model, chunks, end_id, policy, rows, effort, tell)


def lay_out_chunks(
    model: GatedModel,
    chunks: Iterable[Chunk],
    end_id: int,
    policy: DevicePolicy,
    rows: int,
    effort: Effort | None,
    tell: Callable[[str], None] | None = None,
) -> GateBench:
    """Chunks, none longer than the model reads at once, as grids of at most `rows`."""
    batches = list(in_batches(chunks, rows))
    grids = [lay_out(batch, end_id) for batch in batches]
    owners = [
        np.full(int((chunk.targets != IGNORED).sum()), chunk.document) for batch in batches for chunk in batch
    ]
    return GateBench(model, policy, grids, np.concatenate(owners), effort, tell or (lambda _: None))


def gate_quality(bench: GateBench) -> dict[str, Any]:
    """Figures about the gates; errors are standard errors over documents, NaN where they cannot be had.

    Returns:
        `tokens`, `documents`, `layers`, `max_passes`; `loss` and `mean_passes` of the policy;
        `gates`: a list by layer and pass, see `judge_gate`; `oracle`: see oracle.regret; `difficulty`: see
        `follow_difficulty`.

    Raises:
        ConfigError: the model has no gates, or they were never asked yet.
    """
    most = _most_passes(bench)
    bench.tell("reading the sample as trained")
    policy = bench.read(bench.effort)
    table = []
    for passes in range(1, most + 1):
        bench.tell(f"reading the sample with {passes} of {most} passes everywhere")
        table.append(bench.read(Effort(forced_passes=passes)).nats)
    layers, depth = len(policy.passes), policy.passes.mean(0)
    gates = []
    for layer in range(layers):
        for passes in range(1, most):
            bench.tell(f"testing pass {passes + 1} of layer {layer + 1} of {layers}")
            gates.append(
                {"layer": layer, "passes": passes, **judge_gate(*bench.probe(layer, passes), bench.documents)}
            )
    return {
        "tokens": len(policy.nats),
        "documents": len(np.unique(bench.documents)),
        "layers": layers,
        "max_passes": most,
        **with_error("loss", by_document(policy.nats, bench.documents)),
        **with_error("mean_passes", by_document(depth, bench.documents)),
        "gates": gates,
        "oracle": regret(np.stack(table), depth, bench.documents),
        "difficulty": follow_difficulty(table[0], policy.passes, bench.documents),
    }


def _most_passes(bench: GateBench) -> int:
    if bench.effort is not None and bench.effort.forced_passes is not None:
        raise ConfigError(
            "Where this run stands, its passes are still forced: its gates were never asked, and there is nothing to "
            "judge.",
            "Go on training until the gates are free.",
        )
    try:
        scored = TokenScorer(bench.model, bench.policy).score(bench.grids[0], Effort(threshold=0.0))
    except ConfigError as error:
        raise ConfigError(
            "This model has no gates to judge: it runs the same passes for every token.",
            "Judge a run of adaptive depth, such as one of adaptive_lm/tiny.",
        ) from error
    return int(scored.passes.max())


def judge_gate(gains: np.ndarray, gates: np.ndarray, documents: np.ndarray) -> dict[str, Any]:
    """Whether one gate knows what the pass that it decides about is worth.

    The pass was tried on every token, also on those that would not have come this far.

    Args:
        gains: [n], by how much the token's loss fell through it, in nats.
        gates: [n], the probability with which the gate wanted it.

    Returns:
        `spearman` of gate and gain; `gain`, the mean; `helped`, the share of tokens whose loss fell; and
        `reliability`, equally many tokens a row, least wanted first: mean `gate`, mean `gain` with its error,
        `helped`, `tokens`.
    """
    rows = []
    for chosen in np.array_split(np.argsort(gates, kind="stable"), min(BINS, len(gates))):
        rows.append(
            {
                "gate": float(gates[chosen].mean()),
                **with_error("gain", by_document(gains[chosen], documents[chosen])),
                "helped": float((gains[chosen] > 0).mean()),
                "tokens": len(chosen),
            }
        )
    correlation = over_documents(lambda of: spearman(gates[of], gains[of]), documents)
    return {
        **with_error("spearman", correlation),
        **with_error("gain", by_document(gains, documents)),
        "helped": float((gains > 0).mean()),
        "gate": float(gates.mean()),
        "reliability": rows,
    }


def follow_difficulty(hardness: np.ndarray, passes: np.ndarray, documents: np.ndarray) -> dict[str, Any]:
    """Whether hard tokens are thought about for longer.

    Args:
        hardness: [n], loss with one pass everywhere, in nats.
        passes: [L, n].

    Returns:
        `spearman` of a token's loss and its mean passes; `by_layer`, the same for each layer with `passes_by_quarter`,
        mean passes of the easiest quarter of the tokens to the hardest; `quarters`, the mean loss of each.
    """
    quarters = np.array_split(np.argsort(hardness, kind="stable"), QUARTERS)
    filled = [quarter for quarter in quarters if len(quarter)]

    def correlate(depth: np.ndarray) -> dict[str, Any]:
        return {
            **with_error("spearman", over_documents(lambda of: spearman(hardness[of], depth[of]), documents)),
            "passes_by_quarter": [float(depth[quarter].mean()) for quarter in filled],
        }

    return {
        **correlate(passes.mean(0)),
        "quarters": [float(hardness[quarter].mean()) for quarter in filled],
        "by_layer": [correlate(depth) for depth in passes],
    }
