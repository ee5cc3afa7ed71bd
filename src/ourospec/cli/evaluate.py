"""`ouro evaluate RUN`: loss, perplexity, bits per byte, depth and FLOPs on held-out text, with errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from ourospec.cli.options import (
    BudgetMs,
    BudgetPasses,
    Checkpoint,
    MaxPasses,
    Readout,
    Threshold,
    budget_text,
    chosen_depth,
    parse_options,
)
from ourospec.cli.output import flop, print_json, print_section, print_table, progress
from ourospec.cli.thinking import show_thinking
from ourospec.errors import ConfigError
from ourospec.telemetry.quantities import counted, with_error

if TYPE_CHECKING:
    from ourospec.api import LoadedModel

ROWS = "_rows"
"""Under this name the lines for a person travel with the figures of a model that does not read text."""


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
    on_undecodable: Annotated[
        Literal["refuse", "replace"] | None,
        tyro.conf.arg(
            help="What to do about bytes of --data that are not UTF-8: stop and name them, or put U+FFFD in their "
            "place; None: as in training."
        ),
    ] = None
    max_passes: MaxPasses = None
    threshold: Threshold = None
    readout: Readout = None
    budget: BudgetPasses = None
    budget_ms: BudgetMs = None
    checkpoint: Checkpoint = "newest"
    thinking_tokens: Annotated[
        int,
        tyro.conf.arg(
            help="Tokens of a sample on which is measured what passes, halting and memory are worth; 0: not at all."
        ),
    ] = 10_000
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.")] = False


def main(arguments: list[str]) -> None:
    """Measure, and print."""
    options = parse_options(EvaluateOptions, arguments, "evaluate")
    with progress(shown=not options.json and sys.stderr.isatty()) as tell:
        figures = evaluate(options, tell)
    if options.json:
        print_json({name: value for name, value in figures.items() if name != ROWS})
    elif ROWS in figures:
        print_section(heading(figures), figures[ROWS])
        print("± is the standard error over stretches of held-out data.")
    else:
        show(figures)


def evaluate(options: EvaluateOptions, tell: Callable[[str], None] | None = None) -> dict[str, Any]:
    """The figures, and what they are about.

    Args:
        tell: hears what is being done.
    """
    from ourospec.cli.loading import open_any
    from ourospec.cli.overrides import validate
    from ourospec.data.files import FilesSource
    from ourospec.data.text import TextData
    from ourospec.loaded_model import LoadedModel

    if options.on_undecodable and not options.data:
        raise ConfigError(
            "--on-undecodable is about the text of --data, and none is named.", "Say: --data PATH"
        )
    if options.thinking_tokens < 0:
        raise ConfigError(
            f"--thinking-tokens {options.thinking_tokens} is no size of a sample.", "Name 0 or more."
        )
    effort, budget = chosen_depth(options)
    loaded = open_any(options.run, options.checkpoint)
    if not isinstance(loaded, LoadedModel):
        refuse_text_options(options)
        found = loaded.evaluate(tell=tell)
        return {"run": options.run, **found, ROWS: list(loaded.rows(found))}
    data = None
    if options.data:
        source = validate(FilesSource, {"paths": options.data}, "ouro evaluate")
        trained = loaded.recipe.data
        choice = options.on_undecodable or trained.on_undecodable
        data = TextData(source=source, tokenizer=trained.tokenizer, on_undecodable=choice)
    figures = {**about(loaded, options), **loaded.evaluate(data, effort=effort, budget=budget, tell=tell)}
    sample = options.thinking_tokens
    if sample:
        figures["thinking"] = loaded.thinking(
            data, most_tokens=sample, effort=effort, budget=budget, tell=tell
        )
    return figures


def refuse_text_options(options: EvaluateOptions) -> None:
    """Raise ConfigError for what only a model of text can be asked."""
    plain = EvaluateOptions(run=options.run, checkpoint=options.checkpoint, json=options.json)
    given = [
        field.name for field in fields(options) if getattr(options, field.name) != getattr(plain, field.name)
    ]
    if given:
        raise ConfigError(
            f"{options.run} does not read text, so --{given[0].replace('_', '-')} means nothing to it.",
            "It is measured on its own held-out data: ouro evaluate RUN",
        )


def about(loaded: LoadedModel, options: EvaluateOptions) -> dict[str, Any]:
    """Which model read which text."""
    return {
        "run": options.run,
        "family": loaded.recipe.family,
        "step": loaded.origin.step,
        "data": list(options.data) or "held-out",
        "max_passes": options.max_passes,
        "threshold": options.threshold,
        "readout": options.readout,
        "budget": options.budget,
        "budget_ms": options.budget_ms,
    }


def show(figures: dict[str, Any]) -> None:
    """Print for a person, each ratio with its standard error where there is one."""

    def figure(name: str, digits: int) -> str:
        return with_error(figures[name], figures[f"{name}_se"], digits)

    text = figures["data"] if isinstance(figures["data"], str) else ", ".join(figures["data"])
    read = ", ".join(counted(figures[f"{thing}s"], thing) for thing in ("document", "token", "byte"))
    budget = f"; the budget: {budget_text(figures)}" if budget_text(figures) else ""
    layers = "  ".join(f"{passes:.2f}" for passes in figures["passes_by_layer"])
    rows = [
        ("text", f"{text}: {read}"),
        ("loss", f"{figure('loss', 4)} nats per token"),
        ("perplexity", figure("perplexity", 2)),
        ("bits per byte", figure("bits_per_byte", 4)),
        ("passes", f"{figure('mean_passes', 3)} per token and layer (by layer: {layers}){budget}"),
        ("FLOPs", f"{flop(figures['flops_per_token'])} forward per token, executed"),
    ]
    if "tasks" in figures:
        rows.insert(
            1, ("exact match", f"{figure('exact_match', 4)} of {counted(figures['answers'], 'answer')}")
        )
    print_section(heading(figures), rows)
    if "tasks" in figures:
        print_table(list(answer_rows(figures["tasks"])))
    show_thinking(figures.get("thinking", {}))
    if figures["documents"] > 1:
        print("± is the standard error over documents.")


def answer_rows(tasks: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, ...]]:
    """Headings, and a line for each task and each bin of its difficulties, easiest first."""
    yield "task", "difficulty", "answers", "exact match", "passes"
    for task in tasks:
        every = {**task, "bin": "all"}
        for line in [every, *task["bins"]] if len(task["bins"]) > 1 else task["bins"]:
            exact = with_error(line["exact_match"], line["exact_match_se"], 3)
            yield task["task"], line["bin"], f"{line['answers']:,}", exact, f"{line['mean_passes']:.2f}"


def heading(figures: Mapping[str, Any]) -> str:
    """Whose figures."""
    return f"{figures['run']}, {figures['family']} after step {figures['step']:,}"
