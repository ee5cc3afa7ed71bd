"""Write the examples of docs/log-guide.md anew from a few recorded events.

python tests/telemetry/write_log_guide.py               after a change to the lines
python tests/telemetry/write_log_guide.py --from RUN    after a change to what a step reports: picks the events from
                                                        a finished run of an adaptive model
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ourospec.contracts import Event
from ourospec.runs import open_run
from ourospec.telemetry.events import Record, decode, encode, read_records
from ourospec.telemetry.log_lines import start_lines, step_lines
from ourospec.telemetry.stats_file import snapshot

RECORDED = Path(__file__).parent / "example_run.jsonl"
GUIDE = Path(__file__).parents[2] / "docs" / "log-guide.md"


def pick(records: list[Record]) -> list[Record]:
    """The start, a step of each kind, and the steps at which the deadband engages and lets go.

    Nothing is picked from between those two, so that what the picked steps say of the deadband follows from them.
    """
    steps = [record for record in records if record.kind == "step"]
    engaged = next((record.step for record in steps if record.data.get("deadband")), steps[-1].step + 1)
    before = [record for record in steps if record.step < engaged]
    priced = [record for record in before if record.data.get("delta_ce") is not None]
    picked = [
        _last(before, lambda r: r.data.get("step_kind") == "forced" and r.step % 10 != 0),
        _last(priced, lambda r: r.data.get("step_kind") == "policy" and r.step % 50 == 0),
        _last(priced, lambda r: r.data.get("step_kind") == "audit" and r.step % 10 != 0),
    ]
    after = [record for record in steps if record.step >= engaged]
    picked += after[:1]
    picked += [record for record in after if not record.data.get("deadband")][:1]
    return [records[0], *sorted(picked, key=lambda record: record.step)]


def _last(records: list[Record], wanted: Callable[[Record], bool]) -> Record:
    return next(record for record in reversed(records) if wanted(record))


def record(run: str) -> None:
    """Keep the picked events of a run, without what it read and where that lies."""
    lines = []
    for kind, step, time, data in pick(list(read_records(open_run(run)))):
        kept = {name: _rounded(value) for name, value in data.items() if name != "data"}
        lines.append(encode(Event(kind, step, kept), time))
    RECORDED.write_text("".join(lines), encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def recorded() -> list[Event]:
    """The events that the guide shows."""
    records = [decode(json.loads(line)) for line in RECORDED.read_text(encoding="utf-8").splitlines()]
    return [Event(record.kind, record.step, record.data) for record in records]


def log_example() -> str:
    """Their lines, a blank line between two events."""
    blocks, deadband = [], False
    for event in recorded():
        lines = start_lines(event) if event.kind == "start" else step_lines(event, deadband)
        blocks.append("\n".join(lines))
        deadband = event.data.get("deadband") is True
    return "```text\n" + "\n\n".join(blocks) + "\n```"


def stats_example() -> str:
    """stats.json at the last of them on which the gates decided, with its first layer only, numbers shortened."""
    event = next(event for event in reversed(recorded()) if event.data.get("step_kind") == "policy")
    told = snapshot(event)
    told["layers"] = told["layers"][:1]
    text = json.dumps(_shortened(told), indent=2, ensure_ascii=False)
    # Short lists on one line.
    text = re.sub(r"\[\s+([-\d., \n]+?)\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", text)
    return "```json\n" + text + "\n```"


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shortened(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_shortened(item) for item in value]
    return float(f"{value:.3g}") if isinstance(value, float) else value


def blocks() -> Iterator[tuple[str, str]]:
    """(name, text) of the generated parts of the guide."""
    yield "log", log_example()
    yield "stats", stats_example()


def with_examples(guide: str) -> str:
    """The guide with the generated parts as they should be.

    Raises:
        ValueError: the place of one is gone.
    """
    for name, text in blocks():
        begin, end = f"<!-- example: {name} -->\n", "<!-- end of example -->"
        before, found, rest = guide.partition(begin)
        if not found:
            raise ValueError(f"{GUIDE} has no place for the example {name!r}: {begin.strip()}")
        guide = before + begin + text + "\n" + end + rest.partition(end)[2]
    return guide


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--from", dest="run", metavar="RUN", help="a finished run directory to pick events from"
    )
    run = parser.parse_args().run
    if run:
        record(run)
    GUIDE.write_text(with_examples(GUIDE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {GUIDE}", file=sys.stderr)


if __name__ == "__main__":
    main()
