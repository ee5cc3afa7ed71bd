"""The parts of a claim: train, score, test for leaks, draw a curve, take the time. Each a function of JSON.

Losses are of what is to be foretold: all of a text, the answers of puzzles. Costs are of all that is read, the
questions of puzzles included. Letters: N documents, K passes, n tokens.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ourospec import api
from ourospec.claims import leaks
from ourospec.claims.parts import finite
from ourospec.claims.plans import PlannedModel, evenly, shuffling
from ourospec.claims.training import as_data, run_name, train_run
from ourospec.contracts import Clock, Effort
from ourospec.data.text import open_text
from ourospec.errors import ConfigError, DataError
from ourospec.measure.answers import Exactness, cut_puzzles, score_answers
from ourospec.measure.calibrate import DEEPEST, DepthCurve, mean_passes
from ourospec.measure.calibration_record import effort_at
from ourospec.measure.gates import lay_out_chunks
from ourospec.measure.likelihood import Likelihood, choose_documents, score_documents
from ourospec.measure.oracle import equal_cost
from ourospec.measure.tokens import cut
from ourospec.recipe import Recipe, TextRecipe

POSITIONS = 4_096
"""Of a forward pass."""
TUNING_SHARE = 4
"""Of the held-out documents, one in so many is kept for finding learning rates."""
LEAK_ROWS, LEAK_LENGTH, LEAST_LENGTH = 3, 64, 4
CLOCK_TOKENS = 8_000
MATCH_ROUNDS, MATCHED = 3, 0.002
"""Searches for a threshold by mean passes, at most, and the share of the FLOPs within which one was successful."""


def parse(recipe: str) -> TextRecipe:
    """A recipe from its JSON."""
    found = Recipe.families[json.loads(recipe)["family"]].model_validate_json(recipe)
    assert isinstance(found, TextRecipe)
    return found


class Reading(NamedTuple):
    """What became of some documents."""

    likelihood: Likelihood
    """Its costs are of all that was read."""
    exactness: Exactness | None
    """None for text, which gives no answers."""


@dataclass(frozen=True)
class Opened:
    """A trained model and the documents of a part."""

    loaded: Any
    """api.LoadedModel."""
    documents: list[Any]

    @property
    def trained(self) -> Effort | None:
        """How long the model thinks where its training ended."""
        steps = self.loaded.recipe.train.steps
        return self.loaded.objective.effort(Clock(steps, steps))

    @property
    def asks(self) -> bool:
        """Whether the documents are puzzles, whose answers alone are scored."""
        return self.loaded.recipe.data.asks

    @property
    def window(self) -> int:
        """Positions read at once."""
        return min(self.loaded.recipe.train.window, self.loaded.model.max_length)

    @property
    def rows(self) -> int:
        """Of a forward pass."""
        return max(1, POSITIONS // self.window)

    def read(self, effort: Effort | None, model: Any = None) -> Reading:
        """Losses and costs by document; another model in the place of the loaded one is read row by row."""
        reader, rows = (self.loaded.model, self.rows) if model is None else (model, 1)
        end_id, policy = self.loaded.tokenizer.end_id, self.loaded.policy
        if self.asks:
            found = score_answers(reader, self.documents, end_id, policy, rows, effort)
            return Reading(found.whole, found.exactness())
        return Reading(
            score_documents(reader, self.documents, end_id, self.window, policy, rows, effort), None
        )

    def score(self, effort: Effort | None) -> Likelihood:
        """As `read`, without what is right."""
        return self.read(effort).likelihood


def open_run(folder: Path, recipe: str, tokens: int, *, tuning: bool = False) -> Opened:
    """A finished run and held-out documents of at most `tokens` targets: those of the test, or those for tuning.

    Raises:
        DataError: too few documents are held out.
    """
    parsed = parse(recipe)
    loaded = api.load(folder / "runs" / run_name(parsed))
    heldout = open_text(parsed.data).heldout
    # Documents lie in the order of their names; a share of them should not be of one corner of the corpus.
    order = np.random.default_rng(0).permutation(heldout.num_documents).tolist()
    mine = [number for at, number in enumerate(order) if (at % TUNING_SHARE == 0) == tuning]
    if not mine:
        raise DataError(
            f"Only {len(order)} documents are held out: too few for tuning on some and testing on others.",
            "Hold out more: data.heldout_fraction in `common`.",
        )
    return Opened(loaded, choose_documents((heldout.document(number) for number in mine), tokens))


def train(folder: Path, recipe: str) -> dict[str, Any]:
    """Train a recipe to its end; `trained` is None where it diverged."""
    return {"trained": as_data(train_run(parse(recipe), folder / "runs"))}


def tune(folder: Path, recipe: str, tokens: int) -> dict[str, Any]:
    """Train a recipe, and its loss on the documents for tuning; None where it diverged."""
    if train_run(parse(recipe), folder / "runs") is None:
        return {"loss": None}
    opened = open_run(folder, recipe, tokens, tuning=True)
    return {"loss": finite(opened.score(opened.trained).summary()["loss"])}


def score(
    folder: Path, recipe: str, tokens: int, use: Mapping[str, Any], flops: float | None = None
) -> dict[str, Any]:
    """Losses and costs by document, and the effort that they were read with.

    Args:
        use: {"kind": ...} as in claims.config, "trained", or a list-free nesting under "of" for the policy whose
            depths are dealt out.
        flops: for "matched": forward FLOPs per position to execute.
    """
    opened = open_run(folder, recipe, tokens)
    kind = use["kind"]
    if kind in ("shuffled", "even", "oracle"):
        policy = as_effort(use["policy"])
        if kind == "oracle":
            found = foresee(opened, policy)
        else:
            deal = shuffling(use["seed"]) if kind == "shuffled" else evenly
            found = opened.read(None, PlannedModel(opened.loaded.model, policy, deal))
        return by_document(found, None)
    effort = match(opened, use.get("readout"), flops) if kind == "matched" else plain_effort(opened, use)
    return by_document(opened.read(effort), effort)


def plain_effort(opened: Opened, use: Mapping[str, Any]) -> Effort | None:
    """What is asked of the model."""
    trained = opened.trained
    if use["kind"] == "trained":
        return trained
    if use["kind"] == "forced":
        return Effort(forced_passes=use["passes"])
    if use["kind"] == "threshold":
        return (trained or Effort())._replace(threshold=use["threshold"], forced_passes=None)
    return (trained or Effort())._replace(max_passes=use["max_passes"])


def match(opened: Opened, readout: str | None, flops: float | None) -> Effort:
    """The threshold at which the model executes `flops` per position read, as nearly as thresholds allow.

    Raises:
        ConfigError: no threshold does, or there are no gates.
    """
    assert flops is not None
    curve = DepthCurve(lambda threshold: opened.score(effort_at(threshold, readout)))
    deep = curve.at(DEEPEST)
    one = opened.score(Effort(forced_passes=1))
    # FLOPs are nearly linear in the depth: exactly so where all layers cost the same.
    slope = (cost_of(deep) - cost_of(one)) / (mean_passes(deep) - 1)
    wanted = 1 + (flops - cost_of(one)) / slope
    threshold = DEEPEST
    for _ in range(MATCH_ROUNDS):
        threshold = curve.find(wanted)
        missed = flops - cost_of(curve.at(threshold))
        if abs(missed) < MATCHED * flops:
            break
        wanted += missed / slope
    return effort_at(threshold, readout)


def foresee(opened: Opened, policy: Effort | None) -> Reading:
    """What the policy's passes buy at best, each given where it lowers the loss most, by measure.oracle.equal_cost.

    Depths are of all layers together, and between whole depths the loss is read linearly; a position that foretells no
    target runs one pass. Costs are the policy's. What would be right is not said.
    """
    loaded, end_id = opened.loaded, opened.loaded.tokenizer.end_id
    asked = (
        cut_puzzles(opened.documents, end_id) if opened.asks else cut(opened.documents, end_id, opened.window)
    )
    bench = lay_out_chunks(loaded.model, asked, end_id, loaded.policy, opened.rows, policy)
    chosen = opened.score(policy)
    table = [bench.read(Effort(forced_passes=1)).nats]
    for passes in range(2, most_passes(opened) + 1):
        table.append(bench.read(Effort(forced_passes=passes)).nats)
    unasked = int((chosen.positions - chosen.tokens).sum())
    budget = float(chosen.passes.sum()) / chosen.passes.shape[1] - unasked
    losses, _ = equal_cost(np.stack(table), budget)
    nats = np.bincount(bench.documents, weights=losses, minlength=len(opened.documents))
    return Reading(dataclasses.replace(chosen, nats=nats), None)


def most_passes(opened: Opened) -> int:
    """How many passes a layer of the model can run."""
    grid = torch.tensor([[opened.loaded.tokenizer.end_id]], device=opened.loaded.policy.device)
    with opened.loaded.policy.inference(opened.loaded.model):
        try:
            return int(opened.loaded.model(grid, effort=Effort(threshold=0.0)).passes.max())
        except ConfigError:
            return int(opened.loaded.model(grid).passes.max())


def check_leaks(folder: Path, recipe: str, tokens: int) -> list[dict[str, Any]]:
    """See claims.leaks; on the beginnings of the longest documents of the test, thinking as trained."""
    opened = open_run(folder, recipe, tokens)
    longest = sorted(opened.documents, key=lambda document: -len(document.tokens))[:LEAK_ROWS]
    length = min(LEAK_LENGTH, opened.loaded.model.max_length, *(1 + len(one.tokens) for one in longest))
    if len(longest) < 2 or length < LEAST_LENGTH:
        raise DataError(
            f"The held-out documents are too few or too short ({len(longest)} of {length} tokens) for leak tests.",
            "Hold out more text: data.heldout_fraction in `common`.",
        )
    end_id = opened.loaded.tokenizer.end_id
    texts = [np.concatenate(([end_id], one.tokens[: length - 1])) for one in longest]
    rows = torch.tensor(np.stack(texts).astype(np.int64))
    return leaks.as_data(leaks.leak_tests(opened.loaded.model, rows, opened.trained))


def draw_curve(
    folder: Path, recipe: str, tokens: int, thresholds: list[float], max_passes: list[int]
) -> list[dict[str, Any]]:
    """Loss and cost at further efforts; empty for a model that runs the same passes for every token."""
    opened = open_run(folder, recipe, tokens)
    try:
        opened.score(Effort(threshold=1.0))
    except ConfigError:
        return []
    trained, most = opened.trained or Effort(), most_passes(opened)
    efforts = {f"threshold {value:g}": trained._replace(threshold=value) for value in thresholds}
    for value in max_passes:
        if value <= most:
            efforts[f"max {value}"] = trained._replace(max_passes=value)
    return [{"effort": name, **in_short(opened.read(effort))} for name, effort in efforts.items()]


def clock(folder: Path, uses: list[dict[str, Any]], tokens: int, rounds: int) -> dict[str, list[float]]:
    """Seconds that scoring takes per 1,000 positions read, by arm and round: all arms in one process, turn by turn.

    Args:
        uses: {"name", "recipe", "effort"} of each arm.
    """
    opened = {use["name"]: open_run(folder, use["recipe"], min(tokens, CLOCK_TOKENS)) for use in uses}
    times: dict[str, list[float]] = {use["name"]: [] for use in uses}
    for turn in range(rounds + 1):
        for use in uses:
            one = opened[use["name"]]
            began = time.perf_counter()
            found = one.score(as_effort(use["effort"]))
            seconds = time.perf_counter() - began
            if turn:  # the first is a warm-up
                times[use["name"]].append(1000 * seconds / float(found.positions.sum()))
    return times


def middle(times: Mapping[str, list[float]], name: str) -> float | None:
    """The median of an arm's times; None where there are none."""
    return statistics.median(times[name]) if times.get(name) else None


