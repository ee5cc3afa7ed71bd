"""How `ouro diagnose` prints what a family says of its own model, of one run and of several together."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ourospec.cli.output import bold, print_section, print_table
from ourospec.telemetry.quantities import UNKNOWN, decimal, with_error

VERDICTS = {True: "pass", False: "fail", None: ""}


def show_findings(found: Mapping[str, Any]) -> None:
    """The table of one run, and below it what each number rests on."""
    print(bold(f"Diagnostics of the newest checkpoint on {found['targets']:,} held-out targets"))
    rows = [("", "", "value", "threshold", "")]
    for finding in found["findings"]:
        value = with_error(finding["value"], finding["error"], 4)
        rows.append(
            (finding["letter"], finding["name"], value, finding["threshold"], VERDICTS[finding["passed"]])
        )
    print_table(rows)
    print_section("Evidence", [(finding["letter"], finding["evidence"]) for finding in found["findings"]])


def show_together(found: Sequence[Mapping[str, Any]]) -> None:
    """Mean and standard deviation of every number over runs, and how many passed."""
    print(bold(f"{len(found)} runs together: mean ± standard deviation over runs"))
    rows = [("", "", "value", "threshold", "passed")]
    for row in together(found):
        passed = f"{row['passed']} of {row['judged']}" if row["judged"] else ""
        value = (
            UNKNOWN if row["mean"] is None else f"{decimal(row['mean'], 4)} ± {decimal(row['deviation'], 4)}"
        )
        rows.append((row["letter"], row["name"], value, row["threshold"], passed))
    print_table(rows)


def together(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for every letter that any of the runs has; thresholds in words are left out where they differ."""
    by_letter: dict[str, list[Mapping[str, Any]]] = {}
    for one in found:
        for finding in one["findings"]:
            by_letter.setdefault(finding["letter"], []).append(finding)
    rows = []
    for letter, findings in by_letter.items():
        values = [
            one["value"] for one in findings if one["value"] is not None and math.isfinite(one["value"])
        ]
        verdicts = [one["passed"] for one in findings if one["passed"] is not None]
        thresholds = {one["threshold"] for one in findings if one["threshold"]}
        rows.append(
            {
                "letter": letter,
                "name": findings[0]["name"],
                "runs": len(values),
                "mean": statistics.fmean(values) if values else None,
                "deviation": statistics.stdev(values) if len(values) > 1 else math.nan,
                "threshold": thresholds.pop() if len(thresholds) == 1 else "",
                "passed": sum(verdicts),
                "judged": len(verdicts),
            }
        )
    return rows
