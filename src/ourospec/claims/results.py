"""Findings as tables, Markdown, JSON and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ourospec.claims.config import MixedArm, TrainedArm, UsedArm, as_json
from ourospec.claims.harness import Findings
from ourospec.claims.verdict import Verdict, question
from ourospec.measure.report.drawing import Figure, axes, line, numbers
from ourospec.measure.report.plot import Painter
from ourospec.measure.significance import Comparison
from ourospec.storage import write_whole
from ourospec.telemetry.environment import describe_environment
from ourospec.telemetry.quantities import UNKNOWN, count, decimal

Rows = list[list[str]]
CAPTION = (
    "Forward FLOPs that were executed per token read of the documents of the test, and bits per byte there, means over "
    "seeds; bars: their standard deviation. Circles: trained arms; lines: those at other thresholds and limits; "
    "diamonds: trained arms used otherwise."
)
COLOURS = (
    *(
        f"var(--{name})"
        for name in ("accent", "heldout", "good", "bad", "warn", "train", "soft", "faint", "ink")
    ),
    *("#8e44ad", "#0c8599", "#d6339a"),
)
"""Those of the page and some more, one for each arm in turn."""


def arm_rows(found: Findings) -> Rows:
    """Each arm: loss, depth and costs; of puzzles exact match in place of bits per byte."""
    second = "exact match" if found.asks else "bits per byte"
    rows = [
        [
            "arm", f"nats per {scored(found)}", second, "passes", "FLOP per token", "parameters", "training FLOP",
            "ms per 1,000 tokens",
        ]
    ]  # fmt: skip
    for arm in found.claim.arms:
        loss = found.total(arm.name, "nats")
        clock = found.cost(arm.name, "wall_clock")
        rows.append(
            [
                arm.name,
                f"{np.mean(loss):.4f}{_spread(loss, 4)}",
                _exact(found, arm.name) if found.asks else decimal(bits_per_byte(found, arm.name), 4),
                decimal(float(np.mean(found.total(arm.name, "passes", "positions"))), 3),
                count(found.cost(arm.name, "executed_flops")),
                count(found.cost(arm.name, "parameters")),
                count(found.cost(arm.name, "training_flops")),
                UNKNOWN if clock is None else f"{1000 * clock:.1f}",
            ]
        )
    return rows


def scored(found: Findings) -> str:
    """What the losses are of."""
    return "answer token" if found.asks else "token"


def answer_rows(found: Findings) -> Rows:
    """Exact match of each arm by difficulty, all seeds together; nothing for text."""
    known = {arm.name: bins for arm in found.claim.arms if (bins := found.exact_by_bin(arm.name))}
    if not known:
        return []
    names = list(next(iter(known.values())))
    return [
        ["exact match", *names],
        *([arm, *(f"{100 * bins[name]:.1f}%" for name in names)] for arm, bins in known.items()),
    ]


def bits_per_byte(found: Findings, name: str) -> float:
    """Mean over seeds."""
    return float(np.mean(found.total(name, "nats", "bytes"))) / math.log(2)


def difference_rows(found: Findings) -> Rows:
    """How much more than the claimed arm each other one loses."""
    statement = found.claim.statement
    level = f"{100 * (1 - statement.p):g}% interval"
    rows = [["arm", f"loses more than {statement.better} by", level, "p", "FLOPs of it", "in the statement"]]
    own = found.cost(statement.better, "executed_flops") or math.nan
    for arm in found.claim.arms:
        if arm.name == statement.better:
            continue
        told = found.comparison(statement.better, arm.name)
        share = (found.cost(arm.name, "executed_flops") or math.nan) / own
        rows.append(
            [
                arm.name,
                f"{told.difference:+.4f}",
                _interval(told),
                UNKNOWN if math.isnan(told.p) else f"{told.p:.2g}",
                f"{share:.3f}",
                "yes" if arm.name in statement.than else "",
            ]
        )
    return rows


def rate_rows(found: Findings) -> Rows:
    """The learning rates tried, with the loss of each on the documents for tuning."""
    rates = list(found.claim.tuning.learning_rates)
    rows = [["arm", *(f"lr {rate:g}" for rate in rates), "chosen"]]
    for name, trials in found.trials.items():
        losses = [trials[rate] for rate in rates]
        told = ["diverged" if loss is None else f"{loss:.4f}" for loss in losses]
        rows.append([name, *told, f"{found.rates[name]:g}"])
    return rows


def leak_rows(found: Findings) -> Rows:
    """Each leak test by arm: whether it held for all seeds, and the worst difference."""
    first = next(iter(found.leaks.values()))[0]
    rows = [["leak tests", *(leak["name"] for leak in first)]]
    for name, seeds in found.leaks.items():
        cells = []
        for at in range(len(first)):
            tests = [tests[at] for tests in seeds]
            worst = max(test["difference"] for test in tests)
            note = next((test["note"] for test in tests if test["note"]), "")
            cells.append(
                "not made"
                if note
                else f"{'held' if all(t['held'] for t in tests) else 'FAILED'} ({worst:.0e})"
            )
        rows.append([name, *cells])
    return rows


def as_data(found: Findings, verdict: Verdict, quick: bool) -> dict[str, Any]:
    """Everything but the losses by document, which stay in the parts."""
    statement = found.claim.statement
    arms = {
        arm.name: {
            "kind": kind_of(arm),
            "loss_by_seed": found.total(arm.name, "nats"),
            "bits_per_byte": bits_per_byte(found, arm.name),
            "exact_match_by_seed": found.exact_match(arm.name),
            "exact_match_by_bin": found.exact_by_bin(arm.name),
            "mean_passes_by_seed": found.total(arm.name, "passes", "positions"),
            "flops_per_token_by_seed": found.total(arm.name, "flops", "positions"),
            **{axis: found.cost(arm.name, axis) for axis in ("parameters", "training_flops")},
            "ms_per_1000_tokens": [1000 * seconds for seconds in found.times.get(arm.name, [])],
            "efforts": [seed["effort"] for seed in found.scores[arm.name]],
        }
        for arm in found.claim.arms
    }
    others = [arm.name for arm in found.claim.arms if arm.name != statement.better]
    return {
        "claim": as_json(found.claim),
        "quick": quick,
        "verdict": {"shown": verdict.shown, "sentence": verdict.sentence, "reasons": verdict.reasons},
        "arms": arms,
        "differences": {name: found.comparison(statement.better, name)._asdict() for name in others},
        "learning_rates": {
            name: {
                "chosen": found.rates[name],
                "losses": {f"{rate:g}": loss for rate, loss in trials.items()},
            }
            for name, trials in found.trials.items()
        },
        "training": found.trained,
        "leaks": found.leaks,
        "curves": found.curves,
        "warnings": found.warnings,
        "documents": len(found.scores[statement.better][0]["tokens"]),
        "tokens": sum(found.scores[statement.better][0]["tokens"]),
        "positions": sum(found.scores[statement.better][0]["positions"]),
        "environment": describe_environment(),
    }


def kind_of(arm: TrainedArm | UsedArm | MixedArm) -> str:
    """In a word."""
    return (
        arm.effort.kind if isinstance(arm, UsedArm) else "mixed" if isinstance(arm, MixedArm) else "trained"
    )


def markdown(found: Findings, verdict: Verdict) -> str:
    """The findings as a page."""
    scores = found.scores[found.claim.statement.better]
    number, tokens, positions = (
        len(scores[0]["tokens"]),
        *(sum(scores[0][n]) for n in ("tokens", "positions")),
    )
    read = f"{number:,} held-out documents, {tokens:,} tokens"
    if found.asks:
        read = f"{number:,} held-out puzzles, {tokens:,} tokens of answers among {positions:,} that were read"
    answers = answer_rows(found)
    parts = [
        "# A claim under test",
        question(found.claim.statement) + ".",
        f"**{verdict.sentence}**",
        *(f"Note: {warning}" for warning in found.warnings),
        f"{len(found.claim.seeds)} seeds, {read}. ± is the standard deviation over seeds.",
        _table(arm_rows(found)),
        *([_table(answers)] if answers else []),
        f"Differences in nats per {scored(found)}, paired by document and seed. Rows that are not in the statement "
        "are for information: their p stand for themselves, without correction for looking at many.",
        _table(difference_rows(found)),
        "Bits per byte against executed FLOPs: ![curve](curve.png)",
        "Learning rates, tried with the first seed and judged on held-out documents that are not those of the test:",
        _table(rate_rows(found)),
        "Leak tests over all seeds, with the greatest difference of logits relative to their spread, in float64:",
        _table(leak_rows(found)),
        "FLOP per token: forward, executed passes, gates included, over all tokens read, whether or not they foretell "
        "something that is scored; passes and time alike. Training FLOP: all matrix products of the steps "
        "that were counted, forward and backward, with gates, audits and probes, taken for all steps; no evaluations. "
        "Time: scoring with the first seed's models, in one process, turn by turn; median.",
    ]
    return "\n\n".join(parts) + "\n"


def picture(found: Findings) -> Figure:
    """Bits per byte against executed FLOPs: a mark for each arm, a line through each trained arm's efforts."""
    height = "bits per byte of the answers" if found.asks else "bits per byte"
    data, arms = [], sorted(found.claim.arms, key=lambda arm: not isinstance(arm, TrainedArm))
    trained = sum(isinstance(arm, TrainedArm) for arm in arms)
    # Both sorts begin with the first colour: the marks tell them apart.
    colours = {arm.name: COLOURS[at % trained % len(COLOURS)] for at, arm in enumerate(arms)}
    for name, points in found.curves.items():
        points = sorted(points, key=lambda point: point["flops"])
        x, y = [1e-6 * point["flops"] for point in points], [point["bits_per_byte"] for point in points]
        data.append({**line(x, y, name, colours[name], 1.5), "showlegend": False, "opacity": 0.6})
    for arm in arms:
        bits = np.array(found.total(arm.name, "nats", "bytes")) / math.log(2)
        flops = 1e-6 * (found.cost(arm.name, "executed_flops") or math.nan)
        mark = {**line([flops], [bits.mean()], arm.name, colours[arm.name], 1.5), "mode": "lines+markers"}
        if not isinstance(arm, TrainedArm):
            mark["marker"]["symbol"] = "diamond"
        elif len(bits) > 1:
            mark["error_y"] = {"type": "data", "array": numbers([bits.std(ddof=1)])}
        data.append(mark)
    return Figure(
        "curve", "Claim", f"{height.capitalize()} against executed FLOPs", CAPTION, data,
        axes(height, "executed MFLOP per token, forward"),
    )  # fmt: skip


