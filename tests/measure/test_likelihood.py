"""Every target is scored once, whatever the batches and chunks, and the figures are what they are called."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ourospec.contracts import Clock, Effort
from ourospec.device import DevicePolicy, choose_device
from ourospec.errors import DataError
from ourospec.measure import tokens as module
from ourospec.measure.likelihood import choose_documents, heldout_probe, ratio, score_documents

from .toy import END, VOCABULARY, Bigram, Doc, adaptive, doc

WINDOW = 64


def total(corpus: list[Doc], model: Bigram) -> float:
    return sum(model.nats(document) for document in corpus)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(window=st.integers(1, 70), rows=st.integers(1, 9))
def test_totals_do_not_depend_on_chunks_or_batches(
    bigram: Bigram, policy: DevicePolicy, corpus: list[Doc], window: int, rows: int
) -> None:
    """The bigram model sees one token, which every chunk gives it: all sums must be those of whole documents."""
    scored = score_documents(bigram, corpus, END, window, policy, rows)
    assert scored.nats == pytest.approx([bigram.nats(document) for document in corpus], rel=1e-6)
    assert scored.tokens.tolist() == [len(document.tokens) + 1 for document in corpus]
    assert scored.bytes.tolist() == [document.num_bytes for document in corpus]
    read = [[END, *document.tokens.tolist()] for document in corpus]
    assert scored.passes[:, 0].tolist() == [sum(1 + t % 3 for t in tokens) for tokens in read]
    assert scored.passes[:, 1].tolist() == [len(tokens) for tokens in read]


def test_each_target_is_scored_once(policy: DevicePolicy) -> None:
    """Give each token of the vocabulary a price of its own: the bill names every target and how often."""
    model = Bigram()
    with torch.no_grad():
        model.table.zero_()
        model.table[:, :] = torch.arange(VOCABULARY) * 0.5
    odds = model.table.detach()[0].double().log_softmax(-1)
    document = doc(0, 1, 2, 3, 4, 5, 6, 7)
    expected = -sum(float(odds[t]) for t in [*document.tokens.tolist(), END])
    for window in (1, 2, 3, 8, 9, 64):
        scored = score_documents(model, [document], END, window, policy)
        assert float(scored.nats[0]) == pytest.approx(expected, rel=1e-6)


def test_summary(bigram: Bigram, policy: DevicePolicy, corpus: list[Doc]) -> None:
    summary = score_documents(bigram, corpus, END, WINDOW, policy).summary()
    nats, tokens = total(corpus, bigram), sum(len(d.tokens) + 1 for d in corpus)
    assert summary["loss"] == pytest.approx(nats / tokens)
    assert summary["perplexity"] == pytest.approx(math.exp(nats / tokens))
    assert summary["bits_per_byte"] == pytest.approx(nats / math.log(2) / sum(d.num_bytes for d in corpus))
    assert (summary["documents"], summary["tokens"]) == (len(corpus), tokens)
    read = [[END, *document.tokens.tolist()] for document in corpus]
    first = sum(1 + t % 3 for row in read for t in row)
    assert summary["mean_passes"] == pytest.approx((first + tokens) / (2 * tokens))
    assert summary["passes_by_layer"] == pytest.approx([first / tokens, 1])
    flops = sum(
        100 + 10 + (at + 1) + (t % 3) * (1 + 2 * (at + 1)) + 20 + (at + 1)
        for row in read
        for at, t in enumerate(row)
    )
    assert summary["flops_per_token"] == pytest.approx(flops / tokens)
    assert all(summary[f"{name}_se"] > 0 for name in ("loss", "perplexity", "bits_per_byte", "mean_passes"))
    json.dumps(summary)


def test_flops_start_anew_with_each_chunk(bigram: Bigram, policy: DevicePolicy) -> None:
    scored = score_documents(bigram, [doc(0, 0, 0, 0, 0)], END, 3, policy)
    inputs = [(END, 1), (0, 2), (0, 3), (0, 1), (0, 2), (0, 3)]
    expected = sum(100 + 30 + 2 * keys + (t % 3) * (1 + 2 * keys) for t, keys in inputs)
    assert float(scored.flops[0]) == pytest.approx(expected)


def test_an_effort_is_passed_on(bigram: Bigram, policy: DevicePolicy, corpus: list[Doc]) -> None:
    scored = score_documents(bigram, corpus, END, WINDOW, policy, effort=Effort(max_passes=1))
    assert scored.summary()["mean_passes"] == 1


def test_a_documents_score_does_not_depend_on_the_others(policy: DevicePolicy, corpus: list[Doc]) -> None:
    model = adaptive()
    together = score_documents(model, corpus, END, 16, policy, batch_rows=5)
    alone = [score_documents(model, [document], END, 16, policy) for document in corpus]
    assert together.nats == pytest.approx([float(a.nats[0]) for a in alone], rel=1e-5)
    assert np.array_equal(together.passes, np.concatenate([a.passes for a in alone]))
    assert together.flops == pytest.approx([float(a.flops[0]) for a in alone])
    assert len(np.unique(together.passes[:, 0] / together.tokens)) > 3


def test_a_score_equals_one_plain_forward_pass(policy: DevicePolicy) -> None:
    model, document = adaptive().eval(), doc(3, 1, 4, 1, 5, 2, 6)
    stream = torch.tensor([[END, 3, 1, 4, 1, 5, 2, 6, END]])
    with torch.no_grad():
        output = model(stream[:, :-1])
        odds = model.logits(output.states).double().log_softmax(-1)
    expected = -odds.gather(-1, stream[:, 1:, None]).sum()
    scored = score_documents(model, [document], END, 32, policy)
    assert float(scored.nats[0]) == pytest.approx(float(expected), rel=1e-6)
    assert scored.passes[0].tolist() == output.passes.sum((1, 2)).tolist()


def test_a_window_longer_than_the_model_reads_is_cut_to_it(policy: DevicePolicy) -> None:
    scored = score_documents(Bigram(), [doc(*[1] * 200)], END, 500, policy)
    assert scored.tokens.tolist() == [201]


def test_the_logits_of_a_large_vocabulary_are_never_held_at_once(
    bigram: Bigram, policy: DevicePolicy, corpus: list[Doc], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = score_documents(bigram, corpus, END, WINDOW, policy).nats
    monkeypatch.setattr(module, "LOGIT_ELEMENTS", 4 * VOCABULARY)
    bigram.rows_asked.clear()
    assert np.array_equal(score_documents(bigram, corpus, END, WINDOW, policy).nats, expected)
    assert max(bigram.rows_asked) == 4


def test_scoring_moves_neither_the_model_nor_the_generators(policy: DevicePolicy, corpus: list[Doc]) -> None:
    model = adaptive().train()
    state = torch.get_rng_state()
    first = score_documents(model, corpus, END, 16, policy).nats
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(score_documents(model.eval(), corpus, END, 16, policy).nats, first)


def test_half_precision_scores_nearly_the_same(policy: DevicePolicy, corpus: list[Doc]) -> None:
    model = adaptive()
    exact = score_documents(model, corpus, END, 16, policy, effort=Effort(forced_passes=2)).summary()
    rough = score_documents(
        model, corpus, END, 16, choose_device("cpu", "bfloat16"), effort=Effort(forced_passes=2)
    ).summary()
    assert rough["loss"] == pytest.approx(exact["loss"], rel=0.02)
    assert rough["loss"] != exact["loss"]


def test_nothing_to_score_is_an_error(bigram: Bigram, policy: DevicePolicy) -> None:
    with pytest.raises(DataError, match="no documents"):
        score_documents(bigram, [], END, WINDOW, policy)


def test_documents_without_text_have_a_loss_but_no_bits_per_byte(
    bigram: Bigram, policy: DevicePolicy
) -> None:
    summary = score_documents(bigram, [doc(), doc()], END, WINDOW, policy).summary()
    assert summary["loss"] == pytest.approx(bigram.nats(doc()))
    assert math.isnan(summary["bits_per_byte"])


def test_one_document_has_no_standard_error(bigram: Bigram, policy: DevicePolicy) -> None:
    summary = score_documents(bigram, [doc(1, 2)], END, WINDOW, policy).summary()
    assert math.isfinite(summary["loss"])
    assert math.isnan(summary["loss_se"])


def test_the_standard_error_is_the_spread_of_repeated_samples() -> None:
    """Documents of uneven length with correlated losses: the printed error must match what sampling shows."""
    generator = np.random.default_rng(0)

    def corpus() -> tuple[np.ndarray, np.ndarray]:
        lengths = generator.integers(5, 200, 60)
        return lengths * generator.normal(3, 0.5, 60) + generator.normal(0, 2, 60), lengths

    estimates = [ratio(*corpus()) for _ in range(1500)]
    spread = np.std([estimate.value for estimate in estimates])
    assert np.mean([estimate.error for estimate in estimates]) == pytest.approx(spread, rel=0.07)


lengths = st.lists(st.integers(0, 20), max_size=12)


@given(lengths, st.integers(1, 60))
def test_chosen_documents_fit_and_none_that_fits_is_left_out(lengths: list[int], most: int) -> None:
    documents = [doc(*[1] * length) for length in lengths]
    chosen = choose_documents(documents, most)
    sizes = [len(document.tokens) + 1 for document in chosen]
    if not any(length + 1 <= most for length in lengths):
        assert sizes == ([min(lengths) + 1] if lengths else [])
        return
    assert sum(sizes) <= most
    assert [id(d) for d in documents if any(d is c for c in chosen)] == [id(c) for c in chosen]
    left = most - sum(sizes)
    assert all(len(d.tokens) + 1 > left for d in documents if not any(d is c for c in chosen))


def test_the_heldout_probe_scores_always_the_same_documents(
    bigram: Bigram, policy: DevicePolicy, corpus: list[Doc]
) -> None:
    class Heldout:
        num_documents = len(corpus)

        def document(self, number: int) -> Doc:
            return corpus[number]

    probe = heldout_probe(Heldout(), END, 16, 40, policy)
    data = probe(bigram, Clock(0, 10))
    assert data == probe(bigram, Clock(10, 10))
    order = np.random.default_rng(0).permutation(len(corpus))
    chosen = choose_documents([corpus[number] for number in order], 40)
    assert data == {"split": "heldout", **score_documents(bigram, chosen, END, 16, policy).summary()}
    assert 0 < data["tokens"] <= 40
