"""Every kind of memory against its slow twin, and what nn.memory promises of all of them, in float64.

Fast and slow compute the same sums in another order: 1e-10 leaves room above what such sums lose.
"""

import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from ourospec.nn.init import initialise
from ourospec.nn.memory import (
    DeltaMemoryConfig,
    EmaMemoryConfig,
    MemoryState,
    TitansMemoryConfig,
    build_memory,
)

spec = importlib.util.spec_from_file_location("memory", Path(__file__).parents[2] / "reference" / "memory.py")
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

CLOSE = {"rtol": 1e-10, "atol": 1e-10}
WIDTH = 6
SIZES = {"heads": 2, "key_width": 3, "value_width": 4, "half_life": 3.0}
CONFIGS = {
    "ema": EmaMemoryConfig(width=5, decay=0.8),
    "delta": DeltaMemoryConfig(**SIZES, write_strength=0.9, convolution=3),
    "titans": TitansMemoryConfig(**SIZES, momentum=0.7),
}
KINDS = pytest.mark.parametrize("kind", list(CONFIGS))
EXAMPLES = settings(max_examples=15)
LENGTHS = st.integers(1, 23)
CHUNKS = st.integers(1, 9)
SEEDS = st.integers(0, 999)


def memory_of(kind, chunk=4):
    torch.manual_seed(0)
    module = build_memory(CONFIGS[kind].model_copy(update={"chunk": chunk}), WIDTH).double()
    initialise(module, 1)
    return module


