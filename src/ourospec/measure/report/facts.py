"""The headline of a report: its numbers, each with a word on what it means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from ourospec.measure.report.history import History
from ourospec.telemetry import wording
from ourospec.telemetry.quantities import UNKNOWN, count, counted, decimal, duration
from ourospec.telemetry.reading import unit

STATUSES = {
    "complete": ("complete", "good"),
    "interrupted": ("interrupted", "warn"),
    "diverged": ("diverged", "bad"),
    "failed": ("failed", "bad"),
    "unfinished": ("unfinished", "warn"),
}


@dataclass(frozen=True)
class Fact:
    """A number and what it is. `value` is the number, `error` its standard error, `note` a remark."""

    name: str
    value: str
    error: str = ""
    unit: str = ""
    note: str = ""


def headline(history: History) -> list[Fact]:
    """The three or four numbers that matter."""
    facts = []
    score = history.evaluation.data if history.evaluation else {}
    bits = score.get("bits_per_byte")
    if bits is not None:
        note = (
            f"held-out text in {bits / 8:.0%} of its size"
            if 0 < bits < 8
            else "no better than guessing bytes"
        )
        facts.append(Fact("Bits per byte", decimal(bits), _error(score.get("bits_per_byte_se")), note=note))
    if score.get("loss") is not None:
        note = f"nats per {unit(history.start)}"
        if score.get("perplexity") is not None:
            note += f"; perplexity {count(score['perplexity'])}"
        facts.append(Fact("Loss", decimal(score["loss"]), _error(score.get("loss_se")), note=note))
    elif history.mean_of_late("loss") is not None:
        facts.append(
            Fact(
                "Training loss",
                decimal(history.mean_of_late("loss")),
                "",
                f"nats/{unit(history.start)}",
                "never evaluated",
            )
        )
    if history.adaptive:
        depth = score.get("mean_passes", history.mean_of_late("mean_passes"))
        note = f"passes, of {history.max_passes} at most"
        facts.append(Fact("Mean depth", decimal(depth, 2), _error(score.get("mean_passes_se"), 2), note=note))
    if score.get("flops_per_token") is not None:
        note = "of the passes that were really run" if history.adaptive else "of the forward pass"
        value, _, prefix = count(score["flops_per_token"]).partition(" ")
        facts.append(
            Fact("Forward cost", value, "", f"{prefix}FLOP/token", "of the passes that were really run")
        )
    return facts


def details(history: History) -> list[Fact]:
    """The numbers of the second row."""
    start, latest = history.start, history.latest
    things = f"{unit(start)}s"
    steps = f"{history.step:,}" + (
        f" of {history.total_steps:,}" if history.step != history.total_steps else ""
    )
    return [
        Fact("Parameters", count(start.get("parameters"))),
        Fact("Steps", steps),
        Fact(f"{things.capitalize()} seen", count(latest.get("tokens"))),
        Fact("Time training", duration(latest.get("seconds"))),
        Fact("Speed", f"{count(_speed(history))} {things}/s"),
        Fact("Device", f"{start.get('device', UNKNOWN)}, {start.get('precision', UNKNOWN)}"),
        Fact("Begun", moment(history.began)),
        *best_kept(history),
        *(Fact(name.capitalize(), value) for name, value in wording.corpus(start)),
    ]


def best_kept(history: History) -> list[Fact]:
    """The step whose weights are kept as the best; nothing where none are."""
    kept = [moment for moment in history.evaluations if moment.data.get("best") is True]
    if not kept:
        return []
    return [Fact("Best weights", f"step {kept[-1].step:,}, loss {decimal(kept[-1].data.get('loss'))}")]


def moment(seconds: float) -> str:
    """A time of day, the same wherever it is read."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y, %H:%M UTC").lstrip("0")


def sentence(history: History) -> str:
    """The run in a sentence."""
    latest, things = history.latest, f"{unit(history.start)}s"
    text = f"{count(history.start.get('parameters'))} parameters read {count(latest.get('tokens'))} {things}"
    text += f" in {duration(latest.get('seconds'))}"
    score = history.evaluation.data if history.evaluation else {}
    if score.get("bits_per_byte") is not None and score.get("documents"):
        text += f" and were tested on {counted(score['documents'], 'held-out document')}"
    return text + "."


def _speed(history: History) -> float | None:
    """Tokens per second of training, over the whole run."""
    tokens, seconds = history.latest.get("tokens"), history.latest.get("seconds")
    return tokens / seconds if tokens and seconds else None


def _error(error: float | None, digits: int = 3) -> str:
    return "" if error is None else f"± {decimal(error, digits)}"
