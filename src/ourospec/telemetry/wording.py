"""What the console says of a run, in words; how they are laid out is the view's business."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ourospec.telemetry.plain_text import visible
from ourospec.telemetry.progress import Progress
from ourospec.telemetry.quantities import (
    UNKNOWN,
    clock,
    count,
    counted,
    decimal,
    duration,
    scientific,
    size,
    with_error,
)
from ourospec.telemetry.reading import FORCED, as_number, unit

LONGEST_SOURCE = 60
"""Characters; files can be named by the hundred."""


def title(start: Mapping[str, Any]) -> str:
    """The run by name: adaptive_lm/tiny."""
    return "/".join(str(start[key]) for key in ("family", "name") if start.get(key)) or "training"


def opening(start: Mapping[str, Any]) -> str:
    """What is about to happen, in one line."""
    parts = []
    if start.get("parameters"):
        parts.append(f"{count(start['parameters'])} parameters")
    if start.get("device"):
        parts.append(f"{start['device']} in {start.get('precision') or UNKNOWN}")
    if start.get("total_steps"):
        steps = f"{start['total_steps']:,} steps"
        targets = start.get("tokens_per_step")
        parts.append(f"{steps} of {counted(targets, unit(start))}" if targets else steps)
    if start.get("resumed_from") is not None:
        parts.append(f"resumed at step {start['resumed_from']:,}")
    return ", ".join(parts)


def corpus(start: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value): what is read; empty where the run does not say."""
    data = start.get("data")
    if not isinstance(data, Mapping) or not data.get("source"):
        return []
    source = visible(str(data["source"])).replace("\n", " ")
    source = source if len(source) <= LONGEST_SOURCE else source[: LONGEST_SOURCE - 1] + "…"
    found = [("text" if unit(start) == "token" else "data", source)]
    for name, side in (("training", data.get("train")), ("held out", data.get("heldout"))):
        if side:
            found.append((name, _side(side, f"{unit(start)}s")))
    if data.get("train") and "bytes_per_token" in data["train"]:
        found.append(("bytes/token", decimal(data["train"]["bytes_per_token"], 2)))
    return found


def _side(side: Mapping[str, Any], units: str) -> str:
    """How much there is on one side of the split, and in or over what."""
    much = f"{count(side.get(units))} {units}"
    if "documents" in side:
        return f"{much} in {counted(side['documents'], 'document')}"
    return f"{much}, {side['where']}" if side.get("where") else much


def readings(progress: Progress) -> list[tuple[str, str]]:
    """(name, value) of the numbers that are worth watching, the most telling first."""
    found = [("loss", decimal(progress.mean_loss()))]
    if progress.mean("bits_per_byte") is not None:
        found.append(("bits/byte", decimal(progress.mean("bits_per_byte"))))
    if progress.adaptive:
        found += _thinking(progress)
    found.append((f"{unit(progress.start)}s/s", count(progress.tokens_per_second())))
    found.append(("lr", scientific(progress.latest.get("lr"))))
    return found


def _thinking(progress: Progress) -> list[tuple[str, str]]:
    """How deep, for what target and at which price; the last two once the gates decide, where there are any."""
    latest, depth = progress.latest, decimal(progress.mean("mean_passes"), 2)
    if latest.get("step_kind") == FORCED:
        return [("depth", depth)]
    target = as_number(latest.get("target_passes"))
    found = [("depth", depth if target is None else f"{depth} of {decimal(target, 2)}")]
    price = as_number(latest.get("price_next", latest.get("price")))
    if price is not None:
        found.append(("price", scientific(price) + (" [DB]" if latest.get("deadband") is True else "")))
    return found


def left(progress: Progress) -> str:
    """The time to go."""
    seconds = progress.seconds_left()
    return UNKNOWN if seconds is None else clock(seconds)


def scores(data: Mapping[str, Any], *, adaptive: bool) -> list[tuple[str, str]]:
    """(name, value) of an evaluation."""
    found = [("loss", with_error(data.get("loss"), data.get("loss_se")))]
    if data.get("bits_per_byte") is not None:
        found.append(("bits/byte", with_error(data["bits_per_byte"], data.get("bits_per_byte_se"))))
    if data.get("perplexity") is not None:
        found.append(("perplexity", count(data["perplexity"])))
    if data.get("exact_match") is not None:
        found.append(("exact", with_error(data["exact_match"], data.get("exact_match_se"))))
    if adaptive and data.get("mean_passes") is not None:
        found.append(("depth", decimal(data["mean_passes"], 2)))
    return found


def split_name(data: Mapping[str, Any]) -> str:
    """Which side of the data was scored."""
    return {"heldout": "held-out"}.get(str(data.get("split", "")), str(data.get("split") or "evaluation"))


def saved(data: Mapping[str, Any]) -> str:
    """A checkpoint in a line."""
    return f"{data.get('path', '')} ({size(data.get('bytes'))} in {duration(data.get('seconds'))})"


def summary(progress: Progress, end: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(name, value): what the run came to."""
    rows = []
    evaluation, thing = progress.evaluation, unit(progress.start)
    if evaluation:
        name = split_name(evaluation)
        rows.append(
            (
                f"{name} loss",
                f"{with_error(evaluation.get('loss'), evaluation.get('loss_se'))} nats per {thing}",
            )
        )
        if evaluation.get("bits_per_byte") is not None:
            bits = with_error(evaluation["bits_per_byte"], evaluation.get("bits_per_byte_se"))
            rows.append(("bits per byte", bits))
        if evaluation.get("perplexity") is not None:
            rows.append(("perplexity", count(evaluation["perplexity"])))
        if evaluation.get("exact_match") is not None:
            exact = with_error(evaluation["exact_match"], evaluation.get("exact_match_se"))
            rows.append(("exact match", exact))
        if progress.adaptive:
            rows.append(
                ("mean depth", f"{decimal(evaluation.get('mean_passes'), 2)} passes per token and layer")
            )
        if evaluation.get("flops_per_token") is not None:
            rows.append(("forward cost", f"{count(evaluation['flops_per_token'])}FLOP per token"))
    if progress.latest.get("tokens"):
        rows.append((f"{thing}s seen", f"{progress.latest['tokens']:,}"))
    if as_number(end.get("best_loss")) is not None:
        rows.append(("least loss kept", f"{decimal(end['best_loss'])} at step {end['best_step']:,}"))
    if end.get("stopped_early"):
        rows.append(("ended early", str(end["stopped_early"])))
    rows.append(("time training", duration(end.get("seconds"))))
    return rows
