"""What can be foretold of zeta's next spacing: ours on both splits, nulls that nobody may beat, E0 to E4 beside them.

    python benchmarks/spacings.py [--quick | --table] [--json] [--runs DIR]

Each row is `ouro sweep spacing_mdn/...`, scored on the same frozen targets, in nats: median over the seeds, and their
extremes. Held to: tones after 2,500 steps at most -0.60 on the tail and -1.35 interleaved, 3 seeds; e0_tiny within
0.01 of the entropy of independent Wigner spacings (0.5288) on such, and on simulated GUE matrices not under 0.4227, the
limit, by more than three standard errors, nor over the sine kernel with 32 past spacings by more than 0.02. An hour of
two cores; zeros are computed first where they are not cached.

--quick: one seed, few steps, few zeros, one split and one null; only what holds then, too, is held. --table: E0 to E4
and their repairs at tiny size, 5 seeds on each split, nothing held; e1 and e2 differ in their seeds only. Two hours.
Runs lie in DIR (a temporary folder without it); the same command goes on with them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from harness import Figure, finish, machine, spread

WIGNER, LIMIT = 0.5288, 0.4227
SPLITS = ("tail", "interleaved")
SEEDS, AGAIN = "7,42,1337,1,2", "8,43,1338,3,4"
TABLE = {
    "e0_tiny": SEEDS,
    "e1_tiny": SEEDS,
    "e2_tiny": AGAIN,
    "e3_tiny": SEEDS,
    "e4_tiny": SEEDS,
    "e3_dense_tiny": SEEDS,
    "e4_dense_tiny": SEEDS,
    "e4_anonymous_tiny": SEEDS,
}


def sweep(folder: Path, name: str, preset: str, seeds: str, *settings: str) -> dict[str, Any]:
    """The figures of one sweep, as the command prints them."""
    words = [
        sys.executable,
        "-m",
        "ourospec.cli",
        "sweep",
        f"spacing_mdn/{preset}",
        "--seeds",
        seeds,
        "--json",
    ]
    words += ["--runs", str(folder / name), *settings]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)


def losses(found: dict[str, Any]) -> list[float]:
    return [row["loss"] for row in found["seeds"] if row["loss"] is not None]


def ours(folder: Path, quick: bool) -> list[Figure]:
    """Tones on zeta, split by split."""
    seeds, steps = ("7", "30") if quick else ("7,42,1337", "2500")
    short = ("--data.source.count", "100000", "--train.eval_every", "30") if quick else ()
    figures = []
    # So few zeros have too few blocks for every tenth of them to be held out.
    for split, bound in (("tail", None),) if quick else zip(SPLITS, (-0.60, -1.35), strict=True):
        name = f"tones-{split}"
        found = sweep(folder, name, "tones", seeds, "--train.steps", steps, "--data.split", split, *short)
        figures.append(spread(f"tones, {split}, {steps} steps", losses(found), at_most=bound))
        figures += [
            spread(f"the same targets: {what}", [value]) for what, value in found["references"].items()
        ]
    return figures


def nulls(folder: Path, quick: bool) -> list[Figure]:
    """e0_tiny where we know what can be foretold."""
    steps, count = ("20", "60000") if quick else ("1000", "1000000")
    figures = []
    for kind in ("wigner",) if quick else ("wigner", "gue"):
        settings = ("--data.source", kind, "--data.source.count", count, "--train.steps", steps)
        found = sweep(folder, kind, "e0_tiny", "7", *settings)
        row = found["seeds"][0]
        # Too good is worse than bad: it would mean that the future leaks.
        entropy = WIGNER if kind == "wigner" else LIMIT
        least = entropy - 3 * row["loss_se"]
        most = WIGNER + 0.01 if kind == "wigner" else found["references"]["GUE-optimal"] + 0.02
        held = {"at_least": least} if quick else {"at_least": least, "at_most": most}
        figures.append(spread(f"e0_tiny on {kind}, {steps} steps", [row["loss"]], **held))
        figures.append(spread(f"its standard error on {kind}", [row["loss_se"]]))
    return figures


def table(folder: Path) -> list[Figure]:
    """E0 to E4 at tiny size."""
    figures = []
    for split in SPLITS:
        references: dict[str, float] = {}
        for preset, seeds in TABLE.items():
            found = sweep(folder, f"{split}-{preset}", preset, seeds, "--data.split", split)
            figures.append(spread(f"{preset}, {split}", losses(found)))
            references = found["references"]
        figures += [spread(f"the same targets: {what}", [value]) for what, value in references.items()]
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one seed, few steps: under a minute")
    parser.add_argument("--table", action="store_true", help="E0 to E4 and their repairs over 5 seeds")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--runs", default="", help="folder of the runs, to go on with")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(options.runs or place)
        held = () if options.table else (*ours(folder, options.quick), *nulls(folder, options.quick))
        figures = held or table(folder)
    return finish("spacings, nats per target", figures, machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
