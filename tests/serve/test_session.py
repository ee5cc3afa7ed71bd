"""Decoding one position at a time says what the full forward pass says, and nothing else of the world moves."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ourospec.contracts import Effort
from ourospec.device import DevicePolicy, choose_device
from ourospec.errors import ConfigError, DivergedError
from ourospec.serve.generation import generate
from ourospec.serve.sampling import GREEDY, Sampling
from ourospec.serve.session import DecodingSession

# Rows of one, few or many positions take other matrix kernels; float32 sums then differ in the last bits.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
WARM = Sampling(temperature=1.0, top_p=0.9)


def full_forward(model: Any, tokens: list[int], effort: Effort | None = None) -> tuple[torch.Tensor, list]:
    """Logits [T, V] and passes [T][L] of all positions at once, without a cache."""
    with torch.no_grad():
        output = model.eval()(torch.tensor([tokens]), effort=effort)
        return model.logits(output.states[0]), output.passes[:, 0].T.tolist()


def draw_tokens(count: int, seed: int = 0) -> list[int]:
    return torch.randint(256, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_any_split_into_feeds_equals_the_full_forward(
    model: Any, policy: DevicePolicy, sizes: list[int], seed: int
) -> None:
    tokens = draw_tokens(min(sum(sizes), model.max_length), seed)
    logits, passes = full_forward(model, tokens)
    session = DecodingSession(model, policy, len(tokens))
    end = 0
    for size in sizes:
        fresh = tokens[end : end + size]
        if not fresh:
            break
        reading = session.feed(fresh)
        end += len(fresh)
        assert list(reading.passes) == passes[end - 1]
        torch.testing.assert_close(reading.logits, logits[end - 1], **CLOSE)


def test_the_models_under_test_think_unevenly(model: Any) -> None:
    _, passes = full_forward(model, draw_tokens(40))
    depths = {count for layers in passes for count in layers}
    assert depths == {1} or len(depths) >= 3


@pytest.mark.parametrize(
    "effort", [Effort(max_passes=2), Effort(forced_passes=3), Effort(threshold=0.9), Effort(threshold=0.02)]
)
def test_an_asked_effort_holds_in_decoding(model: Any, policy: DevicePolicy, effort: Effort) -> None:
    tokens = draw_tokens(20)
    if not hasattr(model, "depth"):
        with pytest.raises(ConfigError):
            DecodingSession(model, policy, 20, effort).feed(tokens)
        return
    logits, passes = full_forward(model, tokens, effort)
    session = DecodingSession(model, policy, 20, effort)
    session.feed(tokens[:9])
    for at in range(9, 20):
        reading = session.feed(tokens[at : at + 1])
        assert list(reading.passes) == passes[at]
        torch.testing.assert_close(reading.logits, logits[at], **CLOSE)


def test_generation_equals_rereading_everything_at_each_token(
    model: Any, policy: Any, vocabulary: Any
) -> None:
    """The slow twin: no cache, and the sliding rule written out."""
    wanted = 2 * model.max_length
    made = generate(model, vocabulary, "spam", policy=policy, max_new_tokens=wanted, sampling=GREEDY)
    window, tokens, depths = [256, *b"spam"], [], []
    for _ in range(len(made.tokens)):
        if len(window) > model.max_length:
            window = window[-(model.max_length // 2) :]
        logits, passes = full_forward(model, window)
        tokens.append(int(logits[-1, :257].argmax()))
        depths.append(passes[-1])
        window.append(tokens[-1])
    assert made.tokens == tokens
    assert made.passes == depths
    assert made.finish == "end" or len(made.tokens) == wanted


def test_a_prompt_longer_than_the_model_reads_is_continued_from_its_last_half(
    model: Any, policy: Any, vocabulary: Any
) -> None:
    prompt = "abcdefgh" * model.max_length
    made = generate(model, vocabulary, prompt, policy=policy, max_new_tokens=1, sampling=GREEDY)
    logits, _ = full_forward(model, list(prompt.encode())[-(model.max_length // 2) :])
    assert made.tokens == [int(logits[-1, :257].argmax())]


def test_a_session_that_grows_past_its_plan_forgets_nothing(model: Any, policy: Any) -> None:
    tokens = draw_tokens(30)
    session = DecodingSession(model, policy, capacity=4)
    readings = [session.feed([token]) for token in tokens]
    logits, _ = full_forward(model, tokens)
    torch.testing.assert_close(readings[-1].logits, logits[-1], **CLOSE)
    assert session.window == tokens


def test_a_session_reads_at_least_one_token(model: Any, policy: Any) -> None:
    with pytest.raises(ValueError, match="at least one"):
        DecodingSession(model, policy, 4).feed([])


def test_the_seed_decides(model: Any, policy: Any, vocabulary: Any) -> None:
    def sample(seed: int) -> list[int]:
        made = generate(model, vocabulary, "x", policy=policy, max_new_tokens=30, sampling=WARM, seed=seed)
        return made.tokens

    assert sample(7) == sample(7)
    assert sample(7) != sample(8)


def test_the_global_generators_are_neither_read_nor_moved(
    model: Any, policy: Any, vocabulary: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sample() -> list[int]:
        return generate(model, vocabulary, "x", policy=policy, max_new_tokens=12, sampling=WARM).tokens

    # The type checks of the tests draw bits from Python's generator themselves, so its state says nothing.
    for name in (
        "random",
        "randint",
        "randrange",
        "choice",
        "choices",
        "sample",
        "shuffle",
        "uniform",
        "gauss",
    ):
        monkeypatch.setattr(random, name, lambda *_: pytest.fail("Python's generator was asked"))
    before = (torch.get_rng_state(), np.random.get_state()[1].copy())
    first = sample()
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(12345)
    assert sample() == first


def test_generating_does_not_depend_on_the_models_mode_nor_change_it(
    model: Any, policy: Any, vocabulary: Any
) -> None:
    def sample() -> list[int]:
        return generate(model, vocabulary, "x", policy=policy, max_new_tokens=20, sampling=WARM).tokens

    model.eval()
    expected = sample()
    assert not any(module.training for module in model.modules())
    model.train()
    model.head.eval()  # as someone who freezes a part would have it
    modes = [module.training for module in model.modules()]
    assert set(modes) == {True, False}
    assert sample() == expected
    assert [module.training for module in model.modules()] == modes


def test_training_works_after_generating(model: Any, policy: Any, vocabulary: Any) -> None:
    generate(model, vocabulary, "x", policy=policy, max_new_tokens=4)
    tokens = torch.tensor([draw_tokens(16)])
    model.head.loss(model.train()(tokens).states, tokens).backward()
    assert model.head.rows.weight.grad is not None


def test_half_precision_decodes(model: Any, vocabulary: Any) -> None:
    policy = choose_device("cpu", "bfloat16")
    made = generate(model, vocabulary, "x", policy=policy, max_new_tokens=60, sampling=WARM)
    assert made.finish == "end" or len(made.tokens) == 60


def test_rows_behind_the_vocabulary_are_never_drawn(model: Any, policy: Any, vocabulary: Any) -> None:
    with torch.no_grad():
        model.head.rows.weight[257:] = 50 * model.head.rows.weight[:7].sign()
    hot = Sampling(temperature=5.0, top_p=1.0)
    made = generate(model, vocabulary, "x", policy=policy, max_new_tokens=100, sampling=hot)
    assert made.tokens
    assert max(made.tokens) < 256


def recite(reciter: Any, vocabulary: Any, policy: Any, script: bytes | list[int], **options: Any) -> Any:
    model = reciter([*script, 256], prompt=len("héllo".encode()) + 1)
    options = {"max_new_tokens": 100, "sampling": GREEDY} | options
    return generate(model, vocabulary, "héllo", policy=policy, **options)


def test_the_end_token_ends_the_text(reciter: Any, vocabulary: Any, policy: Any) -> None:
    made = recite(reciter, vocabulary, policy, "gerät".encode())
    assert (made.text, made.finish) == ("gerät", "end")
    assert bytes(made.tokens) == "gerät".encode()
    assert made.pieces == ["g", "e", "r", "", "ä", "t"]
    assert made.passes == [[1], [2], [3], [4], [5], [6]]


def test_the_number_of_tokens_ends_the_text(reciter: Any, vocabulary: Any, policy: Any) -> None:
    made = recite(reciter, vocabulary, policy, b"abcdef", max_new_tokens=3)
    assert (made.text, made.finish, len(made.tokens)) == ("abc", "length", 3)


def test_a_stop_string_ends_the_text(reciter: Any, vocabulary: Any, policy: Any) -> None:
    streamed: list[str] = []
    made = recite(
        reciter,
        vocabulary,
        policy,
        b"one\n\ntwo",
        stop=["\n\n"],
        on_piece=lambda piece: streamed.append(piece.text),
    )
    assert (made.text, made.finish) == ("one", "stop")
    assert made.pieces == streamed == ["o", "n", "e", "", ""]
    assert bytes(made.tokens) == b"one\n\n"


def test_an_end_before_any_token_gives_an_empty_text(reciter: Any, vocabulary: Any, policy: Any) -> None:
    made = recite(reciter, vocabulary, policy, b"")
    assert (made.text, made.tokens, made.pieces, made.passes) == ("", [], [], [])


@pytest.mark.parametrize("wrong", [{"max_new_tokens": 0}, {"seed": -1}, {"seed": 1 << 63}, {"stop": [""]}])
def test_what_cannot_be_meant_is_refused(reciter: Any, vocabulary: Any, policy: Any, wrong: Any) -> None:
    with pytest.raises(ConfigError):
        recite(reciter, vocabulary, policy, b"abc", **wrong)


def test_damaged_weights_are_reported(model: Any, policy: Any, vocabulary: Any) -> None:
    with torch.no_grad():
        model.head.rows.weight[3] = float("nan")
    with pytest.raises(DivergedError):
        generate(model, vocabulary, "x", policy=policy)
