"""The guarantees that Cognate's failures ask for, by their numbers.

What holds of every family is tested in tests/contract over every preset, this family's among them: causality of the
whole model, rows alone and in company, packing, caching, compaction, exact resume (1, 3, 5, 9), and that random tokens
never beat their entropy (2). The collapse alarm (10) is tests/serve's and tests/telemetry's.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.contracts import Clock, Effort
from ourospec.data.batch import NO_TARGET
from ourospec.data.puzzles.config import PuzzleSource
from ourospec.data.puzzles.lookup import NeedleTask
from ourospec.data.text import TextData, open_text
from ourospec.data.tokenizers import ByteTokenizerConfig
from ourospec.device import DevicePolicy
from ourospec.families import PRESETS
from ourospec.families.recursive_lm.halting import HaltingConfig, Verdicts, halting_loss, targets_of
from ourospec.families.recursive_lm.model import RecursiveLM
from ourospec.families.recursive_lm.objective import RecursiveObjective, RecursiveObjectiveConfig
from ourospec.nn.compaction import execute
from ourospec.optim.groups import hidden_matrices
from ourospec.optim.optimiser import build_optimiser
from ourospec.train.step import accumulate, look

from .small import LENGTH, MEMORIES, NETWORKS, STEPS, VOCABULARY, batch, make, text

PLAIN = DevicePolicy(torch.device("cpu"), None, False)
forms = pytest.mark.parametrize("networks", NETWORKS)
memories = pytest.mark.parametrize("memory", MEMORIES)
few = settings(deadline=None, max_examples=8)
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def objective_of(model: RecursiveLM, **settings) -> RecursiveObjective:
    return RecursiveObjective(RecursiveObjectiveConfig(**settings), model.config.recursion)


@forms
@memories
@few
@given(st.integers(2, LENGTH), st.integers(0, 999), st.data())
def test_guarantee_1_nothing_before_a_changed_token_changes_at_any_step(networks, memory, length, seed, data):
    model, tokens, at = make(networks, memory), text(2, length, seed), data.draw(st.integers(0, length - 1))
    changed = tokens.clone()
    changed[:, at] = (changed[:, at] + 1) % VOCABULARY
    model.train()  # with every step's answer in the trace
    with torch.no_grad():
        one, other = (model(x, effort=Effort(forced_passes=STEPS)).trace for x in (tokens, changed))
    for before, after in zip((*one.answers, *one.halts), (*other.answers, *other.halts), strict=True):
        torch.testing.assert_close(after[:, :at], before[:, :at], **CLOSE)
    if one.mixed is not None:
        torch.testing.assert_close(other.mixed.share[:, :at], one.mixed.share[:, :at], **CLOSE)
    assert not torch.equal(one.answers[-1][:, at], other.answers[-1][:, at])


@pytest.mark.parametrize("memory", ["ema", "delta", "titans"])
def test_guarantee_1_what_lies_beyond_the_window_comes_through_the_memory_alone(memory):
    """One block and one step with a window of 5 each see no further than 8 positions back."""
    model, tokens = make("looped", memory), text(1, LENGTH, 3)
    changed = tokens.clone()
    changed[:, 0] = (changed[:, 0] + 1) % VOCABULARY
    effort = Effort(forced_passes=1)
    with torch.no_grad():
        seen = [model(x, effort=effort).states[:, 20:] for x in (tokens, changed)]
        with model.without("memory off"):
            blind = [model(x, effort=effort).states[:, 20:] for x in (tokens, changed)]
    assert not torch.allclose(*seen, rtol=0, atol=1e-9)
    torch.testing.assert_close(*blind, rtol=0, atol=1e-12)


@forms
def test_guarantee_2_the_target_is_the_next_token_and_padding_is_nobodys(networks):
    """Of −100 nothing is learned, wherever it stands, and every step's answer is held against the next token."""
    model, whole = make(networks).train(), batch(3, 12, 0, asked=1.0)
    objective = objective_of(model, gate_entropy=0.0, halting=HaltingConfig(weight=0.0))
    full = objective(model, whole, None, Clock(0, 1))
    assert full.num_targets == 36
    states = model(whole.tokens, effort=Effort(forced_passes=STEPS)).trace.answers
    wanted = sum(
        t * F.cross_entropy(model.logits(states[t]).flatten(0, 1), whole.targets.flatten(), reduction="sum")
        for t in range(1, STEPS + 1)
    ) / sum(range(1, STEPS + 1))
    torch.testing.assert_close(full.loss_sum, wanted)
    torch.testing.assert_close(
        full.metrics["lm_loss"].total,
        F.cross_entropy(
            model.logits(states[-1]).flatten(0, 1), whole.targets.flatten(), reduction="sum"
        ).detach(),
    )
    targets = whole.targets.clone()
    targets[:, 7:] = NO_TARGET
    part = whole.__class__(whole.tokens, targets, None, 21, 21)
    short = whole.__class__(whole.tokens[:, :7], whole.targets[:, :7], None, 21, 21)
    masked, cut = (objective(model, x, None, Clock(0, 1)).loss_sum for x in (part, short))
    torch.testing.assert_close(masked, cut)


