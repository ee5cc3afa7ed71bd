"""What registers look like from inside: diagnostics B, C, D, F, I and K.

Letters: M registers, D width, G batches, L layers, T spacings.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ourospec.families.spacing_mdn.findings import Finding, Sample, not_there, rows, some
from ourospec.families.spacing_mdn.registers import Ablation

BATCHES, ROWS = 20, 64
"""Of gradients: batches, and targets in each. C looks at the first half of the batches, as the document does."""
WIDTH = 256
"""Spacings of the past for which the document gave its threshold of I."""
NAMES = {
    "B": "similarity",
    "C": "gradient correlation",
    "D": "readout entropy",
    "F": "norms",
    "I": "where they look",
    "K": "gradient rank",
}


def register_vectors(sample: Sample) -> tuple[list[Finding], dict[str, Any]]:
    """B, C, D, F, I and K; rows that say so where there are no registers."""
    model = sample.fitted.model
    registers = getattr(model, "registers", None)
    if registers is None:
        return [not_there(letter, name, "no registers") for letter, name in NAMES.items()], {}
    with torch.no_grad():
        vectors = registers(Ablation()).double().cpu().numpy()
    limits, count = sample.thresholds, len(vectors)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    cosines = unit @ unit.T
    similarity, norms = mean_beside(cosines), np.linalg.norm(vectors, axis=1)
    sample.tell("gradients of registers")
    gradients = gradients_of(sample)
    correlations = np.corrcoef(gradients[: BATCHES // 2].transpose(1, 0, 2).reshape(count, -1))
    correlation, rank = mean_beside(np.abs(correlations)), effective_rank(gradients)
    found = [
        Finding(
            "B", NAMES["B"], similarity, None, f"< {limits.similarity:g}", similarity < limits.similarity,
            "mean cosine between the input vectors (content + identity) of two registers",
        ),
        Finding(
            "C", NAMES["C"], correlation, None, f"≤ {limits.gradient_correlation:g}",
            correlation <= limits.gradient_correlation,
            f"mean |correlation| between two registers over {len(gradients) // 2} batches of {ROWS}, without dropout",
        ),
        Finding(
            "F", NAMES["F"], float(norms.mean()), None, "", None,
            "norms " + ", ".join(f"{norm:.3f}" for norm in norms),
        ),
        Finding(
            "K", NAMES["K"], rank, None, f"> {limits.rank:g}", rank > limits.rank,
            "directions that hold 90% of the gradients' variance, as a share of all there could be",
        ),
    ]  # fmt: skip
    seen, details = _seen(sample)
    return [*found, _readout(sample), seen], {"cosines": cosines.tolist(), **details}


def mean_beside(matrix: np.ndarray) -> float:
    """The mean beside the diagonal; NaN for a single register."""
    count = len(matrix)
    return float((matrix.sum() - np.trace(matrix)) / (count * (count - 1))) if count > 1 else float("nan")


def gradients_of(sample: Sample) -> np.ndarray:
    """[G, M, D] of the mean loss of a batch by the registers' input vectors, in eval mode."""
    fitted = sample.fitted
    index = some(sample.targets, BATCHES * ROWS)
    # Neighbours in the order of heights lie in different batches, so that batches differ by chance alone.
    batches = [index[number::BATCHES] for number in range(min(BATCHES, len(index)))]
    found = []
    for batch in batches:
        here = rows(sample.targets, batch)
        held: list[torch.Tensor] = []

        def keep(
            module: Any, inputs: Any, output: torch.Tensor, held: list[torch.Tensor] = held
        ) -> torch.Tensor:
            del module, inputs
            held.append(output.detach().requires_grad_())
            return held[-1]

        handle = fitted.model.registers.register_forward_hook(keep)
        try:
            with torch.enable_grad():
                device = fitted.policy.device
                exact = torch.float32 if device.type == "mps" else torch.float64
                density = fitted.model.predict(
                    torch.as_tensor(here.past, dtype=torch.float32, device=device),
                    torch.as_tensor(here.past_heights, dtype=exact, device=device),
                )
                target = torch.as_tensor(here.target, dtype=torch.float32, device=device)
                (gradient,) = torch.autograd.grad(-density.log_prob(target).mean(), held)
        finally:
            handle.remove()
        found.append(gradient.double().cpu().numpy())
    return np.stack(found)


def effective_rank(gradients: np.ndarray) -> float:
    """Directions that hold 90% of the variance of G · M centred gradients, over the most that there could be."""
    flat = gradients.reshape(-1, gradients.shape[2])
    powers = np.linalg.svd(flat - flat.mean(0), compute_uv=False) ** 2
    if not powers.sum() > 0:
        return float("nan")
    needed = int(np.searchsorted(np.cumsum(powers) / powers.sum(), 0.9)) + 1
    return needed / min(len(flat) - 1, flat.shape[1])


def _readout(sample: Sample) -> Finding:
    """D: how evenly the readout weighs registers."""
    readout = getattr(sample.fitted.model, "readout", None)
    if readout is None:
        return not_there("D", NAMES["D"], "the prediction is not read from registers")
    weights = readout.detach().double().softmax(0).cpu().numpy()
    if len(weights) < 2:
        return not_there("D", NAMES["D"], "a single register")
    entropy = float(-(weights * np.log(np.maximum(weights, 1e-300))).sum() / np.log(len(weights)))
    limit = sample.thresholds.readout_entropy
    evidence = "weights " + ", ".join(f"{weight:.3f}" for weight in weights)
    evidence += "; hardly moved from where they began" if entropy > 0.9999 else ""
    return Finding("D", NAMES["D"], entropy, None, f"> {limit:g}", entropy > limit, evidence)


def _seen(sample: Sample) -> tuple[Finding, dict[str, Any]]:
    """I: where registers look, layer by layer."""
    model = sample.fitted.model
    if getattr(model, "readout", None) is None:
        return not_there("I", NAMES["I"], "these registers do not look at spacings"), {}
    here = rows(sample.targets, some(sample.targets, 256))
    policy = sample.fitted.policy
    exact = torch.float32 if policy.device.type == "mps" else torch.float64
    with policy.inference(model):
        layers = model.slot_attention(
            torch.as_tensor(here.past, dtype=torch.float32, device=policy.device),
            torch.as_tensor(here.past_heights, dtype=exact, device=policy.device),
        )
    weights = layers.double().cpu().numpy()
    choices = {"last layer": weights[-1], "last three": weights[-3:].mean(0), "all": weights.mean(0)}
    spread = {name: float(centres(chosen).std()) for name, chosen in choices.items()}
    width = (weights[-1] > 0.05 * weights[-1].max(1, keepdims=True)).sum(1)
    limit = sample.thresholds.centre_spread * weights.shape[2] / WIDTH
    value = spread["last layer"]
    evidence = "spread of the centres: " + ", ".join(f"{each:.2f} {name}" for name, each in spread.items())
    evidence += (
        f"; {width.min()} to {width.max()} of {weights.shape[2]} spacings above 5% of the largest weight"
    )
    finding = Finding("I", NAMES["I"], value, None, f"> {limit:.3g} spacings", value > limit, evidence)
    return finding, {"attention": weights[-1].tolist()}


def centres(weights: np.ndarray) -> np.ndarray:
    """[M] the centre of mass of each register's weights [M, T], in spacings from the oldest."""
    return (weights * np.arange(weights.shape[1])).sum(1) / weights.sum(1)
