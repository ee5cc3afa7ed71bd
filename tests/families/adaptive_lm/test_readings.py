"""Every number that a step event says of depth, price and gates, worked out again token by token."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from ourospec.contracts import Clock, Effort
from ourospec.families.adaptive_lm.credit import NoCreditConfig
from ourospec.families.adaptive_lm.economy import ConstantPriceConfig
from ourospec.families.adaptive_lm.schedule import Schedule
from ourospec.train.step import accumulate, look

from .small import CREDITS, LAYERS, POLICY, make, text

path = Path(__file__).parents[2] / "reference"


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


slow, layers = load("depth_books"), load("layers")

TOTAL = 1_000
CLOCKS = {"forced": 0, "free": 3, "priced": 4, "watched": 9, "audit": 6, "late audit": 8}
# The sums are float64, but the trainer brings numbers to the host as float32; a variance from its second moment, of a
# spread s, then keeps about 6e-8/s² of it.
CLOSE = {"rel": 3e-6, "abs": 3e-6}
SPREADS = {"layer_p_std": {"rel": 1e-4, "abs": 1e-3}}


class Watched:
    """The calls of a model: efforts and outputs of its forwards, gains that were probed."""

    def __init__(self, model) -> None:
        self.forwards: list[tuple[dict[str, Any], Any]] = []
        self.probes: list[tuple[dict[str, Any], Any]] = []
        self.handle = model.register_forward_hook(self._forward, with_kwargs=True)
        self.probe_gain = model.probe_gain
        model.probe_gain = self._probe

    def _forward(self, model, args, kwargs, output) -> None:
        self.forwards.append((kwargs, output))

    def _probe(self, tokens, documents, targets, layer, passes, effort):
        answer = self.probe_gain(tokens, documents, targets, layer, passes, effort)
        self.probes.append(({"targets": targets, "layer": layer, "passes": passes}, answer))
        return answer

    @property
    def trained(self) -> list[Any]:
        """The outputs that were trained on, one a micro-batch."""
        return [output for _, output in self.forwards if output.states.requires_grad]


class Case:
    """One step: its event, and all that was recorded of it."""

    def __init__(self, settings: dict[str, Any], step: int) -> None:
        self.model, self.objective = make(**settings)
        self.clock = Clock(step, TOTAL)
        # As many rows in each, but not as many targets.
        self.batches = [text(0), text(1, missing=3), text(2, missing=7)]
        self.before, self.effort = self.objective.state_dict(), self.objective.effort(self.clock)
        watched = Watched(self.model)
        torch.manual_seed(5)
        totals = accumulate(self.model, self.objective, self.batches, None, self.clock, POLICY)
        watched.handle.remove()
        self.watched = watched
        reading = look(totals, [p.grad for p in self.model.parameters() if p.grad is not None])
        own = self.objective.update(
            {"loss": reading.loss, **reading.metrics}, self.clock._replace(step=step + 1)
        )
        said = {**reading.metrics, **own, "loss": reading.loss}
        self.event = {name: value for name, value in said.items() if value is not None}
        self.outputs = watched.trained
        self.parts = [[as_lists(trace) for trace in output.trace] for output in self.outputs]

    @property
    def audited(self) -> int | None:
        return self.objective.config.schedule.audited_layer(self.clock, LAYERS)


def as_lists(trace) -> dict[str, Any]:
    return {
        "passes": trace.passes.tolist(),
        "wanted": trace.wanted.tolist(),
        "survival": [s.tolist() for s in trace.survival],
        "gates": [p.tolist() for p in trace.gates],
        "relative": [r.tolist() for r in trace.relative],
        "entropy": None if trace.entropy is None else trace.entropy.tolist(),
    }


CASES: dict[tuple[str, str], Case] = {}


@pytest.fixture(params=[(name, when) for name in CREDITS for when in CLOCKS], ids=", ".join)
def case(request):
    return case_of(*request.param)


def case_of(name: str, when: str) -> Case:
    if (name, when) not in CASES:
        CASES[name, when] = Case(CREDITS[name], CLOCKS[when])
    return CASES[name, when]


def nll_and_entropy(states, targets, table) -> tuple[float, float]:
    """Sums over the positions that have a target."""
    loss = entropy = 0.0
    for state, target in zip(states.flatten(0, 1), targets.flatten().tolist(), strict=True):
        if target < 0:
            continue
        scores = (table @ state).tolist()
        highest = max(scores)
        normaliser = highest + math.log(sum(math.exp(score - highest) for score in scores))
        loss += normaliser - scores[target]
        entropy -= sum(math.exp(score - normaliser) * (score - normaliser) for score in scores)
    return loss, entropy


def by_targets(case: Case, values) -> float:
    """A mean over targets of what is one number in each micro-batch."""
    weights = [batch.num_targets for batch in case.batches]
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def losses(case: Case) -> dict[str, Any]:
    """lm_loss and what the experts add."""
    table, found, nats = case.model.head.rows.weight.detach(), {}, 0.0
    for batch, output in zip(case.batches, case.outputs, strict=True):
        nats += nll_and_entropy(output.states.detach(), batch.targets, table)[0]
    found["lm_loss"] = nats / sum(batch.num_targets for batch in case.batches)
    found["bits_per_byte"] = nats / math.log(2) / sum(batch.num_bytes for batch in case.batches)
    if case.outputs[0].aux_loss is not None:
        each = [float(output.aux_loss.detach()) for output in case.outputs]
        found["aux_loss"] = by_targets(case, each)
        calls = [sum(len(layer["survival"]) for layer in part) for part in case.parts]
        found["aux_per_call"] = by_targets(case, [a / n for a, n in zip(each, calls, strict=True)])
    return found


def improvements(case: Case) -> list[tuple[float, float, int]]:
    """Of each micro-batch: CE(cheaper) − CE(as run), H(as run) − H(cheaper), summed over so many targets."""
    found, table = [], case.model.head.rows.weight.detach()
    credit = case.objective.config.credit
    for batch, output in zip(case.batches, case.outputs, strict=True):
        if credit.kind == "coupon" and credit.reference == "last_layer":
            rows = len(batch.tokens)
            cheaper = case.model.head.norm(output.trace[-1].first)
        else:
            rows = len(batch.tokens) // 2
            effort = Effort(forced_passes=1) if case.audited is None else case.effort
            cheaper = case.model(batch.tokens[:rows], batch.documents[:rows], effort=effort).states
        targets = batch.targets[:rows]
        loss, entropy = nll_and_entropy(cheaper.detach(), targets, table)
        loss_run, entropy_run = nll_and_entropy(output.states[:rows].detach(), targets, table)
        found.append((loss - loss_run, entropy_run - entropy, int((targets >= 0).sum())))
    return found


def costs(case: Case) -> dict[str, Any]:
    """The bill and what the passes improved."""
    config = case.objective.config
    if not config.schedule.priced(case.clock):
        return {}
    improved = improvements(case)
    number = sum(n for _, _, n in improved)
    found = {
        "delta_ce": sum(gain for gain, _, _ in improved) / number,
        "delta_h": sum(change for _, change, _ in improved) / number,
    }
    bills = [
        bill(case, output, gain / n) for output, (gain, _, n) in zip(case.outputs, improved, strict=True)
    ]
    for name, each in zip(("ponder", "ponder_raw", "ponder_reward"), zip(*bills, strict=True), strict=True):
        found[name] = by_targets(case, each)
    return found


def bill(case: Case, output, improvement: float) -> tuple[float, float, float]:
    """Net, raw, reward of one micro-batch, by the docstrings of credit.py and economy.py."""
    config, price = case.objective.config, case.before["price"]
    parts = [as_lists(trace) for trace in output.trace]
    more = [slow.mean(token.passes - 1 for token in slow.tokens_of(part)) for part in parts]
    if config.credit.kind == "gain":
        return 0.0, price * sum(more), 0.0
    raw = price * slow.mean(more)
    if config.price.kind == "legacy":
        most = case.model.depth.max_passes
        raw = 0.0
        for part in parts:
            tokens = slow.tokens_of(part)
            soft = max(slow.mean(sum(token.survival) for token in tokens) - 1, 0.0)
            deepest = max(token.passes for token in tokens) - 1
            raw += price * (0.85 * soft + 0.15 * deepest) / (most - 1)
    if config.credit.kind == "coupon":
        reward = config.credit.eta * max(improvement, 0.0)
        return max(raw - reward, 0.0), raw, reward
    if config.credit.kind == "exploration":
        reward = config.credit.beta * slow.mean(exit_entropy(trace) for trace in output.trace)
        return raw - reward, raw, reward
    return raw, raw, 0.0


def exit_entropy(trace) -> float:
    """Token by token; the survival is the product of all gates that were asked in the layer."""
    found, rows, length = [], *trace.passes.shape
    for b in range(rows):
        for t in range(length):
            s, exits = 1.0, []
            for gate in trace.gates:
                p = float(gate[b, t].detach())
                exits.append(s * (1 - p))
                s *= p
            found.append(-sum(q * math.log(q) for q in [*exits, s] if q > 0))
    return slow.mean(found)


def lessons(case: Case) -> dict[str, Any]:
    """What gains taught the gates, from the gains that were probed."""
    config = case.objective.config.credit
    if config.kind != "gain":
        return {}
    found, each = [], []
    rows = len(case.batches[0].tokens) // 2
    probes = iter(case.watched.probes)
    for _ in case.batches:
        tested, errors = 0, []
        while tested < rows:
            asked, answers = next(probes)
            tested += len(asked["targets"])
            for target, *said in zip(asked["targets"].flatten(), *map(torch.flatten, answers), strict=True):
                gain, logit, at_stake = (float(number.detach()) for number in said)
                if target < 0:
                    # Nothing is gained where nothing is asked, and the gate hears of it.
                    errors.append(0.5 * logit**2)
                    continue
                worth = max(-config.clip, min(config.clip, gain)) + config.stake * at_stake
                found.append(gain)
                errors.append(0.5 * (logit - worth / config.nats_per_logit) ** 2)
        each.append(config.weight * slow.mean(errors))
    return {"credit_gain": slow.mean(found), "gate_loss": by_targets(case, each)}


def baton(case: Case) -> dict[str, Any]:
    """RMS of what is handed on by that of the token it reaches."""
    ratios, strength = [], case.model.baton.strength.detach().sigmoid()
    for batch in case.batches:
        x = case.model.embedding(batch.tokens[: len(batch.tokens) // 2]).detach()
        handed, own = [], []
        for row in x:
            for t in range(1, len(row)):
                handed += (strength * row[t - 1]).square().tolist()
                own += row[t].square().tolist()
        ratios.append(math.sqrt(slow.mean(handed)) / math.sqrt(slow.mean(own)))
    return {"baton_ratio": slow.mean(ratios), "baton_gate": float(strength.mean())}


def market(case: Case, kind: str, depth: float, soft: float) -> dict[str, Any]:
    """The price now and after the controller heard of the step: before any deadband, so by one rule."""
    config, price = case.objective.config, case.before["price"]
    if config.credit.kind == "gain" and kind != "forced":
        threshold = 1 / (1 + math.exp(-price / config.credit.nats_per_logit))
    else:
        threshold = case.model.depth.threshold
    found = {"step_kind": kind, "price": price, "price_next": price, "threshold": threshold}
    found |= {"deadband": False, "deadband_steps": 0, "target_passes": config.price.target}
    if kind == "audit":
        found["audit_layer"] = case.audited
    if kind == "policy" and config.schedule.priced(case.clock):
        heard = soft if config.price.kind == "legacy" else depth
        found["control_error"] = heard - config.price.target
        scale = 0.01
        if config.price.kind == "legacy":
            scale = 1.0
        elif config.credit.kind == "gain":
            scale = config.credit.nats_per_logit * min(max(slow.bid_spread(case.parts), 0.05), 5.0)
        moved = price + config.price.rate * scale * found["control_error"]
        found["price_next"] = min(max(moved, config.price.floor), config.price.ceiling)
    return found


KINDS = {
    "forced": "forced",
    "free": "policy",
    "priced": "policy",
    "watched": "policy",
    "audit": "audit",
    "late audit": "audit",
}


def test_every_field_of_the_event(case):
    step = case.clock.step
    kind = next(KINDS[name] for name, at in CLOCKS.items() if at == step)
    books = slow.books(case.parts, case.model.depth.max_passes, case.model.depth.weight)
    config = case.objective.config
    price = case.before["price"] if config.schedule.priced(case.clock) else 0.0
    kind_of_bill = "legacy" if config.price.kind == "legacy" else config.credit.kind
    books["layer_p_loss"] = slow.layer_bills(books, price, kind_of_bill, case.model.depth.max_passes)
    wanted = {
        **books,
        **losses(case),
        **costs(case),
        **lessons(case),
        **baton(case),
        **market(case, kind, books["wanted_passes"], books["expected_passes"]),
    }
    if kind == "forced":
        for name in ("wanted_passes", "layer_wanted", "near_floor"):
            del wanted[name]
    added = sum(wanted.get(name, 0.0) for name in ("lm_loss", "aux_loss", "ponder", "gate_loss"))
    wanted["loss"] = added
    assert case.event.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(name, case.event[name], value)


def test_the_cases_show_what_could_go_wrong():
    """Otherwise the comparisons above would hold for books that are wrong."""
    shown = {"ponder": False, "ponder_reward": False, "near_floor": False, "layer_p_near_clamp": False}
    few_second_gates = False
    for name in CREDITS:
        for when in CLOCKS:
            case = case_of(name, when)
            for field in shown:
                value = case.event.get(field, 0.0)
                shown[field] |= any(value) if isinstance(value, list) else value > 0
            asked = [max(map(max, layer["passes"])) for part in case.parts for layer in part]
            few_second_gates |= 1 in asked and max(asked) > 1
    assert all(shown.values()) and few_second_gates, shown
    bills = [(c.event["ponder"], c.event["ponder_reward"]) for c in CASES.values() if "ponder" in c.event]
    assert any(net > 0 and reward > 0 for net, reward in bills), "a coupon that pays a part of the bill"


def test_a_model_without_gates_tells_what_it_ran():
    schedule = Schedule(forced_passes=0, forced_until=0, price_from=0, audit_share=0)
    settings = {"credit": NoCreditConfig(), "price": ConstantPriceConfig(price=0.0)}
    case = Case({**settings, "schedule": schedule, "halting": "fixed", "max_passes": 3}, step=9)
    books = slow.books(case.parts, 3, "survival")
    for name, value in (books | losses(case) | {"layer_p_loss": [0.0] * LAYERS}).items():
        assert_close(name, case.event[name], value)
    assert books["mean_passes"] == 3
    assert "gate" not in case.event and "near_floor" not in case.event and "ponder" not in case.event
    assert case.event["loss"] == case.event["lm_loss"]


def test_what_was_run_is_what_gates_survival_and_rehearsal_make_of_it(case):
    """Who leaves when, from the recorded gates alone: the rule of nn/depth.py for one token after the other."""
    schedule, most = case.objective.config.schedule, case.model.depth.max_passes
    explores = schedule.rehearsal(case.clock, LAYERS, 0).exploration
    applied = {kwargs["effort"].threshold for kwargs, _ in case.watched.forwards if kwargs["effort"].training}
    threshold = case.model.depth.threshold if applied == {None} else applied.pop()
    assert threshold == pytest.approx(case.event["threshold"], rel=1e-6)
    explored = extra = 0
    for part in case.parts:
        for index, layer in enumerate(part):
            for token in slow.tokens_of(layer):
                if schedule.forced(case.clock):
                    assert token.passes == schedule.forced_passes
                    continue
                wanted, s = 1, 1.0
                for p in token.gates:
                    s *= p
                    if s < threshold:
                        break
                    wanted += 1
                assert token.wanted == wanted
                if index == case.audited:
                    assert token.passes == min(wanted + 1, most)
                    extra += token.passes - wanted
                else:
                    assert token.passes >= wanted
                    explored += token.passes - wanted
    if not schedule.forced(case.clock):
        assert (explored > 0) == (explores > 0), "exploration shows, and rests while there is an audit"
        assert (extra > 0) == (case.audited is not None)


def assert_close(name: str, found: Any, wanted: Any) -> None:
    if isinstance(wanted, list):
        assert len(found) == len(wanted), name
        for one, other in zip(found, wanted, strict=True):
            assert_close(name, one, other)
    elif isinstance(wanted, str | bool | int):
        assert found == wanted, name
    else:
        assert found == pytest.approx(wanted, **SPREADS.get(name, CLOSE)), name
