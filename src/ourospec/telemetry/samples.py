"""Sample texts as files, to be read side by side: samples/step-00000200.txt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ourospec.contracts import Event
from ourospec.runs import RunDirectory
from ourospec.telemetry.plain_text import visible


class SampleFiles:
    """Writes each round of samples into a file of its own, named by the step."""

    def __init__(self, run: RunDirectory) -> None:
        self._folder = run.samples

    def on_event(self, event: Event) -> None:
        """Write the file if the event is a round of samples; the same step again replaces it."""
        if event.kind != "sample":
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"step-{event.step:08d}.txt"
        path.write_text(render_samples(event.data.get("samples", [])), encoding="utf-8")

    def close(self) -> None:
        """Nothing is held open."""


def render_samples(samples: Sequence[Mapping[str, Any]]) -> str:
    """All samples of a round: a ruler with the prompt and the mean passes, then prompt and text as one."""
    blocks = []
    for sample in samples:
        prompt, text = sample.get("prompt", ""), sample.get("text", "")
        title = f"prompt {prompt!r}" if prompt else "no prompt"
        passes = sample.get("passes") or []
        if passes:
            title += f", {sum(passes) / len(passes):.2f} passes a token"
        blocks.append(f"--- {title} ---\n{visible(prompt + text)}\n")
    return "\n".join(blocks)
