"""Several runs of one recipe with different seeds in one plot."""

from __future__ import annotations

from collections.abc import Mapping

from ourospec.measure.report.drawing import Figure, axes, level, line
from ourospec.measure.report.history import History

COLOURS = ("var(--train)", "var(--heldout)", "var(--good)", "var(--warn)", "var(--bad)", "var(--soft)")
"""Of the seeds, over and over again."""
REFERENCE = "var(--faint)"


def seed_figure(histories: Mapping[str, History], references: Mapping[str, float], title: str) -> Figure:
    """Held-out loss by step, a line for each run, and references as dashed lines across the plot.

    Args:
        histories: by the name of the seed.
        references: losses that stand for something, by what they stand for, in nats per target.
    """
    data = []
    for number, (name, history) in enumerate(histories.items()):
        scored = [moment for moment in history.evaluations if moment.data.get("loss") is not None]
        if scored:
            steps, losses = [moment.step for moment in scored], [moment.data["loss"] for moment in scored]
            data.append(line(steps, losses, name, COLOURS[number % len(COLOURS)]))
    layout = axes("held-out nats per target")
    layout["shapes"] = [level(height, REFERENCE, "dash") for height in references.values()]
    lines = "; ".join(f"{name} at {height:.4f}" for name, height in references.items())
    caption = "One line a seed, on the held-out targets of the evaluations during training."
    return Figure(
        "seeds", "learning", title, f"{caption} Dashed: {lines}." if lines else caption, data, layout
    )