def text(rows, length, seed):
    """States, documents of about four positions each, and padding anywhere."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randn(rows, length, WIDTH, generator=g, dtype=torch.float64)
    documents = torch.cumsum(torch.rand(rows, length, generator=g) < 0.25, 1)
    return y, documents, torch.rand(rows, length, generator=g) < 0.8


def some_state(module, rows, seed):
    """Of rows that are reading their document 0."""
    empty = module.empty_state(rows, torch.device("cpu"), torch.float64)
    g = torch.Generator().manual_seed(seed)
    memory, recent = (
        torch.randn(x.shape, generator=g, dtype=torch.float64) for x in (empty.memory, empty.recent)
    )
    return MemoryState(memory, recent, empty.document)


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0], **CLOSE)
    for part in ("memory", "recent"):
        torch.testing.assert_close(getattr(found[1], part), getattr(expected[1], part), **CLOSE)
    assert torch.equal(found[1].document, expected[1].document)


@KINDS
@given(st.integers(1, 3), st.integers(1, 11), CHUNKS, SEEDS, st.booleans(), st.booleans())
@settings(max_examples=12)
def test_equals_its_slow_twin_with_gradients_through_the_state(
    kind, rows, length, chunk, seed, packed, padded
):
    module = memory_of(kind, chunk)
    y, documents, counted = text(rows, length, seed)
    documents, counted = documents if packed else None, counted if padded else None
    state = some_state(module, rows, seed)
    carried = [state.memory.requires_grad_(), state.recent.requires_grad_()]
    inputs = [y.requires_grad_(), *carried, *module.parameters()]
    out, after = module(y, state, documents, counted)
    everything = torch.ones(rows, length, dtype=torch.bool) if counted is None else counted
    slow = reference.ema if kind == "ema" else reference.associative
    slow_out, slow_after = slow(y, module, state, documents, everything)
    torch.testing.assert_close(after.memory, slow_after, **CLOSE)
    torch.testing.assert_close(out[everything], slow_out[everything], **CLOSE)
    g = torch.Generator().manual_seed(9)
    weights = torch.randn(out.shape, generator=g, dtype=out.dtype) * everything[..., None]
    state_weights = torch.randn(after.memory.shape, generator=g, dtype=out.dtype)
    fast, sure = (
        torch.autograd.grad((o * weights).sum() + (m * state_weights).sum(), inputs, allow_unused=True)
        for o, m in ((out, after.memory), (slow_out, slow_after))
    )
    for a, b, what in zip(fast, sure, inputs, strict=True):
        nothing = torch.zeros_like(what)
        torch.testing.assert_close(nothing if a is None else a, nothing if b is None else b, **CLOSE)


@KINDS
@given(LENGTHS, CHUNKS, CHUNKS, SEEDS)
@EXAMPLES
def test_the_size_of_a_chunk_changes_nothing(kind, length, one, other, seed):
    y, documents, counted = text(2, length, seed)
    a, b = (memory_of(kind, chunk) for chunk in (one, other))
    state = some_state(a, 2, seed)
    whole = a(y, state, documents, counted)
    pieces = b(y, state, documents, counted)
    assert_same((whole[0][counted], whole[1]), (pieces[0][counted], pieces[1]))


@KINDS
@given(LENGTHS, CHUNKS, SEEDS, st.data())
@EXAMPLES
def test_read_in_pieces_equals_read_at_once(kind, length, chunk, seed, data):
    """Pieces of any lengths, single steps too, with borders of documents anywhere."""
    module = memory_of(kind, chunk)
    y, documents, counted = text(2, length, seed)
    whole = module(y, None, documents, counted)
    state, outputs, start = None, [], 0
    while start < length:
        part = slice(start, start + data.draw(st.integers(1, length - start)))
        out, state = module(y[:, part], state, documents[:, part], counted[:, part])
        outputs.append(out)
        start = part.stop
    assert_same((torch.cat(outputs, 1)[counted], state), (whole[0][counted], whole[1]))


@KINDS
def test_token_by_token_equals_read_at_once(kind):
    module, (y, documents, _) = memory_of(kind, 8), text(2, 20, 3)
    whole, state, outputs = module(y, None, documents), None, []
    for t in range(20):
        out, state = module(y[:, t : t + 1], state, documents[:, t : t + 1])
        outputs.append(out)
    assert_same((torch.cat(outputs, 1), state), whole)


@KINDS
@given(st.integers(2, 23), CHUNKS, SEEDS, st.data())
@EXAMPLES
def test_a_later_token_changes_nothing_before_it(kind, length, chunk, seed, data):
    module = memory_of(kind, chunk)
    y, documents, counted = text(2, length, seed)
    t = data.draw(st.integers(1, length - 1))
    changed = y.clone()
    changed[:, t:] = 100 * torch.randn(2, length - t, WIDTH, dtype=torch.float64)
    before, after = (module(x, None, documents, counted)[0][:, :t] for x in (y, changed))
    torch.testing.assert_close(before, after, rtol=0, atol=1e-12)


@KINDS
@given(LENGTHS, SEEDS, st.integers(0, 4), st.integers(0, 6))
@EXAMPLES
def test_a_row_alone_equals_it_in_company_and_padded(kind, length, seed, company, padding):
    module = memory_of(kind)
    y, documents, _ = text(1, length, seed)
    state = some_state(module, 1, seed)
    out, after = module(y, state, documents)
    together = torch.randn(1 + company, length + padding, WIDTH, dtype=torch.float64)
    together[0, :length] = y
    counted = torch.ones(1 + company, length + padding, dtype=torch.bool)
    counted[0, length:] = False
    numbers = torch.randint(0, 9, (1 + company, length + padding)).sort(1).values
    numbers[0, :length] = documents
    found, states = module(
        together, MemoryState.join([state, some_state(module, company, 5)]), numbers, counted
    )
    assert_same((found[:1, :length], states.rows([0])), (out, after))


@KINDS
@given(LENGTHS, LENGTHS, CHUNKS, SEEDS)
@EXAMPLES
def test_a_document_knows_nothing_of_the_one_before(kind, ahead, length, chunk, seed):
    module = memory_of(kind, chunk)
    first, second = text(2, ahead, seed)[0], text(2, length, seed + 1)[0]
    numbers = torch.cat([torch.zeros(2, ahead), torch.ones(2, length)], 1).long()
    out, after = module(torch.cat([first, second], 1), some_state(module, 2, seed), numbers)
    alone = module(second, None, torch.ones(2, length, dtype=torch.long))
    assert_same((out[:, ahead:], after), alone)


@KINDS
def test_the_past_arrives_and_padding_does_not(kind):
    """The tests above would also hold of a memory that remembers nothing."""
    module, (y, _, _) = memory_of(kind), text(1, 12, 0)
    other = y.clone()
    other[:, 2] = torch.randn(WIDTH, dtype=torch.float64)
    counted = torch.ones(1, 12, dtype=torch.bool)
    change = (module(y)[0] - module(other)[0])[:, -1].abs().max()
    assert change > 1e-5
    counted[:, 2] = False
    change = (module(y, None, None, counted)[0] - module(other, None, None, counted)[0])[:, 3:].abs().max()
    assert change == 0


@KINDS
def test_the_state_is_float32_under_autocast(kind):
    module, y = memory_of(kind).float(), torch.randn(2, 9, WIDTH)
    with torch.autocast("cpu", torch.bfloat16):
        out, state = module(y)
        again, further = module(y[:, :1], state)
    assert out.dtype == again.dtype == torch.bfloat16
    assert state.memory.dtype == further.memory.dtype == torch.float32
    # Only the projections are rounded: 8 bits of inputs and outputs, 1/256 of sums of a few terms of about 1.
    torch.testing.assert_close(out.float(), module(y)[0], rtol=0.05, atol=0.05)


@KINDS
def test_rows_are_taken_joined_emptied_and_detached(kind):
    module = memory_of(kind)
    y, documents, _ = text(3, 7, 0)
    _, state = module(y, None, documents)
    both = MemoryState.join([state.rows([2]), state.rows(torch.tensor([0, 1]))])
    assert torch.equal(both.memory, state.memory[[2, 0, 1]])
    assert torch.equal(both.document, state.document[[2, 0, 1]])
    fresh = state.emptied(torch.tensor([False, True, False]))
    assert fresh.memory[1].abs().max() == 0 and fresh.document[1] == 0
    assert torch.equal(fresh.memory[[0, 2]], state.memory[[0, 2]])
    assert state.memory.requires_grad and not state.detach().memory.requires_grad


@KINDS
def test_every_parameter_gets_a_gradient(kind):
    module, (y, documents, _) = memory_of(kind), text(2, 20, 0)
    module(y, None, documents)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


@KINDS
def test_flops_are_those_that_torch_counts(kind):
    chunk, chunks, rows = 16, 4, 2
    module, y = memory_of(kind, chunk), torch.randn(rows, chunk * chunks, WIDTH, dtype=torch.float64)
    with FlopCounterMode(display=False) as counter:
        module(y)
    counted, tokens = counter.get_total_flops(), rows * chunk * chunks
    if kind == "ema":
        counted -= rows * 2 * (chunks + 1) ** 2 * module.config.width  # from chunk to chunk
    else:
        config = module.config
        solve = config.heads * chunk * (config.value_width + config.matrices * config.key_width)
        counted += tokens * solve  # torch does not count triangular systems
    assert module.flops_per_row() * tokens == pytest.approx(counted, rel=0.01)