def test_guarantee_2_an_end_of_a_text_is_a_target_where_padding_is_made_of_ends():
    dataset = open_text(
        TextData(source=PuzzleSource(task=NeedleTask(length=16)), tokenizer=ByteTokenizerConfig())
    )
    rows = dataset.stream(40, 4, 4, 0).batches(0)[0]
    end = dataset.tokenizer.end_id
    assert int((rows.targets == end).sum()) == 4 * 2  # two puzzles a row, each with its end
    assert int((rows.tokens == end).sum()) > 4 * 3  # and padding besides, which nobody foretells
    assert rows.num_targets == int((rows.targets >= 0).sum())


@forms
@memories
@few
@given(st.integers(1, 4), st.integers(4, LENGTH), st.integers(0, 999), st.data())
def test_guarantee_3_streamed_with_its_state_a_text_is_what_it_is_at_once(
    networks, memory, rows, length, seed, data
):
    model, tokens = make(networks, memory), text(rows, length, seed)
    cache, parts, at = model.new_cache(rows, length), [], 0
    with torch.no_grad():
        whole = model(tokens)
        while at < length:
            step = data.draw(st.integers(1, length - at))
            parts.append(model(tokens[:, at : at + step], cache=cache))
            at += step
        again = model(tokens)
    torch.testing.assert_close(torch.cat([part.states for part in parts], dim=1), whole.states, **CLOSE)
    assert torch.equal(torch.cat([part.passes for part in parts], dim=2), whole.passes)
    assert torch.equal(again.states, whole.states), "the same input twice"


def test_guarantee_3_measuring_changes_no_state_and_no_tensor_knows_the_size_of_a_batch():
    model = make("two", "ema")
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model(text(7, 9, 0))
        model(text(1, 9, 0))
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert [name for name, _ in model.named_buffers()] == []


@forms
@memories
def test_guarantee_4_every_parameter_is_learned_the_halting_head_too(networks, memory):
    model = make(networks, memory).train()
    rows = batch(4, 24, 0)
    objective_of(model)(model, rows, None, Clock(0, 1)).loss_sum.backward()
    silent = {n for n, p in model.named_parameters() if p.grad is None or not float(p.grad.abs().max())}
    # Rows of tokens that occur nowhere are rows of a matrix that does have a gradient.
    assert silent == set()
    assert float(model.recursion.halt.weight.grad.abs().max()) > 0


def test_guarantee_4_the_halting_gradient_by_hand():
    logits = torch.tensor([[[0.3, -1.0]], [[2.0, 0.5]]], dtype=torch.float64, requires_grad=True)
    asked, right = torch.tensor([[True, False]]), torch.tensor([[False], [True]])
    loss = halting_loss(logits, asked, Verdicts(right, ()), HaltingConfig(target="settled"))
    loss.backward()
    q = logits.detach().sigmoid()
    # Asked: after step 1 wrong and right later (0), after step 2 right (1). Not asked: done at once.
    by_hand = torch.tensor([[[q[0, 0, 0] - 0, q[0, 0, 1] - 1]], [[q[1, 0, 0] - 1, q[1, 0, 1] - 1]]]) / 2
    torch.testing.assert_close(logits.grad, by_hand)
    nats = -((1 - q[0, 0, 0]).log() + q[1, 0, 0].log() + q[0, 0, 1].log() + q[1, 0, 1].log()) / 2
    torch.testing.assert_close(loss.detach(), nats)


@pytest.mark.parametrize("step", [1, 2, 3])
def test_guarantee_4_who_is_not_asked_is_taught_to_leave_after_the_step_that_was_set(step):
    logits = torch.zeros(3, 1, 2, dtype=torch.float64, requires_grad=True)
    asked, right = torch.tensor([[True, False]]), torch.ones(3, 1, dtype=torch.bool)
    halting_loss(logits, asked, Verdicts(right, ()), HaltingConfig(leave_after=step)).backward()
    stay = [0.5 / 3 if k + 1 < step else -0.5 / 3 for k in range(3)]
    assert logits.grad[:, 0, 1].tolist() == pytest.approx(stay)


