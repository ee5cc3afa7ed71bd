"""Whether the market holds its budget: executed depth over the last fifth of the policy steps, beside the old rules.

Trains adaptive_lm/tiny with targets 1.3 and 2.0, and for 1.3 with the literal rules of Ouro-Spec 1.0 (objective.price
legacy, objective.credit coupon, un-detached). Ours is held to 3% of the target, to an engaged deadband and to no swing
beyond 10%; the old rules are printed for comparison. Takes about half an hour on 2 cores; --quick trains a toy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Figure, finish, machine, spread

if TYPE_CHECKING:
    from ourospec.families.adaptive_lm.recipe import AdaptiveRecipe

ARMS = ((1.3, False), (2.0, False), (1.3, True))
"""Target, and whether the old rules are to hold it."""
LATE = 0.2
"""Share of the policy steps, the last ones, that is judged."""


def recipe_for(target: float, *, legacy: bool, quick: bool, steps: int | None) -> AdaptiveRecipe:
    """adaptive_lm/tiny with another target, or with the old rules."""
    from ourospec.families.adaptive_lm.credit import CouponConfig
    from ourospec.families.adaptive_lm.economy import LegacyConfig
    from ourospec.families.adaptive_lm.presets import smoke, tiny

    base = smoke() if quick else tiny()
    train = base.train
    if quick or steps:
        train = train.model_copy(update={"steps": steps or 120, "sample_every": 0, "eval_every": 0})
    model, objective = base.model, base.objective
    if legacy:
        rules = LegacyConfig(target=target)
        depth = model.depth.model_copy(
            update={"weight": "survival", "threshold": 0.10, "learned_passes": False, "gate_bias": -2.0}
        )
        model = model.model_copy(update={"depth": depth})
        coupon = CouponConfig(detached=False, reference="last_layer")
        objective = objective.model_copy(update={"price": rules, "credit": coupon})
    else:
        price = objective.price.model_copy(update={"target": target})
        objective = objective.model_copy(update={"price": price})
    return base.model_copy(update={"model": model, "objective": objective, "train": train})


def late_steps(run: Path) -> list[dict[str, Any]]:
    """The step events that are judged."""
    from ourospec.runs import RunDirectory

    policy = [
        event
        for event in RunDirectory(run).read_events()
        if event["kind"] == "step" and event["step_kind"] == "policy" and "control_error" in event
    ]
    return policy[-max(1, round(LATE * len(policy))) :]


def judge(name: str, target: float, steps: list[dict[str, Any]], *, held: bool) -> list[Figure]:
    """What the end of a run came to."""
    # With what exploration adds, though the controller only hears of what the gates asked for.
    depths = [step["mean_passes"] for step in steps]
    mean = statistics.fmean(depths)
    swing = max(abs(depth - mean) for depth in depths) / target
    engaged = statistics.fmean(step["deadband"] for step in steps)
    return [
        over_steps(f"{name}: executed depth", depths),
        over_steps(f"{name}: depth that the gates asked for", [step["wanted_passes"] for step in steps]),
        over_steps(f"{name}: soft depth", [step["expected_passes"] for step in steps]),
        over_steps(f"{name}: price, nats per pass", [step["price"] for step in steps]),
        spread(f"{name}: |executed / target - 1|", [abs(mean / target - 1)], at_most=0.03 if held else None),
        spread(f"{name}: greatest swing / target", [swing], at_most=0.10 if held else None),
        spread(f"{name}: share of steps in the deadband", [engaged], at_least=0.5 if held else None),
    ]


def over_steps(name: str, values: list[float]) -> Figure:
    """Mean and extremes over the steps of one run."""
    return Figure(name, statistics.fmean(values), min(values), max(values), runs=1)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="toy models, under a minute")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--steps", type=int, help="optimiser steps of each run")
    parser.add_argument("--out", type=Path, help="keep the runs here, and go on with those that are there")
    options = parser.parse_args()
    import ourospec

    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.out or Path(scratch)
        for target, legacy in ARMS:
            name = f"{'legacy' if legacy else 'ours'} at {target}"
            run = folder / name.replace(" ", "-")
            ourospec.train(recipe_for(target, legacy=legacy, quick=options.quick, steps=options.steps), run)
            # A toy's few steps are too few to hold it to anything.
            figures += judge(name, target, late_steps(run), held=not legacy and not options.quick)
    return finish("controller", figures, machine(), as_json=options.json)


if __name__ == "__main__":
    sys.exit(main())
