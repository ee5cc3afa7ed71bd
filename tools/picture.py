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
from ourospec.telemetry.depth_bands import band_colour, legend


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
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True, color_system="256")
    body = Text(options.prompt, style="dim")
    for piece, passes in zip(made.pieces, made.passes, strict=True):
        body.append(piece, style=f"color({band_colour(sum(passes) / len(passes))})")
    names = Text("mean passes per layer:  ")
    for name, colour in legend():
        names.append(f"{name}   ", style=f"color({colour})")
    console.print(body)
    console.print(names)
    console.save_svg(
        str(options.file), title=f"ouro generate {options.run} --prompt '{options.prompt}' --depth"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
