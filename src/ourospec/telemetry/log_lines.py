"""Events as the lines of train.log: four levels, each at its own interval. docs/log-guide.md explains every field.

level 1  every step         STEP: the losses, the controller, the depth, the speed
level 2  every 10 steps     L0, L1, ...: one line a layer
level 3  every 50 steps     s_trace of every layer, and the learning rate's phase
level 4  steps with ΔCE     RECURRENCE QUALITY: whether the passes were worth it

A model without passes to decide on leaves the fields of depth out. A field that has no meaning in a step, or was not
measured, shows –. Only fields of the event decide; no family is named.

Source: the names, formats and labels of the log guide of Ouro-Spec's second trainer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ourospec.contracts import Event
from ourospec.telemetry.plain_text import visible
from ourospec.telemetry.quantities import UNKNOWN
from ourospec.telemetry.reading import AUDIT, FORCED, as_number, unit

LAYERS_EVERY = 10
TRACES_EVERY = 50
STEP, DEADBAND = "STEP: ", "[DB]"
LAYER = "layer_"


def start_lines(event: Event) -> list[str]:
    """The first line of a log, or the line at which a resumed run goes on."""
    data = event.data
    if data.get("resumed_from") is not None:
        return [f"RESUMED | at step {event.step}"]
    facts = [f"PARAMS {_number(data, 'parameters', ',.0f')}"]
    facts += [str(data[name]) for name in ("family", "name") if data.get(name)]
    if data.get("device"):
        facts.append(f"{data['device']} in {data.get('precision') or UNKNOWN}")
    if data.get("total_steps"):
        targets = _number(data, "tokens_per_step", ",.0f")
        facts.append(f"{_number(data, 'total_steps', ',.0f')} steps of {targets} {unit(data)}s")
    return [visible(" | ".join(["INIT", *facts]))]


def warning_line(event: Event) -> str:
    """Something is not as it should be, in one line."""
    return "WARNING: " + " ".join(visible(str(event.data.get("message", ""))).split())


def end_line(event: Event) -> str:
    """How the run ended."""
    early = event.data.get("stopped_early")
    words = f"END | {event.data.get('status', UNKNOWN)} after step {event.step}"
    return visible(f"{words} | {early}" if early else words)


def step_lines(event: Event, deadband_before: bool | None) -> list[str]:
    """Everything that a step has to say at its number.

    Args:
        event: a step.
        deadband_before: whether the deadband was engaged in the step before; None where that is not known.
    """
    data = event.data
    lines = [step_line(event), *deadband_lines(data, deadband_before)]
    if data.get("delta_ce") is not None:
        lines.append(quality_line(data))
    if event.step % LAYERS_EVERY == 0:
        lines += layer_lines(data)
    if event.step % TRACES_EVERY == 0:
        lines += trace_lines(event)
    return lines


def step_line(event: Event) -> str:
    """Level 1. Losses are nats per target, dt is milliseconds."""
    data = event.data
    deep = data.get("mean_passes") is not None
    fields = [f"{STEP}{event.step}{_prefix(data)}", f"TOT: {_number(data, 'loss', '.4f')}"]
    fields += _present(data, "LM: {}", "lm_loss", ".4f")
    fields += _present(data, "NLL: {}", "nll", ".4f")
    if deep:
        raw, reward = _number(data, "ponder_raw", ".6f"), _number(data, "ponder_reward", ".6f")
        fields.append(f"PONDER: {_number(data, 'ponder', '.6f')} (RAW: {raw}, RWD: {reward})")
        fields += _present(data, "GATE: {}", "gate_loss", ".4f")
    fields.append(f"LR: {_number(data, 'lr', '.4e')}")
    clipped = _number(data, "grad_norm_clipped", ".4f")
    fields.append(f"GRAD: {_number(data, 'grad_norm', '.4f')}>{clipped}")
    if deep:
        price = "price_next" if data.get("price_next") is not None else "price"
        engaged = DEADBAND if data.get("deadband") is True else ""
        fields.append(f"λ_p: {_number(data, price, '.2e')}{engaged}")
        fields.append(f"CTRL_ERR: {_number(data, 'control_error', '+.3f')}")
        fields.append(f"P_NR: {_number(data, 'near_floor', '.1%')}")
    if data.get("baton_ratio") is not None:
        gate = _number(data, "baton_gate", ".3f")
        fields.append(f"BATON: {_number(data, 'baton_ratio', '.3f')} (lam={gate})")
    fields += _present(data, "MTP: {}", "mtp_loss", ".4f")
    if data.get("aux_loss") is not None:
        fields.append(
            f"AUX: {_number(data, 'aux_per_call', '.4f')} (SUM: {_number(data, 'aux_loss', '.4f')})"
        )
    if deep:
        fields.append(f"PL/LM: {_share_of_loss(data)}")
        fields.append(
            f"AVGS: exec={_number(data, 'exec_passes', '.2f')}, k={_number(data, 'expected_passes', '.2f')}, "
            f"gap={_number(data, 'gap', '.2f')}, avg={_number(data, 'mean_passes', '.2f')}"
        )
    seconds = as_number(data.get("step_seconds"))
    fields.append(f"dt: {UNKNOWN if seconds is None else format(seconds * 1e3, '7.2f')}ms")
    fields.append(f"tok/sec: {_number(data, 'tokens_per_second', '9.2f')}")
    return " | ".join(fields)


def deadband_lines(data: Mapping[str, Any], before: bool | None) -> list[str]:
    """Two lines when the deadband engages, one when it lets go."""
    now = data.get("deadband")
    if not isinstance(now, bool) or before is None or now == before:
        return []
    if not now:
        return [f"=== DEADBAND RELEASED | λ_p: {_number(data, 'price_next', '.2e')} ==="]
    held = _number(data, "target_passes", ".2f")
    return [
        f"=== DEADBAND ENGAGED | λ_p: {_number(data, 'price_next', '.2e')} | target depth {held} passes ===",
        "=== the price rests while the depth is near its target, and moves at half rate outside ===",
    ]


def layer_lines(data: Mapping[str, Any]) -> list[str]:
    """Level 2, one line a layer; none where the model has nothing to say of its layers."""
    return [_layer_line(number, layer, data) for number, layer in enumerate(layers_of(data))]


def trace_lines(event: Event) -> list[str]:
    """Level 3: mean survival entering each pass, and where the learning rate's schedule stands."""
    lines = []
    for number, layer in enumerate(layers_of(event.data)):
        if isinstance(layer.get("s_trace"), list | tuple):
            trace = ", ".join(format_number(value, ".2f") for value in layer["s_trace"])
            lines.append(f"L{number} s_trace: [{trace}]")
    rate, phase = _number(event.data, "lr", ".2e"), event.data.get("lr_phase")
    phase = visible(phase) if isinstance(phase, str) else UNKNOWN
    return [*lines, f"LR CHECK: ({event.step}, {rate}, phase={phase})"]