def test_guarantee_4_heads_by_step_judge_their_own_step_alone():
    model = make("looped")
    every, tokens = Effort(forced_passes=STEPS), text(2, 9, 0)
    before = model(tokens, effort=every).trace.halts
    with torch.no_grad():
        model.recursion.halt.bias[2] += 1.0
    after = model(tokens, effort=every).trace.halts
    moved = [float((new - old).detach().mean()) for new, old in zip(after, before, strict=True)]
    assert moved == pytest.approx([0.0, 0.0, 1.0, 0.0])


@few
@given(st.integers(1, 6), st.integers(1, 5), st.integers(0, 999))
def test_guarantee_4_what_is_settled_against_a_loop(steps, tokens, seed):
    right = torch.rand(steps, tokens, generator=torch.Generator().manual_seed(seed)) < 0.4
    wanted = torch.zeros(steps, tokens)
    for k in range(steps):
        for n in range(tokens):
            better = not right[k, n] and any(right[later, n] for later in range(k + 1, steps))
            wanted[k, n] = 0.0 if better else 1.0
    assert torch.equal(targets_of(Verdicts(right, ()), "settled"), wanted)
    assert torch.equal(targets_of(Verdicts(right, ()), "correct"), right.float())


def test_guarantee_4_running_accuracy_compares_before_it_learns():
    """Cognate took the batch into the average first, so that a rising accuracy met a raised bar."""
    right = torch.tensor([[True, False], [True, True]])
    assert torch.equal(targets_of(Verdicts(right, ()), "running_accuracy"), torch.full((2, 2), 0.5))
    wanted = targets_of(Verdicts(right, (0.6, 0.6)), "running_accuracy")
    assert torch.equal(wanted, torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    model = make()
    objective = objective_of(model, halting=HaltingConfig(target="running_accuracy"))
    objective.update({"step_accuracy": [0.5] * STEPS}, Clock(1, 9))
    objective.update({"step_accuracy": [1.0] * STEPS}, Clock(2, 9))
    assert objective.running == pytest.approx([0.98 * 0.5 + 0.02] * STEPS)
    restored = objective_of(model)
    restored.load_state_dict(objective.state_dict())
    assert restored.running == objective.running


def test_guarantee_4_halting_is_taught_under_bfloat16_without_a_sigmoid_in_between():
    logits = torch.full((1, 1, 2), 40.0, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        loss = halting_loss(
            logits, torch.tensor([[True, True]]), Verdicts(torch.tensor([[False, False]]), ()),
            HaltingConfig(target="correct"),
        )  # fmt: skip
    loss.backward()
    assert float(loss.detach()) == pytest.approx(40.0) and float(logits.grad.sum()) == pytest.approx(1.0)


def test_guarantee_4_the_variance_of_one_row_is_a_number():
    """Cognate's logger divided by one less than the size of its batch, which was one."""
    config = HaltingConfig(weight=1.0, diversity=1.0, unasked="ignore")
    logits = torch.zeros(2, 1, 1, requires_grad=True)
    loss = halting_loss(logits, torch.tensor([[True]]), Verdicts(torch.tensor([[True], [True]]), ()), config)
    assert math.isfinite(float(loss)) and float(loss) == pytest.approx(math.log(2) + 0.1)
    model = make().train()
    step = objective_of(model)(model, batch(1, 8, 0), None, Clock(0, 1))
    read = objective_of(model).update(
        {name: (mean.total / mean.weight).tolist() for name, mean in step.metrics.items()}, Clock(1, 1)
    )
    assert math.isfinite(read["halting_variance"])


@forms
def test_guarantee_5_the_answers_of_each_step_are_kept_without_gradients_too(networks):
    model, tokens = make(networks).train(), text(4, LENGTH, 1)
    with execute(model, "compacted"):
        wanted = model(tokens)
        with torch.no_grad():
            found = model(tokens)
    assert wanted.passes.unique().numel() > 1
    for mine, plain in zip(found.trace.answers, wanted.trace.answers, strict=True):
        torch.testing.assert_close(mine, plain.detach(), rtol=1e-12, atol=1e-12)


@forms
@memories
@few
@given(st.integers(1, 4), st.integers(2, LENGTH), st.integers(0, 999), st.floats(0.05, 0.95))
def test_guarantee_5_who_halts_keeps_what_the_full_computation_gave(
    networks, memory, rows, length, seed, threshold
):
    """Against a twin that computes everyone in every step and puts back what the halted had."""
    model, tokens = make(networks, memory), text(rows, length, seed)
    effort = Effort(threshold=threshold)
    with torch.no_grad(), execute(model, "masked"):
        masked = model(tokens, effort=effort)
    with torch.no_grad(), execute(model, "compacted"):
        packed = model(tokens, effort=effort)
    torch.testing.assert_close(packed.states, masked.states, rtol=1e-12, atol=1e-12)
    assert torch.equal(packed.passes, masked.passes)


@forms
@memories
@pytest.mark.parametrize("seed", [0, 1])
def test_guarantee_5_gradients_are_those_of_the_full_computation(networks, memory, seed):
    """In the steps of practice, in which tokens halt while the model is trained."""
    found = {}
    for how in ("masked", "compacted"):
        model = make(networks, memory).train()
        with execute(model, how):
            step = objective_of(model, halting=HaltingConfig(starts=0.0, practice=0.9))(
                model, batch(3, 20, seed), None, Clock(8, 10)
            )
        assert "halting_loss" not in step.metrics
        step.loss_sum.backward()
        found[how] = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}, step.metrics
    (masked, told), (packed, also) = found["masked"], found["compacted"]
    assert float(told["mean_passes"].total) == float(also["mean_passes"].total) < STEPS * 60
    assert masked.keys() == packed.keys()
    for name, gradient in masked.items():
        torch.testing.assert_close(packed[name], gradient, rtol=1e-9, atol=1e-11, msg=name)


def test_guarantee_5_those_who_halted_are_not_computed():
    """Rows through the recurring block, counted: as many as steps were run, and no more."""
    model, tokens = make("looped", "none"), text(4, 20, 1)
    seen: list[int] = []
    model.recursion.networks.layers[0].mlp.register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0].numel() // inputs[0].shape[-1])
    )
    with torch.no_grad(), execute(model, "compacted"):
        passes = model(tokens).passes
    assert passes.unique().numel() > 1, "otherwise this says nothing"
    assert seen == [int((passes > step).sum()) for step in range(int(passes.max()))]
    assert sum(seen) == int(passes.sum()) < STEPS * tokens.numel()


