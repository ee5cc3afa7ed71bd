"""stats.json: the latest step as one JSON object, for dashboards and scripts that only want to know how it stands.

{"v": 1, "step", "step_kind", ..., "layers": [{...}, ...]}. The names are those of Ouro-Spec's dashboards; the fields of
telemetry/events.py that they stand for, where they are called otherwise:

total_ponder                    ponder, net of the coupon
deadband_active                 deadband
deadband_steps_since_trigger    deadband_steps
layers[i].<name>                layer_<name>[i], every one that the step reports
layers[0].baton_rat, lam_mu     baton_ratio, baton_gate; only with a baton

A name is always there and is null where the step does not report it. delta_ce is as measured, not cut off at 0. A new
name leaves `v` as it is; one that is gone or means something else raises it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ourospec import storage
from ourospec.contracts import Event
from ourospec.runs import RunDirectory
from ourospec.telemetry.background import Background
from ourospec.telemetry.events import plain
from ourospec.telemetry.log_lines import layers_of

STATS_VERSION = 1
NAMES = {
    "step_kind": "step_kind", "loss": "loss", "lm_loss": "lm_loss", "mtp_loss": "mtp_loss", "aux_loss": "aux_loss",
    "total_ponder": "ponder", "delta_ce": "delta_ce", "delta_h": "delta_h", "price": "price",
    "price_next": "price_next", "deadband_active": "deadband", "deadband_steps_since_trigger": "deadband_steps",
    "mean_passes": "mean_passes", "target_passes": "target_passes", "lr": "lr", "grad_norm": "grad_norm",
    "tokens_per_second": "tokens_per_second",
}  # fmt: skip
LAYER_NAMES = (
    "k", "ent", "p_loss", "k_exec", "s_final", "s_trace", "p_mean", "p_std", "d_rel", "ponder_signal",
    "avg_exec_token", "p95_exec_token", "frac_ge2", "frac_ge3", "frac_ge4", "wasted_compute", "h_diff", "p_diff",
    "p_near_clamp",
)  # fmt: skip


class StatsFile:
    """Keeps stats.json at the latest step: replaced as a whole, a moment later, so that no step waits for the disk.

    A reader sees one step or another, never half of one. Steps that follow each other faster than the disk writes are
    passed over, all but the last.
    """

    def __init__(self, run: RunDirectory) -> None:
        self._path = run.stats
        self._background = Background[Event](self._write, str(self._path), keep=1)

    def on_event(self, event: Event) -> None:
        """Have the file follow, if the event is a step."""
        if event.kind == "start":
            # What a killed process left of a replacement.
            for left in self._path.parent.glob(f".{self._path.name}.*"):
                left.unlink(missing_ok=True)
        elif event.kind == "step":
            self._background.put(event)

    def close(self) -> None:
        """Return when the file tells of the last step."""
        self._background.close()

    def _write(self, events: Sequence[Event]) -> None:
        text = json.dumps(snapshot(events[-1]), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        storage.write_whole(self._path, (text + "\n").encode("utf-8", "replace"))


def snapshot(event: Event) -> dict[str, Any]:
    """What stats.json says of a step."""
    data = plain(event.data)
    layers = [{**dict.fromkeys(LAYER_NAMES), **layer} for layer in layers_of(data)]
    if layers and data.get("baton_ratio") is not None:
        layers[0] |= {"baton_rat": data["baton_ratio"], "lam_mu": data.get("baton_gate")}
    told = {name: data.get(field) for name, field in NAMES.items()}
    return {"v": STATS_VERSION, "step": event.step, **told, "layers": layers}
