"""`ouro zeros --count N`: compute zeros of the zeta function, or check a table of them."""

from __future__ import annotations

import dataclasses
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ourospec.cli.options import parse_options
from ourospec.cli.output import print_json, print_section, progress
from ourospec.errors import ConfigError, DataError
from ourospec.telemetry.quantities import counted

if TYPE_CHECKING:
    import numpy as np

    from ourospec.data.zeros.compute import Zeros
    from ourospec.data.zeros.oracle import SpotCheck
    from ourospec.data.zeros.table import TableCheck

AGREES = 2e-10
"""Largest difference from python-flint that passes, beside half a unit in the last place of float64."""


@dataclass(frozen=True)
class ZerosOptions:
    """Compute zeros of the Riemann zeta function, with a proof that none is missing; or check a table of them."""

    count: Annotated[
        int | None, tyro.conf.arg(metavar="N", help="How many zeros.", help_behavior_hint="")
    ] = None
    start: Annotated[
        int | None,
        tyro.conf.arg(
            metavar="N",
            help="Number of the first one; that at 14.13 is number 1. With --check: what the table is to begin with.",
            help_behavior_hint="(default: 1; with --check: any)",
        ),
    ] = None
    out: Annotated[
        str,
        tyro.conf.arg(
            metavar="FILE",
            help="Write the heights: .npy as float64, anything else as text, one a line, 9 decimals.",
            help_behavior_hint="",
        ),
    ] = ""
    verify: Annotated[
        int, tyro.conf.arg(metavar="N", help="Compare so many, drawn at random, with python-flint.")
    ] = 0
    check: Annotated[
        str,
        tyro.conf.arg(
            metavar="FILE",
            help="Hold every height of a table against the zero, and see that none is missing.",
            help_behavior_hint="",
        ),
    ] = ""
    tolerance: Annotated[float, tyro.conf.arg(help="Of --check: the largest difference put up with.")] = 4e-9
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON document.")] = False


def main(arguments: list[str]) -> None:
    """Compute or check, and print."""
    options = parse_options(ZerosOptions, arguments, "zeros")
    if options.check and (options.count is not None or options.out):
        raise ConfigError("--check reads a table; --count and --out make one.", "Do one after the other.")
    if not options.check and options.count is None:
        raise ConfigError(
            "Nothing was asked for.", "Say how many zeros: ouro zeros --count 100000 --out FILE"
        )
    if options.verify < 0 or not options.tolerance > 0:
        raise ConfigError("--verify and --tolerance cannot be negative.", "See: ouro zeros --help")
    if options.check:
        check(options)
    else:
        compute(options, options.count or 0, 1 if options.start is None else options.start)


def compute(options: ZerosOptions, count: int, start: int) -> None:
    """Zeros from the cache or computed now, with what is known of them."""
    from ourospec.data.cache import cache_folder
    from ourospec.data.zeros.store import open_pages, page_of
    from ourospec.data.zeros.table import write_table

    begun = time.perf_counter()
    with progress(shown=not options.json and sys.stderr.isatty()) as tell:
        if options.verify:
            from ourospec.data.zeros.oracle import load_flint

            load_flint()
        pages = open_pages(count, start, tell)
        seconds = time.perf_counter() - begun
        heights = joined(pages)[start - page_of(start) :][:count]
        if options.out:
            write_table(Path(options.out), heights)
        spots = compare(heights, start, options.verify, tell)
    known = summary(pages, heights, start) | {"seconds": seconds, "out": options.out or None}
    known["spot_check"] = dataclasses.asdict(spots) if spots else None
    if options.json:
        print_json(known)
    else:
        kept = options.out or f"{cache_folder('') / 'zeros'} (write them into a file with --out FILE)"
        print_section(
            f"{count:,} zeros",
            [*rows(known), *spot_rows(spots), ("time", f"{seconds:.1f} s"), ("kept in", kept)],
        )
    refuse_disagreement(spots, heights)


def joined(pages: list[Zeros]) -> np.ndarray:
    """The heights of consecutive pages."""
    import numpy as np

    return np.concatenate([page.heights for page in pages])


