"""A real run leaves a log and stats that tell the same as its events."""

import json

from ourospec.contracts import Event
from ourospec.runs import RunDirectory
from ourospec.telemetry.log_lines import step_line
from ourospec.telemetry.stats_file import snapshot


def steps(run):
    return [
        Event("step", event["step"], event)
        for event in RunDirectory(run).read_events()
        if event["kind"] == "step"
    ]


def test_the_log_has_a_line_for_every_step(trained):
    lines = RunDirectory(trained.path).log.read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("INIT | PARAMS ")
    assert lines[-1] == "END | complete after step 12"
    assert [line for line in lines if line.startswith("STEP: ")] == [
        step_line(s) for s in steps(trained.path)
    ]
    assert sum(line.startswith("L0: ") for line in lines) == 1


def test_the_stats_are_those_of_the_last_step(trained):
    told = json.loads(RunDirectory(trained.path).stats.read_text(encoding="utf-8"))
    last = snapshot(steps(trained.path)[-1])
    assert told == last
    assert told["step"] == 12 and len(told["layers"]) == 2


def test_nothing_half_written_is_left(trained):
    assert [path.name for path in trained.path.iterdir() if path.name.startswith(".")] == []
