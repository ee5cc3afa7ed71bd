"""Speculation changes nothing about a text: greedy it is the same, drawn it has the same distribution."""

from __future__ import annotations

import math
from collections import Counter
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ourospec.contracts import Effort, Output
from ourospec.device import DevicePolicy
from ourospec.families.adaptive_lm.model import AdaptiveConfig, AdaptiveLM
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.depth import DepthConfig
from ourospec.serve import speculation
from ourospec.serve.acceptance import judge
from ourospec.serve.generation import Generation, Machinery, generate
from ourospec.serve.sampling import GREEDY, Sampling, distribution
from ourospec.serve.session import DecodingSession
from ourospec.serve.source import Draw
from ourospec.serve.speculation import Speculative

EXACT = DevicePolicy(torch.device("cpu"), None, False)
"""Float64 models stay float64: no two tokens are as likely as each other by rounding."""
WARM = Sampling(temperature=1.0, top_p=0.9)
TEXTS = 3_000


class Recorder:
    """Opens a source, and keeps it to be looked at."""

    source: Speculative

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self.options = options or {}

    def __call__(self, *arguments: Any) -> Speculative:
        self.source = Speculative(*arguments, **self.options)
        return self.source


def both(
    model: Any, vocabulary: Any, prompt: str, **options: Any
) -> tuple[Generation, Generation, Speculative]:
    """The text of plain decoding, the one of speculation, and its source."""
    recorder = Recorder()
    settled = {"policy": EXACT, **options}
    plain = generate(model, vocabulary, prompt, **settled)
    drafted = generate(model, vocabulary, prompt, machinery=Machinery(open_source=recorder), **settled)
    return plain, drafted, recorder.source


def thinker(seed: int, layers: int, heads: int, passes: int, threshold: float, max_length: int) -> Any:
    """A small float64 model with random weights whose passes matter, and whose gates disagree."""
    torch.manual_seed(seed)
    depth = DepthConfig(max_passes=passes, scales=(1.0, 0.4, 0.3, 0.3), threshold=threshold, gate_bias=1.0)
    shape = AdaptiveConfig(
        width=16,
        layers=layers,
        attention=AttentionConfig(heads=heads, kv_heads=1, window=7 if seed % 3 == 0 else 0),
        mlp_hidden=24,
        depth=depth,
        max_length=max_length,
    )
    model = AdaptiveLM(shape, 257, [b"x"] * 257).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0 if "gate.output" in name else 3.0)
    return model


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10_000),
    layers=st.integers(1, 2),
    heads=st.sampled_from([1, 2, 4]),
    passes=st.integers(2, 4),
    threshold=st.floats(0.02, 0.98),
    max_length=st.integers(2, 40),
    prompt=st.text("ab", max_size=50),
    most=st.integers(1, 30),
)
def test_greedy_speculation_is_plain_decoding(
    vocabulary: Any,
    seed: int,
    layers: int,
    heads: int,
    passes: int,
    threshold: float,
    max_length: int,
    prompt: str,
    most: int,
) -> None:
    """Token by token and pass by pass, over texts that slide, too."""
    model = thinker(seed, layers, heads, passes, threshold, max_length)
    plain, speculated, _ = both(model, vocabulary, prompt, sampling=GREEDY, max_new_tokens=most)
    assert speculated == plain


def test_the_models_of_that_property_draft_well_and_badly(vocabulary: Any) -> None:
    """Else it would say little: some drafts stay, some do not, and some texts slide."""
    kept, refused = 0, 0
    for seed in range(4):
        plain, speculated, source = both(
            thinker(seed, 2, 2, 3, 0.3, 32), vocabulary, "ab", sampling=GREEDY, max_new_tokens=40
        )
        assert speculated == plain
        kept += source.receipt.kept
        refused += source.receipt.drafted - source.receipt.kept
    assert kept > 10 and refused > 10


@pytest.mark.parametrize("effort", [Effort(forced_passes=3), Effort(max_passes=2), Effort(threshold=0.9)])
def test_the_verification_thinks_as_long_as_was_asked(vocabulary: Any, effort: Effort) -> None:
    model = thinker(1, 2, 2, 3, 0.3, 48)
    plain, speculated, source = both(
        model, vocabulary, "ab", sampling=GREEDY, max_new_tokens=40, effort=effort
    )
    assert speculated == plain
    assert source.receipt.drafted > 0