def summary(pages: list[Zeros], heights: np.ndarray, start: int) -> dict[str, Any]:
    """What the pages' proofs say, the weakest of each kind."""
    proofs = [page.proof for page in pages]
    return {
        "first": start,
        "last": start + len(heights) - 1,
        "first_height": float(heights[0]),
        "last_height": float(heights[-1]),
        "proved_below": proofs[-1].end,
        "zeros_below": proofs[-1].last,
        "zeros_below_at_most": proofs[-1].limit,
        "pages": len(proofs),
        "mean_s": max((proof.mean_s for proof in proofs), key=abs),
        "certainty": min(proof.certainty for proof in proofs),
        "neglected": max(proof.neglected for proof in proofs),
        "rounding": max(proof.rounding for proof in proofs),
    }


def rows(known: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for a person."""
    return [
        ("numbers", f"{known['first']:,} to {known['last']:,}"),
        ("heights", span(known["first_height"], known["last_height"])),
        (
            "none missing",
            f"by Turing's bound at most {known['zeros_below_at_most']:,.2f} zeros lie below "
            f"{known['proved_below']:,.2f}; {known['zeros_below']:,} is the number of the last one found there\n"
            f"({counted(known['pages'], 'page')} of zeros, each proved so at both ends)",
        ),
        (
            "mean of S",
            f"{known['mean_s']:+.1e}, the largest of a page (a lost pair of zeros moves it towards -2)",
        ),
        (
            "told apart",
            f"between neighbours |Z| reaches {known['certainty']:.1e} at least; what the formula neglects is below "
            f"{known['neglected']:.1e}\n(proved), rounding below {known['rounding']:.0e} (measured, not proved)",
        ),
    ]


def span(first: float, last: float) -> str:
    """Two heights with the digits that float64 holds."""
    from ourospec.data.zeros.table import decimals_at

    return f"{first:.{decimals_at(first)}f} to {last:.{decimals_at(last)}f}"


def compare(heights: np.ndarray, first: int, number: int, tell: Any) -> SpotCheck | None:
    """Spot checks, if any were asked for."""
    if not number:
        return None
    from ourospec.data.zeros.oracle import spot_check

    return spot_check(heights, first, number, tell=tell)


def spot_rows(spots: SpotCheck | None) -> list[tuple[str, str]]:
    """What python-flint said."""
    if spots is None:
        return []
    verdict = "agrees" if spots.count_agrees else "DISAGREES"
    return [
        (
            "python-flint",
            f"{spots.zeros:,} zeros (random, and the closest pair) differ by {spots.largest_difference:.1e} at most, "
            f"at number {spots.at_number:,}; its count up to the last one {verdict}",
        )
    ]


def refuse_disagreement(spots: SpotCheck | None, heights: np.ndarray) -> None:
    """Raise DataError where python-flint says otherwise."""
    if spots is None:
        return
    import numpy as np

    if not spots.count_agrees or spots.largest_difference > AGREES + float(np.spacing(heights[-1])):
        raise DataError(
            f"python-flint disagrees: by {spots.largest_difference:.1e} at zero number {spots.at_number:,}; its count "
            f"{'agrees' if spots.count_agrees else 'is another'}.",
            "Of a table: it is wrong there. Of computed zeros: a defect, please report it.",
        )


def check(options: ZerosOptions) -> None:
    """Check a table, and say what is known of it."""
    from ourospec.data.zeros.table import check_table, read_table

    with progress(shown=not options.json and sys.stderr.isatty()) as tell:
        found = check_table(Path(options.check), options.start, options.tolerance, tell)
        heights = read_table(Path(options.check)) if options.verify else None
        spots = compare(heights, found.first, options.verify, tell) if heights is not None else None
    if options.json:
        print_json(dataclasses.asdict(found) | {"spot_check": dataclasses.asdict(spots) if spots else None})
    else:
        print_section(f"{options.check} is right", [*check_rows(found), *spot_rows(spots)])
    if spots and not spots.count_agrees:
        raise DataError("python-flint counts another number of zeros.", "Please report it.")


def check_rows(found: TableCheck) -> list[tuple[str, str]]:
    """What is known of a table, for a person."""
    return [
        ("numbers", f"{found.first:,} to {found.last:,}, none missing, none twice"),
        ("heights", f"{span(found.first_height, found.last_height)}, rising"),
        (
            "differences",
            f"{found.largest_difference:.1e} at most, {found.rms_difference:.1e} root mean square, from zeros "
            f"computed here and proved to be all; held to {found.tolerance:.1e}",
        ),
        ("mean of S", f"{found.mean_s:+.1e}"),
    ]