def write_results(found: Findings, verdict: Verdict, folder: Path, quick: bool) -> list[Path]:
    """claim.json, claim.md and curve.png.

    Raises:
        OSError: they cannot be written.
        ResourceError: matplotlib is missing; the other two are written by then.
    """
    paths = [folder / name for name in ("claim.json", "claim.md", "curve.png")]
    data = json.dumps(_without_nan(as_data(found, verdict, quick)), indent=2, allow_nan=False)
    write_whole(paths[0], (data + "\n").encode())
    write_whole(paths[1], markdown(found, verdict).encode())
    Painter().paint(picture(found), paths[2])
    return paths


def _without_nan(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {str(name): _without_nan(value) for name, value in data.items()}
    return [_without_nan(value) for value in data] if isinstance(data, list | tuple) else data


def _exact(found: Findings, name: str) -> str:
    shares = [100 * share for share in found.exact_match(name)]
    return f"{np.mean(shares):.1f}{_spread(shares, 1)}%" if shares else UNKNOWN


def _spread(values: Sequence[float], digits: int) -> str:
    return f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""


def _interval(told: Comparison) -> str:
    return UNKNOWN if math.isnan(told.low) else f"{told.low:+.4f} to {told.high:+.4f}"


def _table(rows: Rows) -> str:
    head, *body = rows
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body))
