"""The plots of a report as pictures, drawn by matplotlib from the same descriptions.

What a description may hold is what drawing.py makes: lines (stacked, dashed, with error bars), bars, heat maps,
shapes that span the plot, and a few words about each axis. Anything else is refused, so that no plot goes missing
from the pictures unnoticed.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ourospec.errors import ResourceError
from ourospec.measure.report.drawing import Figure
from ourospec.measure.report.figures import draw_figures
from ourospec.measure.report.history import read_history
from ourospec.runs import RunDirectory

Theme = Literal["light", "dark"]
SIZE = (7.0, 4.2)
"""Inches."""
RESOLUTION = 160
"""Dots per inch."""
CAPTION_WIDTH = 130
"""Characters."""
MARKS = {"circle": "o", "diamond": "D"}
DASHES = {"solid": "-", "dot": ":", "dash": "--"}
COLOUR = re.compile(r"--([\w-]+): light-dark\(([^,]+), ([^)]+)\)")
NAMED = re.compile(r"var\(--([\w-]+)\)")


def write_plots(
    run: RunDirectory, folder: Path, theme: Theme = "light", tell: Callable[[Path], None] | None = None
) -> list[Path]:
    """Write every plot of the run's report as a PNG, and return their paths.

    Args:
        folder: made where it is missing; plots of the same names are replaced.
        tell: hears of each picture once it is written.

    Raises:
        DataError: the run's files cannot be read, or tell nothing yet.
        ResourceError: matplotlib is missing, or the folder cannot be written.
    """
    return paint(draw_figures(read_history(run)), folder, theme, tell)


def paint(
    figures: Iterable[Figure],
    folder: Path,
    theme: Theme = "light",
    tell: Callable[[Path], None] | None = None,
    option: str = "--out",
) -> list[Path]:
    """Write figures as PNGs, and return their paths; `option` is the one that names the folder, the rest and errors are
    as of `write_plots`."""
    painter = Painter(theme)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for figure in figures:
            path = folder / f"{figure.name}.png"
            painter.paint(figure, path)
            written.append(path)
            if tell is not None:
                tell(path)
    except OSError as error:
        raise ResourceError(
            f"{folder} could not be written: {error.strerror or error}.",
            f"Choose another place with {option} DIR.",
        ) from error
    return written


class Painter:
    """Draws figures in one theme.

    Raises:
        ResourceError: matplotlib is missing.
    """

    def __init__(self, theme: Theme = "light") -> None:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure as Picture
        except ImportError as error:
            raise ResourceError(
                "Pictures need matplotlib, which is not installed.",
                "Install it: pip install 'ourospec[plots]'",
            ) from error
        self._picture, self._canvas = Picture, FigureCanvasAgg
        self._colours = page_colours(theme)

    def paint(self, figure: Figure, path: Path) -> None:
        """One figure into one file.

        Raises:
            OSError: the file cannot be written.
        """
        picture = self._picture(figsize=SIZE, facecolor=self._named("card"), layout="constrained")
        self._canvas(picture)
        axes = picture.add_subplot(facecolor=self._named("card"))
        self._frame(axes, figure)
        for shape in figure.layout.get("shapes", ()):
            self._shape(axes, shape)
        shown = sum(trace.get("showlegend") is not False and "name" in trace for trace in figure.data)
        base = np.zeros(1)
        for trace in figure.data:
            base = self._trace(picture, axes, trace, base)
        self._scale(axes, figure.layout)
        if shown > 1:
            legend = axes.legend(
                loc="lower left", bbox_to_anchor=(0, 1), ncols=min(shown, 5), frameon=False, fontsize=8,
                borderaxespad=0.2, handlelength=1.6, columnspacing=1.2,
            )  # fmt: skip
            for text in legend.get_texts():
                text.set_color(self._named("soft"))
        picture.savefig(path, dpi=RESOLUTION)

    def _frame(self, axes: Any, figure: Figure) -> None:
        """Title, words of the axes, grid and edges."""
        soft = self._named("soft")
        title = axes.figure.suptitle(
            figure.title, x=0.01, ha="left", color=self._named("ink"), fontsize=12, weight="bold"
        )
        title.set_parse_math(False)  # a reading may be called anything
        words = textwrap.fill(figure.caption, CAPTION_WIDTH)
        axes.figure.supxlabel(words, x=0.01, ha="left", color=self._named("faint"), fontsize=7.5)
        for name, axis in (("xaxis", axes.xaxis), ("yaxis", axes.yaxis)):
            axis.set_label_text(
                figure.layout.get(name, {}).get("title", {}).get("text", ""), color=soft, fontsize=9
            )
        axes.tick_params(colors=soft, labelsize=8, length=0)
        if figure.layout.get("yaxis", {}).get("showgrid") is not False:
            axes.grid(color=self._named("grid"), linewidth=0.8)
        axes.set_axisbelow(True)
        for name, spine in axes.spines.items():
            spine.set_visible(name in ("left", "bottom"))
            spine.set_color(self._named("edge"))

    def _shape(self, axes: Any, shape: Mapping[str, Any]) -> None:
        if shape["type"] == "rect":
            axes.axvspan(
                shape["x0"], shape["x1"], color=self._colour(shape["fillcolor"]), linewidth=0, zorder=0
            )
        elif shape["type"] == "line":
            style = shape["line"]
            colour, dash = self._colour(style["color"]), DASHES[style["dash"]]
            axes.axhline(shape["y0"], color=colour, linewidth=style["width"], linestyle=dash, zorder=1)
        else:
            raise ValueError(f"a shape of type {shape['type']!r} cannot be drawn here")

    def _trace(self, picture: Any, axes: Any, trace: Mapping[str, Any], base: np.ndarray) -> np.ndarray:
        """Draw a trace; returns what the next one of a stack stands on."""
        if trace["type"] == "heatmap":
            self._heat(picture, axes, trace)
            return base
        label = trace.get("name") if trace.get("showlegend") is not False else None
        y = np.asarray(trace["y"], dtype=float)
        if trace["type"] == "bar":
            places = trace["x"]
            names = [str(place).replace("<br>", "\n") for place in places]
            numeric = all(isinstance(place, int | float) for place in places)
            base = base if len(base) == len(y) else np.zeros(len(y))
            low = base if numeric else 0
            colour = self._colour(trace["marker"]["color"])
            axes.bar(places if numeric else names, y, bottom=low, width=0.7, color=colour, label=label)
            self._errors(axes, trace, names if not numeric else places, y)
            return base + y
        if trace["type"] != "scatter":
            raise ValueError(f"a trace of type {trace['type']!r} cannot be drawn here")
        if "stackgroup" in trace:
            base = base if len(base) == len(y) else np.zeros(len(y))
            colour = self._colour(trace["fillcolor"])
            axes.fill_between(trace["x"], base, base + y, color=colour, linewidth=0, label=label)
            return base + y
        style = trace["line"]
        marker = {}
        if "markers" in trace["mode"]:
            marker = {"marker": MARKS[trace.get("marker", {}).get("symbol", "circle")], "markersize": 3.5}
        axes.plot(
            trace["x"], y, color=self._colour(style["color"]), linewidth=0.75 * style["width"], label=label,
            alpha=trace.get("opacity", 1.0), linestyle=DASHES[style.get("dash", "solid")], **marker,
        )  # fmt: skip
        self._errors(axes, trace, trace["x"], y)
        return base

    def _errors(self, axes: Any, trace: Mapping[str, Any], x: Any, y: np.ndarray) -> None:
        bars = trace.get("error_y")
        if bars:
            colour = self._colour(bars.get("color") or trace["line"]["color"])
            axes.errorbar(x, y, yerr=bars["array"], fmt="none", ecolor=colour, elinewidth=1, capsize=2)

    def _heat(self, picture: Any, axes: Any, trace: Mapping[str, Any]) -> None:
        from matplotlib.colors import LinearSegmentedColormap
        from matplotlib.ticker import MultipleLocator

        scale = [(share, self._colour(colour)) for share, colour in trace["colorscale"]]
        x, y, z = np.asarray(trace["x"]), np.asarray(trace["y"], dtype=float), np.asarray(trace["z"])
        half = (x[1] - x[0]) / 2 if len(x) > 1 else 0.5
        extent = (x[0] - half, x[-1] + half, y[-1] + 0.5, y[0] - 0.5)
        image = axes.imshow(
            z, aspect="auto", extent=extent, vmin=trace["zmin"], vmax=trace["zmax"], interpolation="nearest",
            cmap=LinearSegmentedColormap.from_list("depth", scale),
        )  # fmt: skip
        bar = picture.colorbar(image, ax=axes, pad=0.02, aspect=30)
        bar.locator = MultipleLocator(trace["colorbar"]["dtick"])
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=self._named("soft"), labelsize=8, length=0)

    def _scale(self, axes: Any, layout: Mapping[str, Any]) -> None:
        """Ranges, ticks and their format."""
        from matplotlib.ticker import FuncFormatter, MultipleLocator

        for name, axis, limit in (("xaxis", axes.xaxis, axes.set_xlim), ("yaxis", axes.yaxis, axes.set_ylim)):
            asked = layout.get(name, {})
            if asked.get("type") == "log":
                axis.axes.set_yscale("log")
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_tick_params(which="minor", labelsize=7, length=0, colors=self._named("faint"))
            if asked.get("dtick"):
                axis.set_major_locator(MultipleLocator(asked["dtick"]))
            if asked.get("range"):
                limit(*asked["range"])
            elif asked.get("rangemode") == "tozero" or (name == "xaxis" and _from_zero(axes)):
                limit(0, None)
            form = asked.get("tickformat")
            if form:
                axis.set_major_formatter(FuncFormatter(lambda value, _, form=form: format(value, form)))

    def _named(self, name: str) -> str:
        return self._colours[name]

    def _colour(self, colour: str) -> str:
        named = NAMED.fullmatch(colour)
        return self._colours[named[1]] if named else colour


def page_colours(theme: Theme) -> dict[str, str]:
    """The colours of the report's style sheet by name."""
    sheet = resources.files("ourospec.measure.report").joinpath("page.css").read_text(encoding="utf-8")
    return {name: light if theme == "light" else dark for name, light, dark in COLOUR.findall(sheet)}


def _from_zero(axes: Any) -> bool:
    """Whether the horizontal axis counts steps: as on the page it then begins with the run."""
    return axes.get_xlabel() == "step"