@pytest.mark.parametrize("seed", range(3))
def test_stop_strings_and_ends_come_where_they_come_without(vocabulary: Any, seed: int) -> None:
    model = thinker(seed, 1, 2, 3, 0.3, 32)
    options = {"sampling": GREEDY, "max_new_tokens": 30}
    free, _, _ = both(model, vocabulary, "ab", **options)
    assert len(free.tokens) == 30
    stop = next(piece for piece in free.pieces[9:] if piece)
    plain, speculated, _ = both(model, vocabulary, "ab", stop=(stop,), **options)
    assert plain == speculated and plain.finish == "stop"
    # The model now says the end token where it said its tenth.
    rows, said = model.head.rows.weight, free.tokens[9]
    with torch.no_grad():
        rows[[said, vocabulary.end_id]] = rows[[vocabulary.end_id, said]]
    plain, speculated, _ = both(model, vocabulary, "ab", **options)
    assert plain == speculated and plain.finish == "end"


def test_drawing_is_repeatable_and_moves_no_global_generator(vocabulary: Any) -> None:
    model = thinker(3, 2, 2, 3, 0.3, 32)
    before = torch.get_rng_state()
    options = {"policy": EXACT, "sampling": WARM, "max_new_tokens": 50}
    options["machinery"] = Machinery(open_source=Speculative)
    texts = [generate(model, vocabulary, "ab", seed=seed, **options) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_the_receipt_adds_up(vocabulary: Any) -> None:
    for most in (1, 2, 3, 30):
        model = thinker(5, 2, 2, 3, 0.3, 64)
        made, _, source = both(model, vocabulary, "ab", sampling=WARM, max_new_tokens=most, seed=most)
        receipt = source.receipt
        if made.finish != "length":
            continue
        assert 1 + receipt.plain + receipt.kept + receipt.verifications == most
        assert receipt.kept <= receipt.drafted
    assert receipt.acceptance == receipt.kept / receipt.drafted
    assert receipt.tokens_per_verification == 1 + receipt.kept / receipt.verifications
    assert math.isnan(speculation.Speculation(0, 0, 0, 5).acceptance)


@pytest.mark.parametrize("seed", range(4))
def test_compiled_steps_draft_in_8_bits_and_verify_as_they_are(vocabulary: Any, seed: int) -> None:
    """The verification takes several positions in one step; nothing of the coarser weights is left in the text."""
    model = thinker(seed, 2, 2, 3, 0.3, 48).float()
    exact, coarse = model.stepper("float32"), model.stepper("int8")
    recorder = Recorder({"drafter": coarse})
    options = {"policy": EXACT, "sampling": GREEDY, "max_new_tokens": 60, "effort": Effort(forced_passes=3)}
    plain = generate(model, vocabulary, "ab", machinery=Machinery(exact), **options)
    drafted = generate(model, vocabulary, "ab", machinery=Machinery(exact, open_source=recorder), **options)
    assert drafted == plain
    receipt = recorder.source.receipt
    assert receipt.drafted > 0
    work = recorder.source.session.work
    # All but the prompt, what is read anew when the text slides, and nothing else.
    assert sum(not one.stepped for one in work) <= 3
    assert any(one.stepped and one.passes.shape[2] > 1 for one in work)
    assert recorder.source.session.engine.stepper is exact


class Table(nn.Module):
    """The next token depends on the last one: by one table at full depth, by another one in a single pass."""

    max_length = 64
    SIZE = 3

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.tables = torch.randn(2, self.SIZE, self.SIZE, generator=generator, dtype=torch.float64) * 1.5

    def forward(self, tokens: Tensor, documents: Any = None, cache: Any = None, effort: Any = None) -> Output:
        cache.read(tokens.shape[1])
        passes = 1 if effort is not None and effort.forced_passes == 1 else 3
        return Output(self.tables[passes // 2][tokens], torch.full((1, *tokens.shape), passes))

    def logits(self, states: Tensor) -> Tensor:
        return states

    def new_cache(self, batch: int, capacity: int) -> Any:
        return Counted()

    def stepper(self, weights: str = "float32") -> None:
        return None

    def probability(self, tokens: tuple[int, ...], sampling: Sampling) -> float:
        """Of a text behind token 0, from the table of full depth."""
        pairs = zip((0, *tokens), tokens, strict=False)
        rows = [distribution(row, sampling) for row in self.tables[1]]
        return math.prod(float(rows[last][token]) for last, token in pairs)


class Counted:
    """Holds nothing but how much was read."""

    length = 0

    def read(self, positions: int) -> None:
        self.length += positions

    def truncate(self, length: int) -> None:
        assert 0 <= length <= self.length
        self.length = length


class Letters:
    """Three tokens, none of which ends a text; the first begins it."""

    vocab_size, end_id = Table.SIZE, 0

    def encode(self, text: str) -> list[int]:
        return []

    def token_bytes(self, token: int, /) -> bytes:
        return b"abc"[token : token + 1]


def chi_square(sampling: Sampling, texts: int = TEXTS, length: int = 4) -> tuple[float, int]:
    """Of texts drawn by speculation against the exact distribution of plain decoding; and its degrees of freedom."""
    model, counts = Table(), Counter()
    for seed in range(texts):
        counts[source_text(model, sampling, seed, length)] += 1
    possible = {text: model.probability(text, sampling) for text in product(range(Table.SIZE), repeat=length)}
    possible = {text: p for text, p in possible.items() if p > 0}
    assert set(counts) <= set(possible)
    # Texts too rare for the approximation are one class together.
    rare = [text for text, p in possible.items() if texts * p < 5]
    classes = [(counts[text], p) for text, p in possible.items() if text not in rare]
    if rare:
        classes.append((sum(counts[text] for text in rare), sum(possible[text] for text in rare)))
    statistic = sum((seen - texts * p) ** 2 / (texts * p) for seen, p in classes)
    return statistic, len(classes) - 1


def source_text(model: Table, sampling: Sampling, seed: int, length: int) -> tuple[int, ...]:
    """The tokens of a text; asked of the source itself, so that no token ends it."""
    session = DecodingSession(model, EXACT, length)
    reading = session.feed([0])
    generator = torch.Generator().manual_seed(seed)
    source = Speculative(session, reading, Draw(sampling, generator, Table.SIZE, length))
    return tuple(next(source).token for _ in range(length))


def surprising(freedom: int) -> float:
    """What chi-square exceeds about once in ten thousand, by Wilson and Hilferty's approximation."""
    return freedom * (1 - 2 / (9 * freedom) + 3.72 * math.sqrt(2 / (9 * freedom))) ** 3


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=1.0, top_p=1.0), Sampling(temperature=0.9, top_k=2)]
)
def test_drawn_texts_are_distributed_as_by_plain_decoding(sampling: Sampling) -> None:
    statistic, freedom = chi_square(sampling)
    assert statistic < surprising(freedom)


