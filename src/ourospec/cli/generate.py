"""`ouro generate RUN --prompt "..."`: continue a text, and show how long each token was thought about."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ourospec.cli.options import (
    BudgetMs,
    Checkpoint,
    MaxPasses,
    Readout,
    Threshold,
    budget_text,
    chosen_depth,
    parse_options,
)
from ourospec.cli.output import flop, print_json, told_if_slow
from ourospec.cli.puzzle import each_pass, refuse_beside, solve_puzzle
from ourospec.errors import ConfigError, DataError
from ourospec.telemetry.depth_bands import band_colour, legend
from ourospec.telemetry.plain_text import visible

if TYPE_CHECKING:
    from ourospec.loaded_model import LoadedModel
    from ourospec.serve.generation import Generation
    from ourospec.serve.speculation import Speculation
    from ourospec.serve.text import Piece


@dataclass(frozen=True)
class GenerateOptions:
    """Continue a text, or several at once, with a trained run. The same options give the same text."""

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
    budget: Annotated[
        float | None,
        tyro.conf.arg(
            help="Mean passes per token and layer of this text: its threshold moves until it is kept."
        ),
    ] = None
    budget_ms: BudgetMs = None
    weights: Annotated[
        Literal["float32", "int8"],
        tyro.conf.arg(help="In what the weights are read: int8 is faster, and not quite the same model."),
    ] = "float32"
    speculate: Annotated[
        bool,
        tyro.conf.arg(
            help="Draft with one pass and verify several tokens at once: the text stays what it is."
        ),
    ] = False
    prompts_file: Annotated[
        str | None,
        tyro.conf.arg(
            metavar="FILE", help="Continue each line of this file, all together; text i has seed + i."
        ),
    ] = None
    checkpoint: Checkpoint = "newest"
    puzzle: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="N",
            help="Of a run on puzzles: answer held-out puzzle N with 1, 2, ... passes and as the model decides.",
        ),
    ] = None
    each_pass: Annotated[
        bool, tyro.conf.arg(help="Continue the prompt with 1, 2, ... passes and as the model decides.")
    ] = False
    depth: Annotated[bool, tyro.conf.arg(help="Colour each token by the passes it took.")] = False
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document instead of the text.")] = False


def main(arguments: list[str]) -> None:
    """Generate and print, token by token."""
    options = parse_options(GenerateOptions, arguments, "generate")
    refuse_beside(options)
    from ourospec.cli.loading import load_run
    from ourospec.cli.overrides import validate
    from ourospec.serve.sampling import Sampling

    names = ("temperature", "top_k", "top_p", "min_p")
    sampling = validate(Sampling, {name: getattr(options, name) for name in names}, "ouro generate")
    effort, budget = chosen_depth(options)
    settings: dict[str, Any] = {
        "max_new_tokens": options.max_new_tokens,
        "sampling": sampling,
        "seed": options.seed,
        "stop": options.stop,
        "effort": effort,
        "budget": budget,
        "weights": options.weights,
    }
    prompts = None if options.prompts_file is None else read_prompts(options)
    loaded = load_run(options.run, options.checkpoint)
    if options.puzzle is not None:
        solve_puzzle(loaded, options)
        return
    with told_if_slow(
        "Compiling the decoding step for this machine; that is done once and takes some ten seconds."
    ):
        loaded.stepper(options.weights)
    if options.each_pass:
        each_pass(loaded, options, settings)
    elif prompts is None:
        _one(loaded, options, settings)
    else:
        _several(loaded, options, prompts, settings)


def _one(loaded: LoadedModel, options: GenerateOptions, settings: dict[str, Any]) -> None:
    """One text, as it comes."""
    printer = None if options.json else Printer(options.prompt, options.depth, sys.stdout.isatty())
    generation = loaded.generate(
        options.prompt, **settings, speculate=options.speculate, on_piece=printer.piece if printer else None
    )
    if printer:
        printer.end()
        print(f"[{summary([generation], budget_text(_budgets(options)))}]", file=sys.stderr)
    else:
        print_json({**as_data(options.prompt, generation), **_budgets(options)})


def _several(
    loaded: LoadedModel, options: GenerateOptions, prompts: list[str], settings: dict[str, Any]
) -> None:
    """All texts of a file, once they have ended."""
    from ourospec.serve.text import Piece

    texts = loaded.generate_batch(prompts, **settings)
    if options.json:
        data = [as_data(prompt, made) for prompt, made in zip(prompts, texts, strict=True)]
        print_json({"texts": data, "seconds": wall_seconds(texts), **_budgets(options)})
        return
    for number, (prompt, made) in enumerate(zip(prompts, texts, strict=True), start=1):
        print(f"--- {number}")
        printer = Printer(prompt, options.depth, sys.stdout.isatty(), explain=number == 1)
        for piece in zip(made.tokens, made.pieces, map(tuple, made.passes), strict=True):
            printer.piece(Piece(*piece))
        printer.end()
    print(f"[{summary(texts, budget_text(_budgets(options)))}]", file=sys.stderr)


def read_prompts(options: GenerateOptions) -> list[str]:
    """The lines of --prompts-file.

    Raises:
        ConfigError: another prompt was given as well, or drafting, which is for one text alone.
        DataError: the file cannot be read, or holds no line.
    """
    if options.prompt or options.speculate:
        other = "--speculate" if options.speculate else "--prompt"
        raise ConfigError(f"{other} is for one text, and --prompts-file for several.", f"Leave {other} out.")
    try:
        lines = Path(str(options.prompts_file)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{options.prompts_file} cannot be read as UTF-8 text: {error}",
            "Name a file with one prompt a line.",
        ) from error
    if not lines:
        raise DataError(f"{options.prompts_file} holds no prompt.", "Write one prompt a line.")
    return lines


def _budgets(options: GenerateOptions) -> dict[str, float | None]:
    return {"budget": options.budget, "budget_ms": options.budget_ms}


class Printer:
    """Writes the text as it comes, and nothing before there is some: what is refused leaves no half line.

    Args:
        prompt: what is continued.
        depth: mark each token with its passes, mean over the layers.
        colours: this is a terminal: mark by colour, and let no control character of the text act on it;
            otherwise mark by a number behind the token, ‹1.5›, and pass the text on as it is.
        explain: say what the marks mean.
    """

    def __init__(self, prompt: str, depth: bool, colours: bool, explain: bool = True) -> None:
        self.prompt, self.depth, self.colours, self.explain = prompt, depth, colours, explain
        self.begun = False

    def begin(self) -> None:
        """The legend and the prompt, in grey, once."""
        if self.begun:
            return
        self.begun = True
        if self.depth and self.explain:
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

    def end(self) -> None:
        """The text is whole."""
        self.begin()
        self.write("\n")

    def write(self, text: str) -> None:
        """At once, without a newline."""
        sys.stdout.write(text)
        sys.stdout.flush()


def wall_seconds(texts: Sequence[Generation]) -> float:
    """What texts that were decoded together took: their prompts one by one, the rest at once."""
    receipts = [made.receipt for made in texts]
    return sum(one.prompt_seconds for one in receipts) + max(one.seconds for one in receipts)


def summary(texts: Sequence[Generation], budget: str = "") -> str:
    """What they took, in one line: the receipts of all texts together, beside the budget in words if there was one."""
    receipts = [made.receipt for made in texts]
    number, first = sum(len(made.tokens) for made in texts), receipts[0]
    passes = f"{mean_passes([layers for made in texts for layers in made.passes]):.2f} passes per layer"
    parts = [
        f"{number} tokens",
        f"{passes} (budget {budget})" if budget and first.unit == "passes" else passes,
    ]
    parts.append(f"{number / max(wall_seconds(texts), 1e-9):.0f} tokens/s")
    if len(texts) == 1 and first.ms_per_token is not None:
        asked = f" (budget {budget})" if first.unit == "ms" else ""
        parts.append(f"{first.ms_per_token:.2f} ms a token after {1000 * first.prompt_seconds:.0f} ms{asked}")
    elif first.unit == "ms" and first.kept is not None:
        parts.append(f"{first.kept:.2f} ms a token (budget {budget})")
    parts.append(flop(sum(receipt.flops or 0.0 for receipt in receipts)))
    if first.thresholds is not None:
        parts.append("threshold {:.3g} to {:.3g}".format(*first.thresholds))
    if first.speculation is not None:
        parts.append(drafts_text(first.speculation))
    stepped = max(receipt.stepped for receipt in receipts) > 0
    return ", ".join([*parts, f"{first.weights}{', compiled step' if stepped else ''}"])


def mean_passes(passes: Any) -> float:
    """Mean over tokens and layers; 0 where there are none. passes [n][L]."""
    flat = [count for layers in passes for count in layers]
    return sum(flat) / len(flat) if flat else 0.0


def drafts_text(drafts: Speculation) -> str:
    """What drafting came to."""
    if not drafts.drafted:
        return "no draft would have paid"
    return (
        f"{drafts.acceptance:.0%} of drafts accepted, {drafts.mean_draft:.1f} a draft, "
        f"{drafts.tokens_per_verification:.2f} tokens a verification"
    )


def as_data(prompt: str, generation: Generation) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "prompt": prompt,
        "text": generation.text,
        "finish": generation.finish,
        "tokens": generation.tokens,
        "pieces": generation.pieces,
        "passes": generation.passes,
        "mean_passes": mean_passes(generation.passes),
        "seconds": generation.receipt.prompt_seconds + generation.receipt.seconds,
        "receipt": generation.receipt.as_data(),
    }