@forms
def test_guarantee_6_four_small_batches_are_one_large_one(networks):
    model, large = make(networks).train(), batch(16, 12, 5)
    objective = objective_of(model, gate_entropy=0.0, halting=HaltingConfig(weight=0.0))
    found = []
    for size in (16, 4, 5):  # 5 leaves a remainder, which counts by its targets
        model.zero_grad()
        parts = [
            large.__class__(tokens, targets, None, count := int((targets >= 0).sum()), count)
            for tokens, targets in zip(large.tokens.split(size), large.targets.split(size), strict=True)
        ]
        totals = accumulate(model, objective, parts, None, Clock(0, 1), PLAIN)
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((look(totals, gradients).loss, gradients))
    for loss, gradients in found[1:]:
        assert loss == pytest.approx(found[0][0], rel=1e-6)
        for one, other in zip(gradients, found[0][1], strict=True):
            torch.testing.assert_close(one, other)


def test_guarantee_7_heads_tables_and_gains_are_adamws_and_rates_arrive():
    recipe = PRESETS["recursive_lm/tiny_reasoning"]()
    model = RecursiveLM(recipe.model, 257, [])
    by_muon = {matrix.name for matrix in hidden_matrices(model)}
    assert "recursion.networks.layers.0.attention.qkv.weight" in by_muon
    assert not any(name.startswith(("embedding", "head", "recursion.halt")) for name in by_muon)
    assert not any(model.get_parameter(name).ndim < 2 for name in by_muon)
    optimiser = build_optimiser(model, recipe.optim, PLAIN)
    rates = optimiser.set_rates(recipe.train.steps // 2, recipe.train.steps)
    used = {group["lr"] for group in optimiser.state_dict()["param_groups"]}
    assert used == {rates["lr"], rates["muon_lr"]} and rates["muon_lr"] != rates["lr"]


def test_guarantee_11_the_documented_number_of_parameters():
    recipe = PRESETS["recursive_lm/compat_25m"]()
    with torch.device("meta"):
        model = RecursiveLM(recipe.model, recipe.model.vocab_size, [])
    assert sum(p.numel() for p in model.parameters()) == 25_623_681
