"""The pictures: one for every plot of the page, in the page's colours, and refused where something cannot be drawn."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from ourospec.contracts import Event
from ourospec.errors import ResourceError
from ourospec.measure.report.drawing import Figure
from ourospec.measure.report.figures import draw_figures
from ourospec.measure.report.history import read_history
from ourospec.measure.report.plot import Painter, page_colours, write_plots
from ourospec.runs import RunDirectory
from ourospec.telemetry.events import encode

from .synthetic_run import write_run

pytest.importorskip("matplotlib")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("dense", [False, True])
def test_every_plot_of_the_page_becomes_a_picture(tmp_path: Path, theme, dense) -> None:
    run = write_run(tmp_path / "run", steps=60, dense=dense)
    told: list[Path] = []
    written = write_plots(run, tmp_path / "out" / "deep", theme, told.append)
    assert told == written
    assert {path.stem for path in written} == {figure.name for figure in draw_figures(read_history(run))}
    for path in written:
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size > 8_000, "not an empty frame"


def test_a_picture_shows_what_the_figure_holds(tmp_path: Path) -> None:
    from matplotlib import image

    run = write_run(tmp_path / "run", steps=60)
    figure = next(figure for figure in draw_figures(read_history(run)) if figure.name == "layer-histogram")
    Painter("light").paint(figure, tmp_path / "a.png")
    pixels = (image.imread(tmp_path / "a.png")[..., :3] * 255).round().astype(int)
    colours = {tuple(pixel) for pixel in pixels.reshape(-1, 3)}
    for trace in figure.data:
        name = trace["marker"]["color"].removeprefix("var(--").removesuffix(")")
        value = page_colours("light")[name].lstrip("#")
        assert tuple(int(value[i : i + 2], 16) for i in (0, 2, 4)) in colours, name


def test_both_themes_know_every_colour_of_the_style_sheet() -> None:
    light, dark = page_colours("light"), page_colours("dark")
    assert (
        light.keys()
        == dark.keys()
        >= {"ink", "card", "grid", "train", "heldout", "accent", "r0", "r8", "good-bg"}
    )
    assert all(colour.startswith("#") for colour in [*light.values(), *dark.values()])
    assert light["ink"] != dark["ink"]


@pytest.mark.parametrize(
    "figure",
    [
        Figure("a", "s", "A", "", [{"type": "pie", "y": [1]}]),
        Figure("a", "s", "A", "", [], {"shapes": [{"type": "circle"}]}),
    ],
)
def test_what_it_cannot_draw_is_not_left_out_in_silence(tmp_path: Path, figure: Figure) -> None:
    with pytest.raises(ValueError, match="cannot be drawn"):
        Painter().paint(figure, tmp_path / "a.png")


def test_a_reading_may_be_called_anything(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.recipe.write_text("{}")
    odd = [Event("step", n, {"$\\frac{$": 1.0 + n, "../../x/y": 2.0 + n}) for n in range(1, 9)]
    run.events.write_text("".join(encode(event, 1.79e9) for event in odd))
    written = write_plots(run, tmp_path / "out")
    assert len(written) == 2
    assert all(path.parent == tmp_path / "out" and path.is_file() for path in written)


def test_without_matplotlib_the_command_to_install_it_is_named(tmp_path: Path, monkeypatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResourceError, match="matplotlib") as caught:
        write_plots(write_run(tmp_path / "run", steps=20), tmp_path / "out")
    assert "pip install 'ourospec[plots]'" in caught.value.remedy
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="could not be written"):
        write_plots(write_run(tmp_path / "run", steps=20), tmp_path / "file")
