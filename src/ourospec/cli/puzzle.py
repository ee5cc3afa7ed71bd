"""How `ouro generate` shows what each further pass changes: of a puzzle's answers, and of a free text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import MISSING, fields
from typing import TYPE_CHECKING, Any

from ourospec.cli.options import chosen_depth
from ourospec.cli.output import print_json, print_section
from ourospec.cli.thinking import passes_text
from ourospec.errors import ConfigError
from ourospec.telemetry.plain_text import visible

if TYPE_CHECKING:
    from ourospec.cli.generate import GenerateOptions
    from ourospec.loaded_model import LoadedModel
    from ourospec.serve.answering import Attempt, Solution
    from ourospec.serve.generation import Generation

END = "‹end›"
"""Stands where the text ends."""
ITSELF = "as it decides"
WITH_PUZZLE = ("run", "puzzle", "each_pass", "checkpoint", "max_passes", "threshold", "readout", "json")
"""What else may be said about a puzzle."""
NOT_EACH_PASS = ("prompts_file", "max_passes", "threshold", "readout", "budget", "budget_ms", "speculate")
"""What cannot be said beside --each-pass, which decides how long the model thinks."""


def refuse_beside(options: GenerateOptions) -> None:
    """Raise ConfigError for options that mean nothing beside --puzzle or --each-pass."""
    default = {field.name: field.default for field in fields(options) if field.default is not MISSING}
    given = [name for name, value in default.items() if getattr(options, name) != value]
    wrong = []
    if options.puzzle is not None:
        wrong = [name for name in given if name not in WITH_PUZZLE]
    elif options.each_pass:
        wrong = [name for name in given if name in NOT_EACH_PASS]
    if wrong:
        about = "--puzzle" if options.puzzle is not None else "--each-pass"
        raise ConfigError(
            f"--{wrong[0].replace('_', '-')} means nothing beside {about}.", "Leave one of them out."
        )


def solve_puzzle(loaded: LoadedModel, options: GenerateOptions) -> None:
    """Answer --puzzle, and print."""
    assert options.puzzle is not None
    effort, _ = chosen_depth(options)
    solved = loaded.solve(options.puzzle, effort=effort)
    spell = Speller(loaded.tokenizer)
    if options.json:
        answers = [spell.as_data(solution) for solution in solved.solutions]
        about = {"run": options.run, "family": loaded.recipe.family, "step": loaded.origin.step}
        print_json({**about, "puzzle": options.puzzle, "task": solved.task, "answers": answers})
        return
    count = len(solved.solutions)
    for number, one in enumerate(solved.solutions, start=1):
        which = f", answer {number} of {count}" if count > 1 else ""
        print_section(
            f"{options.run}, held-out puzzle {options.puzzle}{which}: {solved.task}, {one.bin}",
            [
                ("question", spell.shown(one.question)),
                ("right answer", spell.shown(one.wanted)),
                *((spell.heading(attempt), spell.verdict(attempt)) for attempt in one.attempts),
            ],
        )


class Speller:
    """Tokens of puzzles in writing."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def text(self, tokens: Sequence[int]) -> str:
        """Bytes that are no UTF-8 as \\x80; the end of the text is not written."""
        content = b"".join(self.tokenizer.token_bytes(t) for t in tokens if t != self.tokenizer.end_id)
        return content.decode("utf-8", errors="backslashreplace")

    def shown(self, tokens: Sequence[int]) -> str:
        """The same for a person, with a mark where the text ends; its lines stay lines."""
        lines = [visible(line) for line in self.text(tokens).split("\n")]
        return "\n".join(lines) + (END if self.tokenizer.end_id in tokens else "")

    def heading(self, attempt: Attempt) -> str:
        """How it was answered."""
        return ITSELF if attempt.forced is None else passes_text(attempt.forced)

    def verdict(self, attempt: Attempt) -> str:
        """The answer and whether it is right; of the model's own, the passes of each token."""
        said = f"{self.shown(attempt.tokens)}  {'right' if attempt.right else 'wrong'}"
        if attempt.forced is not None:
            return said
        mean = sum(attempt.passes) / len(attempt.passes)
        each = " ".join(f"{passes:.3g}" for passes in attempt.passes)
        return f"{said}, {mean:.2f} passes a token: {each}"

    def as_data(self, solution: Solution) -> dict[str, Any]:
        """What `--json` prints of an answer."""
        return {
            "question": self.text(solution.question),
            "right_answer": self.text(solution.wanted),
            "tokens": list(solution.wanted),
            "bin": solution.bin,
            "attempts": [
                {
                    "forced_passes": attempt.forced,
                    "text": self.text(attempt.tokens),
                    "tokens": list(attempt.tokens),
                    "passes": list(attempt.passes),
                    "right": attempt.right,
                }
                for attempt in solution.attempts
            ],
        }


def each_pass(loaded: LoadedModel, options: GenerateOptions, settings: dict[str, Any]) -> None:
    """The same prompt continued with 1 to K passes forced, and as the model decides; printed."""
    from ourospec.cli.generate import Printer, as_data, summary
    from ourospec.contracts import Effort
    from ourospec.nn.effort import most_passes
    from ourospec.serve.text import Piece

    made: list[tuple[int | None, Generation]] = []
    for passes in [*range(1, most_passes(loaded.model, loaded.policy) + 1), None]:
        effort = None if passes is None else Effort(forced_passes=passes)
        made.append((passes, loaded.generate(options.prompt, **{**settings, "effort": effort})))
        if options.json:
            continue
        text = made[-1][1]
        print(f"--- {ITSELF if passes is None else passes_text(passes)}")
        printer = Printer(options.prompt, options.depth, sys.stdout.isatty(), explain=passes == 1)
        for piece in zip(text.tokens, text.pieces, map(tuple, text.passes), strict=True):
            printer.piece(Piece(*piece))
        printer.end()
        print(f"[{summary([text])}]", file=sys.stderr)
    if options.json:
        texts = [{"forced_passes": passes, **as_data(options.prompt, text)} for passes, text in made]
        print_json({"prompt": options.prompt, "each_pass": texts})
