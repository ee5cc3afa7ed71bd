"""How `ouro evaluate` prints what thinking buys; the figures are those of measure.thinking."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from ourospec.cli.output import print_section, print_table
from ourospec.telemetry.quantities import UNKNOWN, counted, with_error


def show_thinking(found: Mapping[str, Any]) -> None:
    """Print for a person; nothing where there is nothing to tell."""
    if not found:
        return
    read = f"{counted(found['documents'], 'document')}, {counted(found['tokens'], 'token')}"
    print(f"What thinking buys, on a sample of {read}")
    print_table(list(reading_rows(found)))
    rows = list(remarks(found))
    if rows:
        print_section("How it decides", rows)


def reading_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Headings, and a line for each way in which the sample was read."""
    asks, parted = "exact_match" in found["as_used"], "ablations" in found
    yield (
        "read with",
        "passes",
        "loss",
        *(["exact match"] if asks else []),
        *(["more loss"] if parted else []),
        *(["exact match lost"] if parted and asks else []),
    )
    forced = [(passes_text(one["passes"]), one) for one in found.get("each_pass", ())]
    parts = [(one["name"], one) for one in found.get("ablations", ())]
    for name, line in [*forced, ("as it decides", found["as_used"]), *parts]:
        cells = [name, f"{line['mean_passes']:.2f}", with_error(line["loss"], line["loss_se"], 4)]
        if asks:
            cells.append(with_error(line["exact_match"], line["exact_match_se"], 3))
        if parted:
            cells.append(apart(line, "loss_difference", 4, 1))
        if parted and asks:
            cells.append(apart(line, "exact_match_difference", 3, -1))
        yield tuple(cells)


def passes_text(passes: int) -> str:
    """1 pass, 2 passes."""
    return f"{passes} pass{'' if passes == 1 else 'es'}"


def apart(line: Mapping[str, Any], name: str, digits: int, sign: int) -> str:
    """A difference to the whole model, where there is one."""
    return with_error(sign * line[name] + 0.0, line[f"{name}_se"], digits) if name in line else ""


def remarks(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What there is to say of halting, difficulty and the memory's gate."""
    if "halting" in found:
        halting = found["halting"]
        yield (
            "halting",
            f"said to be done {halting['said']:.3f}, was done {with_error(halting['done'], halting['done_se'])}\n"
            f"calibration error {halting['calibration_error']:.3f}, "
            f"Brier score {with_error(halting['brier'], halting['brier_se'])}",
        )
    told = [
        f"{one['task']} {with_error(one['spearman'], one['spearman_se'], 2)}"
        for one in found.get("difficulty", ())
        if not math.isnan(one["spearman"])
    ]
    if "difficulty" in found:
        yield "passes by difficulty", f"rank correlation: {', '.join(told) or UNKNOWN}"
    if "memory_gate" in found:
        gate = found["memory_gate"]
        yield (
            "memory gate",
            f"g {with_error(gate['mean'], gate['mean_se'])} (1: memory unused), above one half "
            f"{with_error(gate['open_share'], gate['open_share_se'])}, entropy {gate['entropy']:.3f} nats",
        )
