"""The console on a terminal: a live block at the bottom, and above it what happened."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from ourospec.telemetry import wording
from ourospec.telemetry.depth_bands import band_colour, legend
from ourospec.telemetry.plain_text import visible
from ourospec.telemetry.progress import Progress
from ourospec.telemetry.quantities import clock, decimal

REDRAW_SECONDS = 0.2
SAMPLE_LINES = 8
BLOCKS = " ▁▂▃▄▅▆▇█"
CURVE_WIDTH = 32


class LiveView:
    """Draws with rich. What has happened scrolls by; where the run stands stays in place."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress()
        self._live: Live | None = None
        self._drawn = 0.0

    def begin(self, progress: Progress) -> None:
        """The run starts: a headline, what is read, then the live block."""
        self._progress = progress
        headline = Text.assemble(
            (wording.title(progress.start), "bold cyan"), "  ", wording.opening(progress.start)
        )
        self._console.print(headline)
        if corpus := wording.corpus(progress.start):
            self._console.print(_numbers(corpus))
        if self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=self._block,
                auto_refresh=False,  # nothing moves between events, and a thread would draw while they come in
                transient=True,
            )
            self._live.start(refresh=True)

    def step(self, progress: Progress) -> None:
        """A step is done; redraw the block if it was not only just drawn."""
        self._progress = progress
        now = time.monotonic()
        if self._live is not None and (now - self._drawn > REDRAW_SECONDS or progress.step == progress.total):
            self._drawn = now
            self._live.refresh()

    def evaluation(self, progress: Progress) -> None:
        """Held-out text was scored."""
        line = Text.assemble(
            (f"step {progress.evaluated_at:,} ", "dim"),
            (f"{wording.split_name(progress.evaluation)}  ", "bold"),
        )
        self._console.print(
            line.append_text(_numbers(wording.scores(progress.evaluation, adaptive=progress.adaptive)))
        )

    def samples(self, step: int, samples: Sequence[Mapping[str, Any]]) -> None:
        """Texts were drawn."""
        coloured = any(_varied(sample) for sample in samples)
        title = Text().append(f"samples at step {step:,}", "dim")
        if coloured:
            title.append("   passes per layer: ", "dim")
            for name, colour in legend():
                title.append(f"{name} ", f"color({colour})")
        self._console.print(Rule(title, style="dim", align="left"))
        for sample in samples:
            self._console.print(Padding(_sample_text(sample, coloured), (0, 0, 1, 2)))

    def checkpoint(self, step: int, data: Mapping[str, Any]) -> None:
        """The block says when the run was last saved."""

    def warning(self, message: str) -> None:
        """Something is not as it should be."""
        self._console.print(Text.assemble(("warning ", "bold yellow"), visible(message)))

    def end(self, progress: Progress, data: Mapping[str, Any]) -> None:
        """The run is over: the block gives way to what it came to."""
        self.close()
        status = str(data.get("status", "ended"))
        style = {"complete": "bold green", "interrupted": "bold yellow"}.get(status, "bold red")
        self._console.print(
            Rule(Text(f"{status} after step {progress.step:,} of {progress.total:,}", style), align="left")
        )
        table = Table.grid(padding=(0, 3))
        for name, value in wording.summary(progress, data):
            table.add_row(Text(name, "dim"), Text(value, "bold"))
        self._console.print(table)

    def close(self) -> None:
        """Give the terminal back as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _block(self) -> RenderableType:
        progress = self._progress
        rows: list[RenderableType] = [self._bar(), *_readings(progress)]
        if len(progress.losses) > 1:
            rows.append(_curve(progress))
        return Padding(Group(*rows), (1, 0, 0, 0))

    def _bar(self) -> RenderableType:
        progress = self._progress
        width = max(10, min(48, self._console.width - 58))
        line = Table.grid(padding=(0, 2))
        share = progress.step / progress.total if progress.total else 0.0
        trained = clock(progress.latest.get("seconds"))
        line.add_row(
            ProgressBar(total=max(progress.total, 1), completed=progress.step, width=width),
            Text.assemble((f"{share:.0%}", "bold"), f"  step {progress.step:,} of {progress.total:,}"),
            Text.assemble(
                (trained, "bold"), (" trained  ", "dim"), (wording.left(progress), "bold"), (" left", "dim")
            ),
        )
        return line


def _readings(progress: Progress) -> list[RenderableType]:
    """The step's numbers over the last evaluation's, in columns."""
    table = Table.grid(padding=(0, 2))
    if progress.latest:
        table.add_row(Text("training", "dim"), _unbroken(wording.readings(progress)))
    if progress.evaluation:
        scores = wording.scores(progress.evaluation, adaptive=progress.adaptive)
        name = f"{wording.split_name(progress.evaluation)}, step {progress.evaluated_at:,}"
        table.add_row(Text(name, "dim"), _unbroken(scores))
    return [table] if table.row_count else []


def _numbers(pairs: Sequence[tuple[str, str]]) -> Text:
    line = Text()
    for name, value in pairs:
        line.append("   " if line else "")
        line.append(f"{name} ", "dim")
        line.append(value, "bold")
    return line


def _unbroken(pairs: Sequence[tuple[str, str]]) -> RenderableType:
    """As `_numbers`, but where a line ends, no number is parted from its name."""
    return Columns([_numbers([pair]) for pair in pairs], padding=(0, 3))


def _curve(progress: Progress) -> Text:
    """The loss so far in a line of blocks, the highest block for the highest loss."""
    values = progress.losses
    count = min(CURVE_WIDTH, len(values))
    edges = [round(i * len(values) / count) for i in range(count + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges) if b > a]
    low, high = min(means), max(means)
    heights = [1 + round((mean - low) / (high - low) * 7) if high > low else 1 for mean in means]
    saved = f"   saved at step {progress.saved_at:,}" if progress.saved_at is not None else ""
    return Text.assemble(
        ("loss  ", "dim"), (decimal(means[0], 2), "dim"), " ",
        ("".join(BLOCKS[height] for height in heights), "cyan"), " ",
        (decimal(means[-1], 2), "dim"), (saved, "dim"),
    )  # fmt: skip


def _varied(sample: Mapping[str, Any]) -> bool:
    """Whether there is depth to show: not where every token took one pass."""
    return any(passes > 1 for passes in sample.get("passes") or ())


def _sample_text(sample: Mapping[str, Any], coloured: bool) -> Text:
    """Prompt and text, cut to a few lines; the whole is in the samples folder."""
    text = Text().append(visible(sample.get("prompt", "")), "dim")
    if coloured:
        for piece, passes in zip(sample["pieces"], sample["passes"], strict=False):
            text.append(visible(piece), f"color({band_colour(passes)})")
    else:
        text.append(visible(sample.get("text", "")))
    text.rstrip()
    lines = text.split("\n", allow_blank=True)
    if len(lines) > SAMPLE_LINES:
        return Text("\n").join([*lines[:SAMPLE_LINES], Text("…", "dim")])
    return text