def by_document(reading: Reading, effort: Effort | None) -> dict[str, Any]:
    """JSON-ready. Of puzzles also `right` and `answers`, and `bins`, the same in a pair by difficulty."""
    found, exact = reading
    asked = {}
    if exact is not None:
        asked = {"right": exact.right.tolist(), "answers": exact.answers.tolist(), "bins": exact.bins}
    return {
        **asked,
        "nats": found.nats.tolist(),
        "tokens": found.tokens.tolist(),
        "positions": found.positions.tolist(),
        "bytes": found.bytes.tolist(),
        "flops": found.flops.tolist(),
        "passes": (found.passes.sum(1) / found.passes.shape[1]).tolist(),
        "effort": as_dict(effort),
    }


def in_short(reading: Reading) -> dict[str, float]:
    """Loss, cost and, of puzzles, exact match of all documents together."""
    found, exact = reading
    asked = {} if exact is None else {"exact_match": float(exact.right.sum() / exact.answers.sum())}
    return {
        **asked,
        "loss": float(found.nats.sum() / found.tokens.sum()),
        "bits_per_byte": float(found.nats.sum() / math.log(2) / found.bytes.sum()),
        "passes": mean_passes(found),
        "flops": cost_of(found),
    }


def cost_of(found: Likelihood) -> float:
    """Forward FLOPs per position read."""
    return float(found.flops.sum() / found.positions.sum())


FIELDS = ("forced_passes", "max_passes", "threshold", "readout")


def as_dict(effort: Effort | None) -> dict[str, Any] | None:
    """What of an effort JSON can say."""
    return None if effort is None else {name: getattr(effort, name) for name in FIELDS}


def as_effort(told: Mapping[str, Any] | None) -> Effort | None:
    """Back from `as_dict`."""
    return None if told is None else Effort(**told)
