"""The events of a run: what is in them, how they are written, how they are read back.

`events.jsonl` holds one JSON object a line: {"v": version, "kind": ..., "step": ..., "time": ..., **data}. `step`
counts finished optimiser steps, `time` is in seconds since 1970. A number that is not finite is written as null.
A reader accepts fields that it does not know: objectives report metrics of their own. What each kind holds:

start       name, family; parameters (count); device, precision; total_steps; tokens_per_step; resumed_from (a
            step, or null for a fresh run); unit (of targets: what tokens, tokens_per_step and tokens_per_second count;
            absent: token); data (of a language model: source, corpus_fingerprint, split, near_duplicates,
            vocab_size, lossless, and under train and heldout documents, tokens, bytes, bytes_per_token)
step        loss (nats per target, all costs included); lr; lr_phase (warmup, cosine or done); grad_norm,
            grad_norm_clipped (L2, before and after clipping); tokens (seen so far); tokens_per_second;
            step_seconds (of this step); seconds (spent training so far); muon_lr (lr being AdamW's; with optim.muon);
            max_logit (largest attention logit of any head, before it was limited), clipped_heads (count; both with
            optim.qk_clip)
  of a language model (nn/next_token.py)
            lm_loss (nats per target, of the next token alone); bits_per_byte (of the batch); aux_loss (nats per
            target that balancing costs; only with experts)
  of a curriculum of puzzles
            stage (from 0)
  of adaptive_lm besides: K passes at most, L layers; a field that means nothing in a step is left out
            step_kind (forced: every token runs the same number of passes, policy: the gates decide, audit: one layer
            runs one more pass than its gates want); audit_layer (from 0; on audits); mean_passes (executed, per token
            and layer); wanted_passes (what the gates alone asked for; not on forced steps); expected_passes (soft
            depth: the sum of the mean survival); exec_passes (of the deepest token, mean over layers); gap
            (exec_passes − expected_passes); passes_by_layer [L]; depth_histogram [K] (share of (token, layer) pairs
            that ran exactly 1 .. K passes); survival [K] (mean survival entering each pass); threshold (survival
            under which a token leaves); aux_per_call (aux_loss by the calls of a router; only with experts)
  of its gates
            gate (mean probability of going on after the first pass); near_floor (share of gate values <= 0.05; not on
            forced steps); gate_loss (nats per target that teaching the gates adds to the loss); credit_gain (nats:
            mean measured gain of one more pass in the layer on trial; both where gains teach the gates)
  of its price, in nats per pass
            price (applied in this step); price_next (after the controller heard of it); target_passes;
            control_error (wanted_passes − target_passes; of priced policy steps); deadband (bool); deadband_steps
            (since it engaged)
  of what that bought, in nats per target, on priced steps
            ponder (net, in the loss); ponder_raw (before the coupon); ponder_reward (the coupon); delta_ce
            (cross-entropy of a cheaper run of some rows − as run; cheaper: all layers one pass, of an audit the same
            without its additional pass); delta_h (entropy as run − of the cheaper run)
  of its baton
            baton_ratio (RMS of what is taken over by that of the token); baton_gate (mean strength, 0 to 1)
  of each layer [L], in stats.json without their layer_
            layer_k (soft depth); layer_k_exec (passes of the deepest token); layer_avg_exec_token; layer_wanted
            (passes that the gates asked for; not on forced steps); layer_p95_exec_token; layer_frac_ge2;
            layer_frac_ge3; layer_frac_ge4 (shares of tokens that ran so many passes); layer_wasted_compute
            (k_exec / avg_exec_token − 1); layer_histogram [L][K]; layer_s_trace [L][K]; layer_s_final (survival
            behind the last gate that was asked); layer_p_mean; layer_p_std; layer_p_diff; layer_p_near_clamp (gate
            values: mean after the first pass, standard deviation, second − first, share <= 0.05); layer_d_rel;
            layer_h_diff (length of an update by that of the state, plain and as weighted); layer_ponder_signal
            ((k − 1) / (K − 1)); layer_p_loss (nats per target: the layer's part of the bill); layer_ent (entropy of
            attention, 0 to 1; every tenth step); layer_zero_point (logits from which its gates count, where passes are
            rationed; such a run has no price)
eval        split; loss, perplexity, bits_per_byte, mean_passes, flops_per_token (each with its standard error over
            documents under <name>_se); passes_by_layer [L]; documents, tokens, bytes (counts); best (true where these
            weights are kept, their loss being the least so far; with train.keep_best)
  of puzzles, too
            exact_match (with its standard error); answers (count); tasks (a list, by difficulty too; see
            measure/answers.py)
sample      samples (a list of {prompt, text, pieces: [str], passes: [mean over layers, one a piece]}); greedy_tokens
            (count: the likeliest tokens, 32 after each prompt at most), distinct_token_ratio (different ones by all of
            them), top_token_share (of the most frequent one; both absent where there are none)
checkpoint  path, bytes, seconds (spent saving)
warning     message
end         status (complete, interrupted, diverged, failed), seconds; stopped_early (why a complete run ended before
            its last step, in words); best_loss, best_step (of the weights kept as the best; with train.keep_best)

A new optional field leaves the version as it is; a field that is gone or means something else raises it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any, NamedTuple

from ourospec.contracts import Event
from ourospec.errors import DataError
from ourospec.runs import EVENTS_VERSION, RunDirectory

ENVELOPE = ("v", "kind", "step", "time")


class Record(NamedTuple):
    """An event as it was written."""

    kind: str
    step: int
    time: float
    """Seconds since 1970, by the clock of the machine that trained."""
    data: dict[str, Any]


def encode(event: Event, time: float) -> str:
    """The event as one line of JSON, with its line end.

    Raises:
        ValueError: the event's data uses a name of the envelope.
    """
    taken = [name for name in ENVELOPE if name in event.data]
    if taken:
        raise ValueError(f"an event of kind {event.kind!r} may not name its own data {', '.join(taken)}")
    envelope = {"v": EVENTS_VERSION, "kind": event.kind, "step": event.step, "time": round(time, 3)}
    line = json.dumps(
        {**envelope, **plain(event.data)}, ensure_ascii=False, allow_nan=False, separators=(",", ":")
    )
    return line + "\n"


def plain(value: Any) -> Any:
    """The value as JSON can say it: arrays as lists, paths as strings, NaN and infinities as None.

    What JSON has no word for is given by its repr, so that one odd metric does not cost a run its log.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "tolist"):  # tensors, NumPy arrays and NumPy numbers
        return plain(value.tolist())
    return repr(value)


def read_records(run: RunDirectory) -> Iterator[Record]:
    """The events of a run, oldest first; a last line that a crash cut off is left out.

    Raises:
        DataError: a line is not an event, or was written by a newer version of the package.
    """
    lines = run.read_events()
    for number in itertools.count(1):
        try:
            record = decode(next(lines))
        except StopIteration:
            return
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(
                f"{run.events}, line {number} is not an event: {error!r}",
                "Delete that line, or restore the file.",
            ) from error
        yield record


def decode(line: Mapping[str, Any]) -> Record:
    """The record that a parsed line holds.

    Raises:
        DataError: a newer version wrote it.
        ValueError, KeyError, TypeError: it is not an event.
    """
    if line["v"] > EVENTS_VERSION:
        raise DataError(
            f"These events have format version {line['v']}; this version of ourospec reads up to {EVENTS_VERSION}.",
            "Read the run with the version of ourospec that wrote it, or a newer one.",
        )
    data = {name: value for name, value in line.items() if name not in ENVELOPE}
    return Record(str(line["kind"]), int(line["step"]), float(line["time"]), data)
