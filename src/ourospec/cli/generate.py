"""`ouro generate RUN --prompt "..."`: continue a text, and show how long each token was thought about."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ourospec.cli.options import (
    BudgetMs,
    BudgetPasses,
    MaxPasses,
    Readout,
    Threshold,
    budget_text,
    chosen_depth,
    parse_options,
)
from ourospec.cli.output import print_json
from ourospec.telemetry.depth_bands import band_colour, legend
from ourospec.telemetry.plain_text import visible

if TYPE_CHECKING:
    from ourospec.serve.generation import Generation
    from ourospec.serve.text import Piece


@dataclass(frozen=True)
class GenerateOptions:
    """Continue a text with a trained run. The same options give the same text."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="Run directory.")]
    prompt: Annotated[str, tyro.conf.arg(help="What to continue; nothing begins a new document.")] = ""
    max_new_tokens: Annotated[int, tyro.conf.arg(help="Tokens at most.")] = 200
    temperature: Annotated[
        float, tyro.conf.arg(help="Below 1 favours likely tokens; 0 always takes the likeliest.")
    ] = 0.8
    top_k: Annotated[int, tyro.conf.arg(help="Keep so many of the likeliest tokens; 0 keeps all.")] = 0
    top_p: Annotated[
        float, tyro.conf.arg(help="Keep the likeliest tokens up to this probability; 1 keeps all.")
    ] = 0.95
    min_p: Annotated[
        float, tyro.conf.arg(help="Keep tokens at least this share as likely as the likeliest; 0 keeps all.")
    ] = 0.0
    seed: Annotated[int, tyro.conf.arg(help="Of the draws.")] = 0
    stop: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="S", help="End the text before this; may be given several times."),
    ] = ()
    max_passes: MaxPasses = None
    threshold: Threshold = None
    readout: Readout = None
    budget: BudgetPasses = None
    budget_ms: BudgetMs = None
    depth: Annotated[bool, tyro.conf.arg(help="Colour each token by the passes it took.")] = False
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document instead of the text.")] = False


def main(arguments: list[str]) -> None:
    """Generate and print, token by token."""
    options = parse_options(GenerateOptions, arguments, "generate")
    from ourospec.cli.loading import load_run
    from ourospec.cli.overrides import validate
    from ourospec.serve.sampling import Sampling

    names = ("temperature", "top_k", "top_p", "min_p")
    sampling = validate(Sampling, {name: getattr(options, name) for name in names}, "ouro generate")
    effort, budget = chosen_depth(options)
    loaded = load_run(options.run)
    printer = None if options.json else Printer(options.prompt, options.depth, sys.stdout.isatty())
    start = time.perf_counter()
    generation = loaded.generate(
        options.prompt,
        max_new_tokens=options.max_new_tokens,
        sampling=sampling,
        seed=options.seed,
        stop=options.stop,
        effort=effort,
        budget=budget,
        on_piece=printer.piece if printer else None,
    )
    seconds = time.perf_counter() - start
    budgets = {"budget": options.budget, "budget_ms": options.budget_ms}
    if printer:
        printer.end(generation, seconds, budget_text(budgets))
    else:
        print_json({**as_data(options.prompt, generation, seconds), **budgets})


class Printer:
    """Writes the text as it comes, and nothing before there is some: what is refused leaves no half line.

    Args:
        prompt: what is continued.
        depth: mark each token with its passes, mean over the layers.
        colours: this is a terminal: mark by colour, and let no control character of the text act on it;
            otherwise mark by a number behind the token, ‹1.5›, and pass the text on as it is.
    """

    def __init__(self, prompt: str, depth: bool, colours: bool) -> None:
        self.prompt, self.depth, self.colours = prompt, depth, colours
        self.begun = False

    def begin(self) -> None:
        """The legend and the prompt, in grey, once."""
        if self.begun:
            return
        self.begun = True
        if self.depth:
            print(self.legend() + "\n")
        self.write(f"\033[90m{visible(self.prompt)}\033[0m" if self.colours else self.prompt)

    def legend(self) -> str:
        """What the colours or the numbers mean."""
        if not self.colours:
            return "Passes per layer, on average, stand behind each token: ‹1.5›"
        bands = "  ".join(f"\033[38;5;{colour}m{name}\033[0m" for name, colour in legend())
        return f"Passes per layer: {bands}"

    def piece(self, piece: Piece) -> None:
        """One token."""
        self.begin()
        text = visible(piece.text) if self.colours else piece.text
        if not text or not self.depth:
            self.write(text)
            return
        mean = mean_passes([piece.passes])
        if self.colours:
            self.write(f"\033[38;5;{band_colour(mean)}m{text}\033[0m")
        else:
            self.write(f"{text}‹{mean:.1f}›")

    def end(self, generation: Generation, seconds: float, budget: str = "") -> None:
        """What it took, beside the budget if there was one, on stderr: stdout is the text."""
        self.begin()
        self.write("\n")
        number = len(generation.tokens)
        passes = f"{mean_passes(generation.passes):.2f} passes per layer"
        beside = f" (budget {budget})" if budget else ""
        print(
            f"[{number} tokens, {passes}{beside}, {number / max(seconds, 1e-9):.0f} tokens/s]",
            file=sys.stderr,
        )

    def write(self, text: str) -> None:
        """At once, without a newline."""
        sys.stdout.write(text)
        sys.stdout.flush()


def mean_passes(passes: Any) -> float:
    """Mean over tokens and layers; 0 where there are none. passes [n][L]."""
    flat = [count for layers in passes for count in layers]
    return sum(flat) / len(flat) if flat else 0.0


def as_data(prompt: str, generation: Generation, seconds: float) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "prompt": prompt,
        "text": generation.text,
        "finish": generation.finish,
        "tokens": generation.tokens,
        "pieces": generation.pieces,
        "passes": generation.passes,
        "mean_passes": mean_passes(generation.passes),
        "seconds": seconds,
    }
