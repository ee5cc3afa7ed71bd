"""report.html: a run on one page that needs nothing else, written from the recipe and the events alone."""

from __future__ import annotations

from pathlib import Path

from ourospec.measure.report.history import read_history
from ourospec.measure.report.page import render_page
from ourospec.runs import RunDirectory
from ourospec.telemetry.files import write_whole


def write_report(run: RunDirectory) -> Path:
    """Write the run's report.html anew and return its path.

    The page holds its own scripts and loads nothing. A run that is still training can be reported, too.

    Raises:
        DataError: the run's files cannot be read, or tell nothing yet.
        ResourceError: the report cannot be written.
    """
    write_whole(run.report, render_page(read_history(run)))
    return run.report
