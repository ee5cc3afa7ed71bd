"""The diagnostics of a model of spacings as pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ourospec.measure.report.drawing import Figure, axes, level, line
from ourospec.measure.spacings.statistics import BINS

SECTION = "diagnostics"
OURS, ZEROS, GUE = "var(--heldout)", "var(--train)", "var(--faint)"


def draw_diagnosis(found: Mapping[str, Any]) -> list[Figure]:
    """All that `diagnostics.diagnose` has the details for.

    Args:
        found: what it returned.
    """
    details = found["details"]
    drawn = [_calibration(details["score"])]
    if "ablation" in details:
        drawn += [_ablation(details["ablation"]), _cosines(details["cosines"])]
    if "attention" in details:
        drawn.append(_attention(details["attention"]))
    if "rollout" in details:
        drawn += _rollout(details["rollout"])
    if "primes" in details:
        drawn.append(_primes(details["primes"]))
    return drawn


def _calibration(score: Mapping[str, Any]) -> Figure:
    shares = score["pit_histogram"]
    centres = (np.arange(len(shares)) + 0.5) / len(shares)
    bars = {
        "type": "bar",
        "x": [f"{centre:.3f}" for centre in centres],
        "y": shares,
        "marker": {"color": OURS},
        "name": "share",
    }
    layout = axes("share of targets", "F(spacing), twenty equal bins")
    layout["shapes"] = [level(1 / len(shares))]
    layout["xaxis"]["showgrid"] = False
    # Every second name: twenty would run into each other.
    bars["x"] = [name if place % 2 == 0 else " " * place for place, name in enumerate(bars["x"])]
    caption = (
        f"Where the spacings fell in their predicted distributions; the dotted line is a calibrated model's. "
        f"KS distance {score['pit_ks']:.4f}, {score['coverage_80']:.1%} in the central 80%."
    )
    return Figure("pit", SECTION, "Calibration", caption, [bars], layout)


def _ablation(found: Mapping[str, Any]) -> Figure:
    slots = [f"M{number}" for number in range(len(found["zero"]))]
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "x": list(range(len(slots))),
            "y": found[kind],
            "line": {"color": colour, "width": 1},
            "error_y": {"type": "data", "array": found[f"{kind}_se"]},
        }
        for kind, name, colour in (("zero", "zeroed", OURS), ("mean", "by the mean register", ZEROS))
    ]
    layout = axes("nats lost without it", "register")
    layout["shapes"] = [level(0.0), level(0.02, "var(--good)", "dash")]
    sets = "; ".join(f"{one['off']} off: {one['nats']:+.4f} ± {one['nats_se']:.4f}" for one in found["sets"])
    caption = f"Dashed: the document's 0.02. Several at a time, by the mean register: {sets}."
    return Figure("ablation", SECTION, "What each register is worth", caption, data, layout)


def _cosines(matrix: list[list[float]]) -> Figure:
    heat = {
        "type": "heatmap",
        "x": list(range(len(matrix))),
        "y": list(range(len(matrix))),
        "z": matrix,
        "zmin": -1,
        "zmax": 1,
        "colorscale": [[0, "var(--train)"], [0.5, "var(--card)"], [1, "var(--heldout)"]],
        "colorbar": {"dtick": 1},
    }
    layout = axes("register", "register")
    layout["yaxis"] |= {"dtick": 1, "showgrid": False}
    caption = "Cosines between the input vectors (content and identity) of registers: blue −1, orange 1."
    return Figure("similarity", SECTION, "How alike registers are", caption, [heat], layout)


def _attention(weights: list[list[float]]) -> Figure:
    length = len(weights[0])
    colours = [f"var(--r{number % 9})" for number in range(len(weights))]
    data = [
        line(np.arange(-length, 0), row, f"M{number}", colour, width=1.5)
        for number, (row, colour) in enumerate(zip(weights, colours, strict=True))
    ]
    layout = axes("weight", "spacing before the target")
    caption = "Attention of each register in the last layer on the spacings, mean over heads and 256 windows."
    return Figure("attention", SECTION, "Where registers look", caption, data, layout)


def _rollout(found: Mapping[str, Any]) -> Iterator[Figure]:
    at = found["horizons"]
    data = [
        _marked(line(at, found["crps"], "ensemble", OURS)),
        _marked(line(at, found["climate"], "random training spacings", GUE)),
        _marked(line(at, found["mae"], "MAE of the mean rollout", ZEROS)),
    ]
    layout = axes("CRPS, MAE in mean spacings", "steps ahead")
    caption = f"{found['starts']} starts, {found['members']} members each, the same truth for all three."
    yield Figure("rollout", SECTION, "How far ahead it sees", caption, data, layout)
    kinds = (("statistics", "model", OURS), ("zeros", "zeros", ZEROS), ("gue", "GUE", GUE))
    lengths = found["gue"]["lengths"]
    data = [
        _marked(line(lengths, found[kind]["number_variance"], name, colour)) for kind, name, colour in kinds
    ]
    caption = (
        "Variance of the number of zeros in an interval: drawn by the model, in truth, and in the limit of "
    )
    caption += "random matrices. Zeros are more rigid than matrices over long intervals (Berry 1988)."
    layout = axes("Σ²(L)", "L in mean spacings")
    yield Figure("number-variance", SECTION, "Rigidity of what it draws", caption, data, layout)
    centres = (BINS[1:] + BINS[:-1]) / 2
    data = [line(centres, found[kind]["pair_correlation"], name, colour) for kind, name, colour in kinds]
    caption = "Density of zeros at a distance from a zero; the matrices' is 1 − (sin πr/πr)²."
    layout = axes("R₂(r)", "r in mean spacings")
    yield Figure("pair-correlation", SECTION, "Pairs in what it draws", caption, data, layout)


def _primes(found: Mapping[str, Any]) -> Figure:
    tones = found["tones"]
    marks = _marked(
        line(
            [tone["frequency"] for tone in tones],
            [tone["left"] for tone in tones],
            "at ln of a prime power",
            "var(--accent)",
            width=0,
        )
    )
    data = [line(found["frequencies"], found["left"], "|1 − H(ω)|", OURS, width=1.5), marks]
    layout = axes("share left in the errors", "ω; the tone of p lies at ln p")
    layout["shapes"] = [level(1.0), level(0.5, "var(--good)", "dash")]
    layout["yaxis"]["range"] = [0, max(2.0, 1.1 * max(tone["left"] for tone in tones))]
    heard = ", ".join(str(tone["number"]) for tone in tones if tone["heard"]) or "none"
    caption = (
        "What the model makes of a tone of frequency ω, as a linear filter: 0 where it goes on with it, 1 where it "
        f"does not know it. Heard (below 0.5): {heard}."
    )
    return Figure("primes", SECTION, "Which primes it has heard", caption, data, layout)


def _marked(trace: dict[str, Any]) -> dict[str, Any]:
    return {**trace, "mode": "lines+markers"}
