"""How gates learn: what passes cost, what a coupon does to the text's gradient, what a gain is and who is taught it."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from ourospec.contracts import Clock, Effort, Rehearsal
from ourospec.families.adaptive_lm import credit
from ourospec.families.adaptive_lm.credit import (
    CouponConfig,
    ExplorationConfig,
    GainConfig,
    NoCreditConfig,
)
from ourospec.families.adaptive_lm.economy import ConstantPriceConfig, open_market
from ourospec.nn.depth import LayerTrace
from ourospec.nn.visibility import Visibility

from .small import CREDITS, LAYERS, VOCABULARY, gate_parameters, make, text

PRICED = Clock(9, 1_000)
CLOSE = {"rtol": 1e-9, "atol": 1e-12}
AS_AUTHOR = {"detached": False, "reference": "last_layer"}


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor | None]:
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
    return dict(zip(names, found, strict=True))


def step_of(model: Any, objective: Any, clock: Clock = PRICED) -> tuple[Tensor, dict[str, float]]:
    """The loss of one micro-batch, and what is said of it."""
    torch.manual_seed(3)
    step = objective(model, text(0), None, clock)
    return step.loss_sum, {name: as_number(mean) for name, mean in step.metrics.items()}


def as_number(mean: Any) -> float:
    return float((mean.total / mean.weight).mean())


def text_gradient(model: Any, objective: Any) -> dict[str, Tensor | None]:
    """Of the next-token loss alone, by the same passes."""
    torch.manual_seed(3)
    batch = text(0)
    output = model(batch.tokens, batch.documents, effort=objective.training_effort(PRICED))
    return gradients(model, model.head.loss(output.states, batch.targets))


@pytest.mark.parametrize("kind", [NoCreditConfig(), CouponConfig(eta=0.0), ExplorationConfig(beta=0.0)])
def test_a_bill_pulls_at_the_soft_depth_and_at_nothing_else(kind):
    """Price x soft passes beyond the first, mean over tokens and layers; the text's gradient is not touched."""
    model, objective = make(kind, ConstantPriceConfig(price=0.2))
    loss, said = step_of(model, objective)
    assert said["ponder"] == pytest.approx(0.2 * (said["mean_passes"] - 1), rel=1e-6)
    torch.manual_seed(3)
    batch = text(0)
    output = model(batch.tokens, batch.documents, effort=objective.training_effort(PRICED))
    soft = torch.stack([trace.expected_passes.mean() for trace in output.trace]).mean()
    wanted = gradients(model, model.head.loss(output.states, batch.targets) + 0.2 * soft * batch.num_targets)
    for name, gradient in gradients(model, loss).items():
        if wanted[name] is not None:
            torch.testing.assert_close(gradient, wanted[name], **CLOSE, msg=name)


@pytest.mark.parametrize(
    ("eta", "price", "changes", "times"),
    [
        (0.5, 5.0, AS_AUTHOR, 1.5),  # 0 < coupon < raw
        (2.0, 5.0, AS_AUTHOR, 3.0),
        (0.5, 1e-9, AS_AUTHOR, 1.0),  # coupon > raw: nothing is left to pay, and nothing to learn
        (0.5, 5.0, {"reference": "last_layer"}, 1.0),  # detached
        (2.0, 5.0, {}, 1.0),
    ],
)
def test_only_a_coupon_that_is_not_detached_scales_the_gradient_of_the_text(eta, price, changes, times):
    model, objective = make(CouponConfig(eta=eta, **changes), ConstantPriceConfig(price=price))
    plant_improvement(model)
    loss, said = step_of(model, objective)
    assert said["delta_ce"] > 0.01, "the case must show a coupon"
    assert (said["ponder_reward"] < said["ponder_raw"]) == (price > 1)
    found, plain = gradients(model, loss), text_gradient(model, objective)
    # Where the bill does not reach: all but the gates.
    for name in found.keys() - gate_parameters(model).keys():
        if plain[name] is not None:
            torch.testing.assert_close(found[name], times * plain[name], **CLOSE, msg=name)


def plant_improvement(model: Any) -> None:
    """A few steps that make later passes worth something on this text."""
    batch = text(0)
    optimizer = torch.optim.Adam([p for n, p in model.named_parameters() if ".gate." not in n], lr=3e-3)
    for _ in range(15):
        states = model(batch.tokens, batch.documents, effort=Effort(forced_passes=4)).states
        optimizer.zero_grad()
        model.head.loss(states, batch.targets).backward()
        optimizer.step()
    model.zero_grad()