def test_the_same_test_sees_a_rule_that_keeps_every_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(drafts: Any, guesses: Any, targets: Any, generator: Any) -> list[int]:
        return judge(drafts, guesses, [*guesses, targets[-1]], generator)

    monkeypatch.setattr(speculation, "judge", lenient)
    statistic, freedom = chi_square(Sampling(temperature=1.0, top_p=1.0), texts=TEXTS // 3)
    assert statistic > surprising(freedom)


def test_the_same_test_sees_drafts_taken_from_another_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """As guesses at another temperature would be: the rule is right, what it is told is not."""

    def mistaken(drafts: Any, guesses: Any, targets: Any, generator: Any) -> list[int]:
        return judge(drafts, [guess**3 / (guess**3).sum() for guess in guesses], targets, generator)

    monkeypatch.setattr(speculation, "judge", mistaken)
    statistic, freedom = chi_square(Sampling(temperature=1.0, top_p=1.0))
    assert statistic > surprising(freedom)


def test_a_model_whose_gates_are_shut_keeps_every_draft_and_makes_few(vocabulary: Any) -> None:
    model = thinker(2, 1, 2, 2, 0.3, 64)
    with torch.no_grad():
        model.layers[0].gate.output.bias.fill_(-60.0)
        model.layers[0].gate.output.weight.zero_()
    _, speculated, source = both(model, vocabulary, "ab", sampling=GREEDY, max_new_tokens=50)
    assert {count for layers in speculated.passes for count in layers} == {1}
    assert source.receipt.acceptance == 1.0
    # All of them stay, but each costs as much as the token that it saves.
    assert source.receipt.plain > 40
