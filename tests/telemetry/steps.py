"""Step events of an adaptive model, made up and consistent: sums are sums, means are means."""

from __future__ import annotations

from typing import Any

from ourospec.contracts import Event

LAYERS, PASSES = 2, 4
START = {
    "name": "tiny", "family": "adaptive_lm", "parameters": 5_312_004, "device": "cpu", "precision": "bfloat16",
    "total_steps": 1000, "tokens_per_step": 2048, "resumed_from": None,
}  # fmt: skip


def start(resumed_from: int | None = None) -> Event:
    return Event("start", resumed_from or 0, {**START, "resumed_from": resumed_from})


def plain(step: int, **more: Any) -> Event:
    """A step of a model without passes to decide on."""
    data = {
        "loss": 3.25, "lm_loss": 3.25, "bits_per_byte": 1.51, "lr": 2.8e-3, "lr_phase": "cosine",
        "grad_norm": 2.41, "grad_norm_clipped": 1.0, "tokens": 2048 * step, "tokens_per_second": 4876.19,
        "step_seconds": 0.42, "seconds": 0.42 * step,
    }  # fmt: skip
    return Event("step", step, data | more)


def forced(step: int, **more: Any) -> Event:
    """A step of the warm-up: two passes for every token, and no price yet."""
    trace = [1.0, 1.0, 0.0, 0.0]
    data = _depth(trace, [0.0, 1.0, 0.0, 0.0]) | {"step_kind": "forced", "threshold": 0.1, "ponder": 0.0}
    return plain(step, **data | {"ponder_raw": 0.0, "ponder_reward": 0.0} | more)


def policy(step: int, **more: Any) -> Event:
    """A step on which the gates decide, the price holds the depth and the deadband is engaged."""
    trace = [1.0, 0.25, 0.05, 0.0]
    data = _depth(trace, [0.72, 0.24, 0.04, 0.0]) | {
        "step_kind": "policy", "loss": 3.265, "aux_loss": 0.012, "aux_per_call": 0.003, "gate_loss": 0.002,
        "ponder": 0.001, "ponder_raw": 0.0015, "ponder_reward": 0.0005,
        "price": 2.1e-3, "price_next": 2.2e-3, "target_passes": 1.3, "wanted_passes": 1.31, "control_error": 0.01,
        "deadband": True, "deadband_steps": 42, "threshold": 0.1, "near_floor": 0.032,
        "delta_ce": 0.0423, "delta_h": -0.0312, "baton_ratio": 0.123, "baton_gate": 0.456,
    }  # fmt: skip
    return plain(step, **data | more)


def audit(step: int, layer: int = 1, **more: Any) -> Event:
    """A step on which one layer runs one more pass than its gates want."""
    event = policy(step, step_kind="audit", audit_layer=layer, **more)
    kept = {name: value for name, value in event.data.items() if name != "control_error"}
    return Event("step", step, kept)


def _depth(trace: list[float], ran: list[float]) -> dict[str, Any]:
    """What every step says of depth, all layers being alike."""
    mean = sum((k + 1) * share for k, share in enumerate(ran))
    at_least = [sum(ran[k:]) for k in range(PASSES)]
    most = max(k + 1 for k, share in enumerate(ran) if share)
    layer: dict[str, Any] = {
        "k": sum(trace), "k_exec": most, "s_final": 0.042, "avg_exec_token": mean, "p95_exec_token": 2.0,
        "frac_ge2": at_least[1], "frac_ge3": at_least[2], "frac_ge4": at_least[3], "p_mean": 0.25, "p_std": 0.12,
        "d_rel": 0.043, "h_diff": 0.031, "p_diff": -0.05, "p_near_clamp": 0.032, "ponder_signal": 0.1,
        "p_loss": 0.00021, "wasted_compute": most / mean - 1, "s_trace": trace, "histogram": ran,
    }  # fmt: skip
    common = {
        "mean_passes": mean, "expected_passes": sum(trace), "exec_passes": float(most),
        "gap": most - sum(trace), "depth_histogram": ran, "survival": trace, "passes_by_layer": [mean] * LAYERS,
        "gate": 0.25,
    }  # fmt: skip
    return common | {f"layer_{name}": [value] * LAYERS for name, value in layer.items()}
