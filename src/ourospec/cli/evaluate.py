"""`ouro evaluate RUN`: loss, perplexity, bits per byte, depth and FLOPs on held-out text, with errors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ourospec.cli.options import parse_options
from ourospec.cli.output import flop, print_json, print_section
from ourospec.telemetry.quantities import with_error

if TYPE_CHECKING:
    from ourospec.api import LoadedModel


@dataclass(frozen=True)
class EvaluateOptions:
    """Measure a run: loss, perplexity, bits per byte, depth, FLOPs, with standard errors over documents."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN", help="Run directory.")]
    data: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            metavar="PATH ...",
            help="Text files, folders or globs to measure on, all of them.",
            help_behavior_hint="(default: the run's own held-out text)",
        ),
    ] = ()
    max_passes: Annotated[
        int | None, tyro.conf.arg(help="Passes per token and layer at most; None: as trained.")
    ] = None
    threshold: Annotated[
        float | None,
        tyro.conf.arg(help="Survival under which a token leaves its layer, 0 to 1; None: as trained."),
    ] = None
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.")] = False


def main(arguments: list[str]) -> None:
    """Measure, and print."""
    options = parse_options(EvaluateOptions, arguments, "evaluate")
    figures = evaluate(options)
    if options.json:
        print_json(figures)
    else:
        show(figures)


def evaluate(options: EvaluateOptions) -> dict[str, Any]:
    """The figures, and what they are about."""
    from ourospec.cli.loading import load_run
    from ourospec.cli.overrides import validate
    from ourospec.contracts import Effort
    from ourospec.data.files import FilesSource
    from ourospec.data.text import TextData

    loaded = load_run(options.run)
    data = None
    if options.data:
        source = validate(FilesSource, {"paths": options.data}, "ouro evaluate")
        data = TextData(source=source, tokenizer=loaded.recipe.data.tokenizer)
    effort = Effort(max_passes=options.max_passes, threshold=options.threshold)
    return {**about(loaded, options), **loaded.evaluate(data, effort=effort)}


def about(loaded: LoadedModel, options: EvaluateOptions) -> dict[str, Any]:
    """Which model read which text."""
    return {
        "run": options.run,
        "family": loaded.recipe.family,
        "step": loaded.origin.step,
        "data": list(options.data) or "held-out",
        "max_passes": options.max_passes,
        "threshold": options.threshold,
    }


def show(figures: dict[str, Any]) -> None:
    """Print for a person, each ratio with its standard error."""

    def figure(name: str, digits: int) -> str:
        return with_error(figures[name], figures[f"{name}_se"], digits)

    text = figures["data"] if isinstance(figures["data"], str) else ", ".join(figures["data"])
    read = f"{figures['documents']:,} documents, {figures['tokens']:,} tokens, {figures['bytes']:,} bytes"
    layers = "  ".join(f"{passes:.2f}" for passes in figures["passes_by_layer"])
    rows = [
        ("text", f"{text}: {read}"),
        ("loss", f"{figure('loss', 4)} nats per token"),
        ("perplexity", figure("perplexity", 2)),
        ("bits per byte", figure("bits_per_byte", 4)),
        ("passes", f"{figure('mean_passes', 3)} per token and layer (by layer: {layers})"),
        ("FLOPs", f"{flop(figures['flops_per_token'])} forward per token, executed"),
    ]
    print_section(f"{figures['run']}, {figures['family']} after step {figures['step']:,}", rows)
    print("± is the standard error over documents.")
