"""`ouro report RUN`: write a run's report.html anew from its events, and open it."""

from __future__ import annotations

import webbrowser
from dataclasses import dataclass
from typing import Annotated

import tyro

from ourospec.cli.options import parse_options
from ourospec.runs import open_run


@dataclass(frozen=True)
class ReportOptions:
    """Write a run's report.html anew: curves, figures, a text coloured by depth."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="Run directory.")]
    open: Annotated[bool, tyro.conf.arg(help="Open it in the browser, too.")] = False


def main(arguments: list[str]) -> None:
    """Write, and say where."""
    options = parse_options(ReportOptions, arguments, "report")
    from ourospec.measure.report import write_report

    path = write_report(open_run(options.run))
    print(path)
    if options.open and not webbrowser.open(path.resolve().as_uri()):
        print("No browser was found here; open the file by hand.")