def test_a_coupon_for_harm_is_worth_nothing():
    model, objective = make(CouponConfig(), ConstantPriceConfig(price=0.1))
    torch.nn.init.normal_(model.layers[1].attention.out.weight, std=9.0)
    _, said = step_of(model, objective)
    assert said["delta_ce"] < 0 and said["ponder_reward"] == 0
    assert said["ponder"] == said["ponder_raw"] > 0


def test_a_subsidy_is_paid_out_whatever_the_coupon():
    """Else a market with a coupon could not lift gates that have closed."""
    model, objective = make(CouponConfig(eta=2.0))
    plant_improvement(model)
    objective.set_price(-0.2)
    _, said = step_of(model, objective)
    assert said["ponder_reward"] > 0 > said["ponder_raw"]
    assert said["ponder"] == pytest.approx(said["ponder_raw"])


def test_what_would_be_ignored_is_refused():
    with pytest.raises(ValidationError, match="last_layer"):
        CouponConfig(detached=False, reference="one_pass")


def trace_of(*gates: float) -> LayerTrace:
    """Two tokens with the same gates."""
    p = [torch.full((1, 2), gate, dtype=torch.float64, requires_grad=True) for gate in gates]
    ones = torch.ones(1, 2, dtype=torch.float64)
    return LayerTrace(ones.long(), ones.long(), (ones,) * (len(gates) + 1), tuple(p))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4))
def test_the_entropy_of_exits_by_hand(gates):
    s, exits = 1.0, []
    for p in gates:
        exits.append(s * (1 - p))
        s *= p
    slow = -sum(q * math.log(q) for q in [*exits, s] if q > 0)
    # What is 0 to the logarithm is clamped at 1e-9.
    assert float(credit.exit_entropy(trace_of(*gates), 5).detach()) == pytest.approx(slow, abs=1e-7)


def test_the_entropy_of_exits_is_greatest_where_all_are_alike_and_draws_there():
    even = trace_of(2 / 3, 1 / 2)
    assert float(credit.exit_entropy(even, 3).detach()) == pytest.approx(math.log(3))
    uneven = trace_of(0.9, 0.1)
    slopes = torch.autograd.grad(credit.exit_entropy(uneven, 3), uneven.gates)
    assert (slopes[0] < 0).all() and (slopes[1] > 0).all()


def by_hand(model: Any, batch: Any, layer: int, passes: int, effort: Effort) -> Tensor:
    """−ln p(target) where one layer runs so many passes and the others decide: one forward, layer by layer."""
    x = model.baton(model.embedding(batch.tokens), batch.documents, None)
    see = Visibility(x.shape[1], x.device, documents=batch.documents)
    for index, each in enumerate(model.layers):
        x = each(x, see, Effort(forced_passes=passes) if index == layer else effort)[0]
    log_p = model.logits(model.head.norm(x)).log_softmax(-1)
    nll = -log_p.gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0]
    return nll * (batch.targets >= 0)


@pytest.mark.parametrize("experts", [False, True])
@pytest.mark.parametrize("layer", range(LAYERS))
@pytest.mark.parametrize("passes", [1, 2, 3])
def test_a_gain_is_the_difference_of_two_forwards(layer, passes, experts):
    model, _ = make(GainConfig(), experts=experts)
    batch, effort = text(0, missing=2), Effort(threshold=0.45)
    gain, logit, at_stake = model.probe_gain(
        batch.tokens, batch.documents, batch.targets, layer, passes, effort
    )
    with torch.no_grad():
        stopped = by_hand(model, batch, layer, passes, effort)
        more = by_hand(model, batch, layer, passes + 1, effort)
    torch.testing.assert_close(gain, stopped - more, **CLOSE)
    torch.testing.assert_close(at_stake, stopped, **CLOSE)
    assert (gain[:, :-2].abs() > 0).any() and (gain[:, -2:] == 0).all()
    # The gate is asked after the pass in question, whoever would have left before.
    x = model.baton(model.embedding(batch.tokens), batch.documents, None)
    see = Visibility(x.shape[1], x.device, documents=batch.documents)
    for below in model.layers[:layer]:
        x = below(x, see, effort)[0]
    trace = model.layers[layer](x, see, Effort(threshold=0.0))[1]
    torch.testing.assert_close(logit.sigmoid(), trace.gates[passes - 1], **CLOSE)


