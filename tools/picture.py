"""Draw a text that a run generates, its tokens coloured by the passes they took, as an SVG.

python tools/picture.py RUN FILE.svg [--prompt TEXT] [--tokens N] [--seed N]
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

import ourospec

QUICK, MIDDLE, SLOW = (86, 156, 255), (214, 214, 214), (255, 96, 64)


def colour(mean: float, least: float, most: float) -> str:
    """From blue over grey to red, between the least and the most of the text."""
    place = (mean - least) / (most - least) if most > least else 0.5
    low, high = (QUICK, MIDDLE) if place < 0.5 else (MIDDLE, SLOW)
    share = 2 * place % 1 if place < 1 else 1
    return "rgb({},{},{})".format(*(round(a + (b - a) * share) for a, b in zip(low, high, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run")
    parser.add_argument("file", type=Path)
    parser.add_argument("--prompt", default="def ")
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    made = ourospec.load(options.run).generate(
        options.prompt, max_new_tokens=options.tokens, seed=options.seed
    )
    means = [sum(passes) / len(passes) for passes in made.passes]
    console = Console(
        record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    body = Text()
    body.append(options.prompt, style="dim")
    for piece, mean in zip(made.pieces, means, strict=True):
        body.append(piece, style=colour(mean, min(means), max(means)))
    names = Text("\nmean passes per layer:  ")
    for step in range(5):
        mean = min(means) + step / 4 * (max(means) - min(means))
        names.append(f"{mean:.2f}   ", style=colour(mean, min(means), max(means)))
    console.print(body)
    console.print(names)
    console.save_svg(
        str(options.file), title=f"ouro generate {options.run} --prompt '{options.prompt}' --depth"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
