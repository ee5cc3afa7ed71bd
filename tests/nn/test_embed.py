"""Embeddings made of characters and bytes against codes that are written out in full, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ourospec.errors import ConfigError
from ourospec.nn.embed import FourierConfig, KroneckerConfig, TableConfig, build_embedding, tied_table
from ourospec.nn.embed.fourier import character_cells
from ourospec.nn.init import initialise

# Same sums in another order, in float64.
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def written_out(cells: list[int], size: int) -> torch.Tensor:
    """The standardised code of one token: (code − mean)/std with the unbiased deviation, zeros for no cells."""
    code = torch.zeros(size, dtype=torch.float64)
    if not cells:
        return code
    code[cells] = len(cells) ** -0.5
    return (code - code.mean()) / code.std(unbiased=True)


def byte_cells(piece: bytes, positions: int) -> list[int]:
    return [byte * positions + i for i, byte in enumerate(piece[:positions])]


pieces_of = st.lists(st.binary(min_size=1, max_size=12), min_size=2, max_size=6, unique=True)


@given(pieces_of, st.integers(1, 8), st.booleans(), st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_kronecker_by_its_codes(pieces, positions, residual, seed):
    torch.manual_seed(seed)
    pieces = [*pieces, b""]
    config = KroneckerConfig(positions=positions, token_residual=residual)
    module = build_embedding(config, len(pieces), 8, pieces).double()
    initialise(module, 1)
    codes = torch.stack([written_out(byte_cells(p, positions), 256 * positions) for p in pieces])
    mapped = codes @ module.codes.weight
    x = mapped / (mapped.square().mean(-1, keepdim=True) + 1e-6).sqrt() * module.norm.gain
    x[-1] = x[-1] + module.special.vectors[0]
    if residual:
        x = x + module.residual.weight
    tokens = torch.arange(len(pieces)).repeat(2, 1)
    torch.testing.assert_close(module(tokens)[1], x, **CLOSE)
    weights = torch.randn(x.shape, dtype=x.dtype)
    parameters = list(module.parameters())
    fast = torch.autograd.grad((module(tokens)[0] * weights).sum(), parameters)
    slow = torch.autograd.grad((x * weights).sum(), parameters)
    for a, b in zip(fast, slow, strict=True):
        torch.testing.assert_close(a, b, **CLOSE)


def test_fourier_by_its_codes_and_anchors():
    torch.manual_seed(0)
    pieces = [b"a", b"hello", "né".encode(), b"\xff", b"a long piece", b""]
    config = FourierConfig(characters=16, positions=4, anchors=5, anchor_heads=2, anchor_hidden=7)
    module = build_embedding(config, len(pieces), 8, pieces).double()
    initialise(module, 1)
    cells = character_cells(pieces, 16, 4)
    codes = torch.stack([written_out(c, 64) for c in cells])
    queries, gates = (codes @ module.query_gate.weight).chunk(2, dim=-1)
    readout = []
    for head in range(2):
        q = queries[:, 32 * head : 32 * head + 32]
        weights = (q @ module.keys[head].T / 32**0.5).softmax(-1)
        readout.append(weights @ module.values[head])
    s = module.widen(gates.sigmoid() * torch.cat(readout, dim=-1))
    strength = torch.nn.functional.softplus(module.strength)
    assert float(strength.detach()) == pytest.approx(0.1)
    mapped = (codes + strength * s) @ module.codes.weight
    x = mapped / (mapped.square().mean(-1, keepdim=True) + 1e-6).sqrt() * module.norm.gain
    x[-1] = x[-1] + module.special.vectors[0]
    found = module(torch.arange(len(pieces))[None])[0]
    torch.testing.assert_close(found, x, **CLOSE)


def test_cells_of_characters():
    """The alphabet by code point, filled up with printable ASCII; other characters leave their place empty."""
    cells = character_cells(["bé".encode(), b"ab", b"abcdef", b""], characters=3, positions=4)
    # Seen: a b c d e f é; the first three are kept.
    assert cells == [[4], [0, 5], [0, 5, 10], []]
    filled = character_cells([b"z"], characters=3, positions=1)
    assert filled == [[0]]


def test_tokens_with_part_of_a_character_stay_apart():
    """Decoded they would both be U+FFFD; the codes are of the raw bytes."""
    module = build_embedding(KroneckerConfig(token_residual=False), 2, 8, [b"\xe2\x82", b"\xe2\x83"])
    initialise(module, 1)
    first, second = module(torch.tensor([[0, 1]]))[0]
    assert (first - second).abs().max() > 1e-3


@pytest.mark.parametrize(
    "config", [TableConfig(), KroneckerConfig(), FourierConfig(anchors=8, anchor_heads=1)]
)
def test_vectors_have_the_size_that_the_first_layer_expects(config):
    torch.manual_seed(0)
    pieces = [bytes([i]) for i in range(97, 123)] + [b""]
    module = build_embedding(config, 30, 64, pieces)
    initialise(module, 1)
    x = module(torch.arange(27)[None])
    size = x.square().mean(-1).sqrt()
    assert ((size > 0.5) & (size < 1.5)).all()


def test_only_a_table_can_be_shared():
    table = build_embedding(TableConfig(), 5, 8, [])
    assert tied_table(table) is table.table
    with pytest.raises(ConfigError, match="Only the table"):
        tied_table(build_embedding(KroneckerConfig(), 2, 8, [b"a", b"b"]))