def test_a_probe_is_not_disturbed_by_what_training_does():
    """No exploration, no audit, no clamp: it measures what the gates will decide about in use."""
    model, _ = make(GainConfig())
    batch = text(0)
    rehearsed = Effort(
        threshold=0.45, training=Rehearsal(0.4, 0.5, exploration=0.9, audited_layer=1, watched_rows=1)
    )
    state = torch.get_rng_state()
    one = model.probe_gain(batch.tokens, batch.documents, batch.targets, 0, 1, rehearsed)
    assert torch.equal(torch.get_rng_state(), state), "nothing is drawn"
    other = model.probe_gain(batch.tokens, batch.documents, batch.targets, 0, 1, Effort(threshold=0.45))
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("when", [0, 3, 9])
@pytest.mark.parametrize(
    "features", [("state", "update", "direction"), ("second_difference", "entropy", "top_mass", "agreement")]
)
@pytest.mark.parametrize("experts", [False, True])
def test_a_lesson_is_for_gates_only(features, experts, when):
    model, objective = make(GainConfig(), experts=experts, features=features)
    batch, clock = text(0), Clock(when, 1_000)
    lesson = credit.teach_gains(
        objective.config.credit,
        model,
        batch.tokens,
        batch.targets,
        batch.documents,
        clock,
        objective.effort(clock),
    )
    taught = {
        name for name, g in gradients(model, lesson.loss).items() if g is not None and g.abs().max() > 0
    }
    assert taught and taught <= gate_parameters(model).keys()
    # Nor does the text reach the gates where passes weigh their full scale.
    reached = {n for n, g in text_gradient(model, objective).items() if g is not None and g.abs().max() > 0}
    assert not reached & gate_parameters(model).keys()


def test_all_gates_have_their_turn():
    model, _ = make(GainConfig())
    seen = set()
    model.probe_gain = lambda *call: seen.add((call[3], call[4])) or (torch.zeros(1, 10),) * 3
    batch = text(0)
    for step in range(12):
        arguments = batch.tokens[:1], batch.targets[:1], batch.documents[:1]
        credit.teach_gains(GainConfig(), model, *arguments, Clock(step, 100), None)
    assert seen == {(layer, passes) for layer in range(LAYERS) for passes in (1, 2, 3)}


def planted(helped: int) -> tuple[Any, Any]:
    """A layer whose every pass writes the answer for tokens below `helped`, and nothing for the others.

    Coordinates of the stream: 0 says that the token is one of those, 1 is the same for all, 2 is the answer.
    """
    model, objective = make(GainConfig().model_copy(update={"stake": 0.0}), max_passes=2, gate_bias=0.0)
    with torch.no_grad():
        model.embedding.table.weight.zero_()
        model.embedding.table.weight[:helped, 0] = 1.0
        model.embedding.table.weight[:, 1] = 1.0
        model.baton.strength.fill_(-50.0)
        for layer in model.layers:
            layer.attention.out.weight.zero_()
            layer.mlp.gate_up.weight.zero_()
            layer.mlp.down.weight.zero_()
        first = model.layers[0].mlp
        hidden = first.down.weight.shape[1]
        first.gate_up.weight[0, 0] = 1.0
        first.gate_up.weight[hidden, 1] = 1.0
        first.down.weight[2, 0] = 0.3
        model.head.rows.weight.zero_()
        model.head.rows.weight[1, 2] = 2.0
    return model, objective


