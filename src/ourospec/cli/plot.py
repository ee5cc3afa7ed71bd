"""`ouro plot RUN`: the plots of a run's report as pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ourospec.cli.options import parse_options
from ourospec.errors import DataError
from ourospec.runs import open_run


@dataclass(frozen=True)
class PlotOptions:
    """Write the plots of a run's report as PNG files, one each. Needs matplotlib: pip install 'ourospec[plots]'."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="Run directory.")]
    out: Annotated[
        str, tyro.conf.arg(metavar="DIR", help="Where to.", help_behavior_hint="(default: RUN/plots)")
    ] = ""
    theme: Annotated[Literal["light", "dark"], tyro.conf.arg(help="Colours.")] = "light"


def main(arguments: list[str]) -> None:
    """Draw, and name each file."""
    options = parse_options(PlotOptions, arguments, "plot")
    from ourospec.measure.report.plot import write_plots

    run = open_run(options.run)
    folder = Path(options.out) if options.out else run.path / "plots"
    if not write_plots(run, folder, options.theme, tell=print):
        raise DataError(
            f"{run.path} tells of no step yet: there is nothing to plot.",
            f"Train it first: ouro train {run.path}",
        )