def quality_line(data: Mapping[str, Any]) -> str:
    """Level 4: what the passes of this step improved on the cheaper run, in nats, and the label for it."""
    gain, entropy = as_number(data.get("delta_ce")), as_number(data.get("delta_h"))
    labels: list[str] = []
    if gain is not None and data.get("step_kind") == AUDIT:
        labels = ["[AUDIT-POS]" if gain > 0 else "[AUDIT-NEG]"]
    elif gain is not None:
        labels = ["[ECONOMIC WIN]" if gain > 0 else "[TAX ONLY]"]
        if gain > 0 and entropy is not None and entropy < 0:
            labels.append("[CONFIDENCE+]")
    numbers = [
        f"ΔCE={_number(data, 'delta_ce', '.6f')}",
        f"ΔH={_number(data, 'delta_h', '.4f')}",
        f"COUPON: {_number(data, 'ponder_reward', '.6f')}",
    ]
    return " ".join(["RECURRENCE QUALITY:", " | ".join(numbers), *labels])


def layers_of(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lists `layer_<field>` of a step turned over: one dictionary of fields for every layer."""
    lists = {
        name.removeprefix(LAYER): value
        for name, value in data.items()
        if name.startswith(LAYER) and isinstance(value, list | tuple)
    }
    count = max(map(len, lists.values()), default=0)
    return [
        {name: values[number] for name, values in lists.items() if number < len(values)}
        for number in range(count)
    ]


def format_number(value: Any, form: str) -> str:
    """The number in that form, or – where it is none."""
    number = as_number(value)
    return UNKNOWN if number is None else format(number, form)


def _layer_line(number: int, layer: Mapping[str, Any], data: Mapping[str, Any]) -> str:
    tail = ", ".join(f"≥{k}:{_number(layer, f'frac_ge{k}', '.2%')}" for k in (2, 3, 4))
    most = as_number(layer.get("k_exec"))
    # A mean over micro-batches need not be whole.
    k_exec = UNKNOWN if most is None else f"{most:.0f}" if most.is_integer() else f"{most:.2f}"
    parts = [
        f"L{number}: k_exec={k_exec}, expected_k={_number(layer, 'k', '.2f')}, "
        f"s_fin={_number(layer, 's_final', '.3f')}",
        f"tok: avg={_number(layer, 'avg_exec_token', '.2f')}, p95={_number(layer, 'p95_exec_token', '.2f')}",
        f"tail: {tail}",
        f"ent={_number(layer, 'ent', '.4f')}",
        f"p_mu={_number(layer, 'p_mean', '.2f')}, p_std={_number(layer, 'p_std', '.3f')}, "
        f"d_rel={_number(layer, 'd_rel', '.3f')}",
        f"Δh={_number(layer, 'h_diff', '.3f')}, Δp={_number(layer, 'p_diff', '.2f')}",
        f"ponder={_number(layer, 'ponder_signal', '.3f')}, p_loss={_number(layer, 'p_loss', '.6f')}, "
        f"λ_p={_number(data, 'price', '.2e')}",
    ]
    return " | ".join(parts)


def _prefix(data: Mapping[str, Any]) -> str:
    if data.get("step_kind") == FORCED:
        return " [FORCED]"
    if data.get("step_kind") != AUDIT:
        return ""
    layer = as_number(data.get("audit_layer"))
    return " [AUDIT]" if layer is None else f" [AUDIT L{layer:.0f}]"


def _present(data: Mapping[str, Any], words: str, name: str, form: str) -> Iterator[str]:
    """The field in words, where the step has it at all."""
    if data.get(name) is not None:
        yield words.format(_number(data, name, form))


def _share_of_loss(data: Mapping[str, Any]) -> str:
    ponder, loss = as_number(data.get("ponder")), as_number(data.get("lm_loss"))
    return UNKNOWN if ponder is None or not loss else f"{ponder / loss:.2%}"


def _number(data: Mapping[str, Any], name: str, form: str) -> str:
    return format_number(data.get(name), form)