def test_a_gate_is_told_that_nothing_is_gained_where_nothing_is_asked():
    """Half of the tokens that a pass would help foretell nothing, as in the question of a puzzle."""
    helped, silent = 8, 4
    model, objective = planted(helped)
    config, gates = objective.config.credit, gate_parameters(model)
    optimizer = torch.optim.Adam(gates.values(), lr=0.01)
    with torch.no_grad():
        model.embedding.table.weight[:silent, 3] = 1.0
    generator = torch.Generator().manual_seed(1)
    for step in range(200):
        tokens = torch.randint(VOCABULARY, (2, 10), generator=generator)
        targets = (tokens < helped).long().masked_fill(tokens < silent, -100)
        loss = credit.teach_gains(config, model, tokens, targets, None, Clock(step, 200), Effort()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens = torch.arange(helped)[None]
    foretold = model.probe_gain(tokens, None, torch.ones_like(tokens), 0, 1)[1][0] * config.nats_per_logit
    assert foretold[silent:].min() > 0.05
    assert foretold[:silent].abs().max() < 0.02


def test_gates_learn_whom_a_pass_helps():
    """Token 1 follows those that are helped, token 0 the others; only in layer 0, whose second pass is worth it."""
    helped = 8
    model, objective = planted(helped)
    config, gates = objective.config.credit, gate_parameters(model)
    optimizer = torch.optim.Adam(gates.values(), lr=0.01)
    generator = torch.Generator().manual_seed(1)

    def draw(rows: int) -> tuple[Tensor, Tensor]:
        tokens = torch.randint(VOCABULARY, (rows, 10), generator=generator)
        return tokens, (tokens < helped).long()

    for step in range(150):
        loss = credit.teach_gains(config, model, *draw(2), None, Clock(step, 150), Effort()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    tokens, targets = draw(6)
    easy = tokens >= helped
    gain, logit, _ = model.probe_gain(tokens, None, targets, 0, 1)
    assert gain[~easy].min() > 0.05 and gain[easy].abs().max() < 1e-6, "the plant is as described"
    foretold = logit.detach() * config.nats_per_logit
    torch.testing.assert_close(foretold, gain, rtol=0.1, atol=0.01)
    idle = model.probe_gain(tokens, None, targets, 1, 1)[1].detach() * config.nats_per_logit
    assert idle.abs().max() < 0.01
    # A price between the two gains parts them, and a dearer one stops everybody.
    price = float(gain[~easy].min()) / 2
    for asked, wanted in ((price, torch.where(easy, 1, 2)), (0.5, torch.ones_like(tokens))):
        effort = Effort(threshold=credit.survival_threshold(config, asked))
        passes = model(tokens, effort=effort).passes
        assert torch.equal(passes[0], wanted)
        assert (passes[1] == 1).all()


@pytest.mark.parametrize("bias", [16.0, -16.0])
def test_a_gate_that_is_quite_sure_can_still_be_taught(bias):
    model, objective = make(GainConfig())
    for name, parameter in gate_parameters(model).items():
        if name.endswith("output.bias"):
            parameter.data.fill_(bias)
        if name.endswith("output.weight"):
            parameter.data.zero_()
    batch = text(0)
    lesson = credit.teach_gains(
        objective.config.credit, model, batch.tokens, batch.targets, None, PRICED, Effort()
    )
    slopes = torch.autograd.grad(lesson.loss, model.layers[0].gate.output.bias, allow_unused=True)
    assert slopes[0] is not None and float(slopes[0].abs()) > 0


def test_a_price_is_a_gain_at_which_gates_are_in_two_minds():
    config = GainConfig()
    for price in (-0.3, -0.01, 0.0, 0.02, 0.4):
        threshold = credit.survival_threshold(config, price)
        logit = math.log(threshold / (1 - threshold))
        assert logit * config.nats_per_logit == pytest.approx(price, abs=1e-9)
    assert 0 < credit.survival_threshold(config, -1e9) < credit.survival_threshold(config, 1e9) <= 1


def test_the_unit_of_the_controller_is_the_spread_of_bids_within_reason():
    config = GainConfig(nats_per_logit=0.1)

    def unit(spread: float) -> float:
        return credit.scale(config, {"bid": 0.3, "bid_square": 0.3**2 + spread**2})

    assert unit(2.0) == pytest.approx(0.2)
    assert unit(0.0) == pytest.approx(0.1 * credit.LEAST_SPREAD)
    assert unit(1e6) == pytest.approx(0.1 * credit.GREATEST_SPREAD)
    assert credit.scale(CouponConfig(price_scale=0.03), {}) == 0.03


def test_gains_bill_nobody():
    """The price decides, and is not paid in the loss: what it comes to is told only."""
    model, objective = make(**CREDITS["gain"])
    market = open_market(ConstantPriceConfig(price=0.5))
    output = model(text(0).tokens, effort=Effort(threshold=0.45))
    bill = credit.bill(objective.config.credit, market, output.trace, None, 4)
    assert not bill.net.requires_grad and float(bill.net) == float(bill.reward) == 0
    assert float(bill.raw) == pytest.approx(0.5 * float((output.passes.double().mean((1, 2)) - 1).sum()))
