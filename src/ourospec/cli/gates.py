"""How `ouro diagnose RUN --gates` prints what measure.gates found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ourospec.cli.output import bold, print_section, print_table
from ourospec.telemetry.quantities import UNKNOWN, counted, decimal, with_error

QUARTERS = ("easiest", "easy", "hard", "hardest")


def show_gates(found: Mapping[str, Any]) -> None:
    """Print for a person: what passes gained, whether depth went where it helps, what an oracle would have done."""
    sample = f"{counted(found['tokens'], 'token')} of {counted(found['documents'], 'document')}"
    print(bold(f"Gates, judged on {sample} held out"))
    print("± is the standard error over documents; correlations are of ranks, from −1 to 1.\n")
    show_gains(found)
    show_difficulty(found["difficulty"])
    show_choice(found)


def show_gains(found: Mapping[str, Any]) -> None:
    """A line for each gate, with the gain of its pass where it is wanted least and most."""
    print(
        "What one more pass of a layer gains a token, in thousandths of a nat, and what its gate knows of that"
    )
    rows = [("layer", "pass", "gain", "helped", "knows", "least wanted tenth", "most wanted tenth")]
    for gate in found["gates"]:
        rows.append(
            (
                str(gate["layer"] + 1),
                str(gate["passes"] + 1),
                thousandths(gate),
                f"{gate['helped']:.0%}",
                signed(gate, "spearman"),
                thousandths(gate["reliability"][0]),
                thousandths(gate["reliability"][-1]),
            )
        )
    print_table(rows)


def show_difficulty(found: Mapping[str, Any]) -> None:
    """Mean passes by quarter of difficulty, for all layers together and for each."""
    print("Whether hard tokens run more passes: hard is what costs much with one pass everywhere")
    rows: list[tuple[str, ...]] = [("layer", "follows", *QUARTERS[: len(found["quarters"])])]
    named = [("all", found), *((str(n), layer) for n, layer in enumerate(found["by_layer"], start=1))]
    for name, layer in named:
        rows.append((name, signed(layer, "spearman"), *(f"{p:.2f}" for p in layer["passes_by_quarter"])))
    rows.append(("", "their loss", *(f"{loss:.2f}" for loss in found["quarters"])))
    print_table(rows)


def show_choice(found: Mapping[str, Any]) -> None:
    """The policy between chance and an oracle at its own mean passes."""
    choice, uniform = found["oracle"], found["oracle"]["uniform"]
    depths = ", ".join(f"{loss:.4f} with {k}" for k, loss in enumerate(uniform, start=1))
    cheapest = choice["cheapest"]
    share = choice["share_earned"]
    earned = f"{with_error(choice['earned'], choice['earned_se'], 4)} nats less than chance"
    if math.isfinite(share):
        earned += f", {share:.1%} of what the oracle earns"
    print_section(
        "Which tokens get the passes: losses in nats per token, read off a table of uniform depths",
        [
            ("uniform", depths),
            ("policy", f"{choice['policy']:.4f} at {choice['mean_passes']:.3f} passes"),
            ("chance", f"{choice['random']:.4f} with the same passes given to tokens at random"),
            (
                "oracle",
                f"{choice['oracle']:.4f} at {choice['oracle_passes']:.3f} passes, every loss known before",
            ),
            ("earned", earned),
            ("regret", f"{with_error(choice['regret'], choice['regret_se'], 4)} nats more than the oracle"),
            (
                "cheapest",
                f"{cheapest['loss']:.4f} at {cheapest['mean_passes']:.3f} passes: each token at its cheapest depth "
                f"within {cheapest['epsilon']:g} of its best",
            ),
            ("measured", f"{with_error(found['loss'], found['loss_se'], 4)}, as the gates really ran"),
        ],
    )


def thousandths(figures: Mapping[str, Any]) -> str:
    """A gain with its error."""
    gain, error = (1000 * figures[name] for name in ("gain", "gain_se"))
    return f"{'+' if gain > 0 else ''}{with_error(gain, error, 2)}"


def signed(figures: Mapping[str, Any], name: str) -> str:
    """A correlation with its error; – where one side is constant."""
    value = figures[name]
    if not math.isfinite(value):
        return UNKNOWN
    sign = "+" if value > 0 else ""
    return f"{sign}{with_error(value, figures[f'{name}_se'])}" if value else decimal(value)
