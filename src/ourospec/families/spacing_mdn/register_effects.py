"""What registers are worth: diagnostics A, E and J, identities alone and contents alone. All by taking things away.

Letters: N targets, M registers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ourospec.families.spacing_mdn.findings import Finding, Sample, not_there, rows, some
from ourospec.families.spacing_mdn.registers import Ablation
from ourospec.measure.likelihood import Ratio
from ourospec.measure.oracle import by_document

PERMUTATIONS = 50
SUBSETS = 3
"""Sets of registers taken away at a time, for each size."""
FEWER = 4
"""Of the targets one in so many is looked at with sets of registers off; of them, a few for each permutation."""
PERMUTED_TARGETS = 400


def register_effects(sample: Sample) -> tuple[list[Finding], dict[str, Any]]:
    """A, E, J and what identities and contents are worth alone; rows that say so where there are no registers."""
    registers = getattr(sample.fitted.model, "registers", None)
    names = {"A": "worth of a register", "E": "effect entropy", "J": "reliance on identity"}
    if registers is None:
        return [not_there(letter, name, "no registers") for letter, name in names.items()], {}
    findings, details, everything = _slots(sample, registers.config.count)
    return [
        *findings,
        _permuted(sample, registers.config),
        *_alone(sample, registers.config, everything),
    ], details


def loss_added(sample: Sample, ablation: Ablation, index: np.ndarray | None = None) -> np.ndarray:
    """[N] nats that each target loses more without."""
    index = np.arange(len(sample.losses)) if index is None else index
    targets = rows(sample.targets, index)
    return -sample.fitted.predict(targets, ablation).log_prob(targets.target) - sample.losses[index]


def _slots(sample: Sample, count: int) -> tuple[list[Finding], dict[str, Any], Ratio]:
    """A and E from every register off, and the whole set off."""
    targets, added, moved, averaged = sample.targets, [], [], []
    for slot in range(count):
        sample.tell(f"register {slot + 1} of {count} off")
        density = sample.fitted.predict(targets, Ablation(slots_off=(slot,)))
        added.append(-density.log_prob(targets.target) - sample.losses)
        moved.append(float(np.sqrt(np.mean((density.mean() - sample.means) ** 2))))
        averaged.append(loss_added(sample, Ablation(slots_off=(slot,), replacement="mean")))
    best = best_of(np.array(added), targets.block)
    everything = by_document(loss_added(sample, Ablation(slots_off=tuple(range(count)))), targets.block)
    sets = _sets(sample, count)
    each, mean = ([by_document(one, targets.block) for one in all_] for all_ in (added, averaged))
    limit, entropy = sample.thresholds.ablation, _entropy(np.array(moved))
    wanted = sample.thresholds.effect_entropy * np.log(count) / np.log(8)
    evidence = "each zeroed: " + ", ".join(f"{one.value:+.4f}" for one in each)
    evidence += "; by the mean register: " + ", ".join(f"{one.value:+.4f}" for one in mean)
    evidence += f"; all zeroed: {everything.value:+.4f} ± {everything.error:.4f} nats"
    size = f"the predicted mean moves by {min(moved):.2g} to {max(moved):.2g}"
    found = [
        Finding(
            "A",
            "worth of a register",
            best.value,
            best.error,
            f"≥ {limit:g} nats",
            best.value >= limit,
            evidence,
        ),
        Finding("E", "effect entropy", entropy, None, f"> {wanted:.2f}", bool(entropy > wanted), size),
    ]
    details = {
        "ablation": {
            "zero": [one.value for one in each],
            "zero_se": [one.error for one in each],
            "mean": [one.value for one in mean],
            "mean_se": [one.error for one in mean],
            "sets": sets,
        }
    }
    return found, details, everything


def best_of(added: np.ndarray, block: np.ndarray) -> Ratio:
    """What the most useful register is worth, the choice being made on other stretches than the measurement.

    The largest of M noisy numbers is too large; chosen on odd stretches and measured on even ones, and the other way
    round, it is not.

    Args:
        added: [M, N] nats lost without each.
    """
    odd = np.unique(block, return_inverse=True)[1] % 2 == 1
    if odd.all() or not odd.any():
        return by_document(added[int(np.argmax(added.mean(1)))], block)
    values = np.empty(added.shape[1])
    for here in (odd, ~odd):
        values[here] = added[int(np.argmax(added[:, ~here].mean(1))), here]
    return by_document(values, block)


def _sets(sample: Sample, count: int) -> list[dict[str, Any]]:
    """Nats lost with several registers replaced by the mean one: a few random sets of each size."""
    index = some(sample.targets, max(1, len(sample.losses) // FEWER))
    generator, found = np.random.default_rng(0), []
    for size in sorted({2, count // 2, count - 1, count} & set(range(2, count + 1))):
        sample.tell(f"{size} of {count} registers off")
        drawn = [generator.permutation(count)[:size] for _ in range(1 if size == count else SUBSETS)]
        added = [
            loss_added(sample, Ablation(slots_off=tuple(map(int, one)), replacement="mean"), index)
            for one in drawn
        ]
        told = by_document(np.mean(added, axis=0), sample.targets.block[index])
        found.append({"off": size, "nats": told.value, "nats_se": told.error})
    return found


def _permuted(sample: Sample, config: Any) -> Finding:
    """J: nats lost by carrying other identities, against the order in which the model is used."""
    name = "reliance on identity"
    if config.ids == "off":
        return not_there("J", name, "registers have no identities")
    sample.tell(f"{PERMUTATIONS} orders of identities")
    index = some(sample.targets, PERMUTED_TARGETS)
    generator = np.random.default_rng(0)
    orders = [tuple(map(int, generator.permutation(config.count))) for _ in range(PERMUTATIONS)]
    added = np.array([loss_added(sample, Ablation(id_order=order), index) for order in orders])
    told = by_document(added.mean(0), sample.targets.block[index])
    limit, loss = sample.thresholds.permutation, float(sample.losses.mean())
    evidence = (
        f"{PERMUTATIONS} random orders against the fixed one, {added.mean(1).min():+.4f} to {added.mean(1).max():+.4f} "
        f"nats; the document's percentage would be {told.value / abs(loss):.1%}"
    )
    return Finding("J", name, told.value, told.error, f"< {limit:g} nats", told.value < limit, evidence)


def _alone(sample: Sample, config: Any, everything: Ratio) -> list[Finding]:
    """Identities without contents, and contents without identities."""
    found, block = [], sample.targets.block
    if config.content != "normal" or config.ids == "off":
        return found
    sample.tell("identities alone")
    lost = by_document(loss_added(sample, Ablation(content="zeroed", ids="fixed")), block)
    limit = sample.thresholds.ablation
    found.append(
        Finding(
            "id only", "content is worth", lost.value, lost.error, f"≥ {limit:g} nats", lost.value >= limit,
            "nats lost when contents are zeroed and identities stay",
        )
    )  # fmt: skip
    sample.tell("contents alone")
    bare = by_document(loss_added(sample, Ablation(ids="off")), block)
    share = sample.thresholds.content_share
    passed = bare.value <= share * everything.value if everything.value > 2 * everything.error else None
    evidence = "nats lost when identities are taken away"
    evidence += (
        "" if passed is not None else "; all registers together are worth nothing of which it were a share"
    )
    found.append(
        Finding(
            "content only", "identity is worth", bare.value, bare.error,
            f"≤ {share:.0%} of all registers' {everything.value:.4f}", passed, evidence,
        )
    )  # fmt: skip
    return found


def _entropy(sizes: np.ndarray) -> float:
    """Of numbers ≥ 0 as shares of their sum, in nats."""
    shares = sizes / max(float(sizes.sum()), 1e-300)
    return float(-(shares * np.log(np.maximum(shares, 1e-300))).sum())
