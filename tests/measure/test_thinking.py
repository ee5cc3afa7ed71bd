"""What thinking buys: every figure of the sample against the plain scoring of the same documents."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ourospec.contracts import Effort
from ourospec.data.puzzles.config import MixtureSource, Part
from ourospec.data.puzzles.dataset import open_puzzles
from ourospec.data.puzzles.lookup import CopyTask, PointerTask, RecallTask
from ourospec.data.tokenizers import ByteTokenizer
from ourospec.device import choose_device
from ourospec.families import PRESETS
from ourospec.measure.answers import score_answers
from ourospec.measure.likelihood import score_documents
from ourospec.measure.thinking import lay_out_thinking, thinking_quality
from ourospec.nn.effort import most_passes

from .toy import adaptive, doc

END, ROWS = 256, 4
CPU = choose_device("cpu", "float32")
TASKS = (PointerTask(nodes=4, most_hops=2), RecallTask(pairs=3, length=20), CopyTask(least=1, most=3))


def build(name):
    """Untrained, and sure enough of itself that some answers are right and some gates open."""
    torch.manual_seed(4)
    made = PRESETS[name]().build_model(ByteTokenizer()).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)
    return made


@pytest.fixture(scope="module")
def model():
    """A memory, and a head that begins undecided: tokens halt after different steps."""
    made = build("recursive_lm/smoke")
    with torch.no_grad():
        made.recursion.halt.bias.fill_(0.8)
        made.recursion.halt.weight.mul_(8)
    return made


@pytest.fixture(scope="module")
def puzzles(model):
    """Real ones, of which every second is answered by what the model says after two steps."""
    source = MixtureSource(parts=tuple(Part(task=task) for task in TASKS), heldout_examples=12)
    found = list(open_puzzles(source, 0.2, "refuse").heldout.documents())
    for number, one in enumerate(found):
        tokens = one.tokens.copy()
        for answer in one.answers if number % 2 else ():
            for place in range(answer.start, answer.end):
                with torch.no_grad():
                    states = model(
                        torch.tensor([[END, *tokens[:place]]]), effort=Effort(forced_passes=2)
                    ).states
                    tokens[place] = int(model.logits(states)[0, -1, :256].argmax())
        found[number] = type(one)(tokens, one.num_bytes, one.task, one.answers)
    return found


@pytest.fixture(scope="module")
def found(model, puzzles):
    return thinking_quality(lay_out_thinking(model, puzzles, END, 64, CPU, ROWS, None, asks=True))


def same(line, scores):
    """The figures of a line are those of plain scoring."""
    summary = scores.summary()
    for name in ("loss", "loss_se", "exact_match", "exact_match_se", "mean_passes"):
        if name in summary:
            assert line[name] == pytest.approx(summary[name], rel=1e-9), name


def test_each_pass_is_what_scoring_with_forced_passes_says(model, puzzles, found):
    assert [line["passes"] for line in found["each_pass"]] == [1, 2, 3]
    for line in found["each_pass"]:
        effort = Effort(forced_passes=line["passes"])
        same(line, score_answers(model, puzzles, END, CPU, ROWS, effort))
    same(found["as_used"], score_answers(model, puzzles, END, CPU, ROWS))
    assert len({line["exact_match"] for line in found["each_pass"]}) > 1, "the steps have to differ"
    assert 1 < found["as_used"]["mean_passes"] < 3


def test_ablations_are_the_model_without_and_paired_by_document(model, puzzles, found):
    whole = score_answers(model, puzzles, END, CPU, ROWS)
    assert [line["name"] for line in found["ablations"]] == list(model.ablations)
    for line, use in zip(found["ablations"], ("off", "shuffled"), strict=True):
        model.memory_use = use
        try:
            left = score_answers(model, puzzles, END, CPU, ROWS)
        finally:
            model.memory_use = "as trained"
        same(line, left)
        change, tokens = left.likelihood.nats - whole.likelihood.nats, whole.likelihood.tokens
        mean = change.sum() / tokens.sum()
        count = len(puzzles)
        error = math.sqrt(count / (count - 1) * np.square(change - mean * tokens).sum()) / tokens.sum()
        assert line["loss_difference"] == pytest.approx(mean, abs=1e-9) and abs(mean) > 1e-4
        assert line["loss_difference_se"] == pytest.approx(error, rel=1e-6)
        exact = left.right.mean() - whole.right.mean()
        assert line["exact_match_difference"] == pytest.approx(exact, abs=1e-12)
    assert model.memory_use == "as trained"


def test_halting_and_the_gate_are_what_the_model_itself_says(model, puzzles, found):
    said, share = [], []
    for one in puzzles:
        tokens = torch.tensor([[END, *one.tokens.tolist()]])
        spans = [answer.targets(len(one.tokens)) for answer in one.answers]
        with torch.no_grad():
            trace = model(tokens, effort=Effort(forced_passes=3)).trace
        for span in spans:
            said.append(torch.stack(trace.halts).sigmoid()[:2, 0, span])
            share.append(trace.mixed.share[0, span])
    assert found["halting"]["said"] == pytest.approx(torch.cat(said, 1).mean().item(), rel=1e-5)
    assert found["halting"]["bins"][0]["decisions"] > 0
    decisions = sum(one["decisions"] for one in found["halting"]["bins"])
    assert decisions == 2 * found["tokens"]
    opened = torch.cat(share)
    assert found["memory_gate"]["mean"] == pytest.approx(opened.mean().item(), rel=1e-5)
    assert found["memory_gate"]["open_share"] == pytest.approx((opened > 0.5).float().mean().item(), rel=1e-5)
    p = opened.double()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).nan_to_num().mean().item()
    assert found["memory_gate"]["entropy"] == pytest.approx(entropy, abs=1e-4)


def test_steps_are_ranked_against_difficulty(model, puzzles, found):
    whole = score_answers(model, puzzles, END, CPU, ROWS)
    depth = whole.passes / whole.tokens
    told = {line["task"]: line for line in found["difficulty"]}
    assert any(not math.isnan(line["spearman"]) for line in told.values())
    for task in ("pointer", "recall", "copy"):
        mine = whole.task == task
        if len(set(whole.difficulty[mine])) == 1:
            assert task not in told
            continue
        assert told[task]["answers"] == mine.sum()
        if len(set(depth[mine])) == 1:
            assert math.isnan(told[task]["spearman"])
        else:
            expected = spearmanr(whole.difficulty[mine], depth[mine]).statistic
            assert told[task]["spearman"] == pytest.approx(expected)


def test_text_is_read_as_scoring_reads_it():
    model = adaptive()
    documents = [doc(*(np.arange(n) % 8)) for n in (5, 30, 12)]
    bench = lay_out_thinking(model, documents, 8, 16, CPU, 3, None, asks=False)
    found = thinking_quality(bench)
    assert [line["passes"] for line in found["each_pass"]] == [1, 2, 3, 4]
    for line in found["each_pass"]:
        same(line, score_documents(model, documents, 8, 16, CPU, 3, Effort(forced_passes=line["passes"])))
        assert "exact_match" not in line
    # Gates and no halting head, no memory, nothing that could be taken out.
    assert found.keys() == {"documents", "tokens", "as_used", "each_pass"}
    assert found["tokens"] == 5 + 30 + 12 + 3


def test_a_model_of_one_pass_has_nothing_to_tell(puzzles):
    model = build("dense_lm/smoke")
    assert most_passes(model, CPU) == 1
    assert thinking_quality(lay_out_thinking(model, puzzles, END, 64, CPU, ROWS, None, asks=True)) == {}


def test_the_most_passes_are_asked_of_the_model(model):
    assert (most_passes(model, CPU), most_passes(adaptive(), CPU)) == (3, 4)
