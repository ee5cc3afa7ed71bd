"""The rows of recursion.py: which models learn which task, and what they are held to."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ourospec.data.puzzles.arithmetic import ModularTask
from ourospec.data.puzzles.config import MixtureSource, Part, PuzzleSource
from ourospec.data.puzzles.lookup import PointerTask
from ourospec.data.text import TextData, open_text
from ourospec.data.tokenizers import ByteTokenizerConfig
from ourospec.families import PRESETS
from ourospec.families.dense_lm.model import DenseConfig
from ourospec.families.dense_lm.recipe import DenseRecipe
from ourospec.families.recursive_lm.recipe import RecursiveRecipe
from ourospec.measure.likelihood import choose_documents
from ourospec.nn.memory import EmaMemoryConfig
from ourospec.optim.config import GrokfastConfig, MuonConfig, OptimConfig
from ourospec.recipe import TextRecipe


class Row(NamedTuple):
    """A model, what it is asked in the end (None: its own held-out puzzles), and bounds of its exact match."""

    name: str
    recipe: TextRecipe
    asked: TextData | None = None
    at_least: float | None = None
    at_most: float | None = None


def rows_of(part: str) -> Sequence[Row]:
    """Of pointer, recall or sudoku; the first row is the family's own."""
    return {"pointer": _pointer, "recall": _recall, "sudoku": _sudoku}[part]()


def _own(name: str) -> RecursiveRecipe:
    recipe = PRESETS[f"recursive_lm/{name}"]()
    assert isinstance(recipe, RecursiveRecipe)
    return recipe


def _with_steps(recipe: RecursiveRecipe, steps: int) -> RecursiveRecipe:
    recursion = recipe.model.recursion.model_copy(update={"steps": steps, "halting": "fixed"})
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"recursion": recursion})})


def _plain(recipe: RecursiveRecipe, layers: int, window: int) -> DenseRecipe:
    """A plain decoder of so many layers of the same width, on the same puzzles and optimiser."""
    model = recipe.model
    shape = DenseConfig(
        width=model.width,
        layers=layers,
        attention=model.attention.model_copy(update={"window": window}),
        mlp_hidden=model.mlp_hidden,
        max_length=model.max_length,
    )
    return DenseRecipe(name="custom", data=recipe.data, train=recipe.train, optim=recipe.optim, model=shape)


def _pointer() -> Sequence[Row]:
    own = _own("pointer")
    asked = own.data.model_copy(update={"source": PuzzleSource(task=PointerTask())})
    steps = own.model.recursion.steps
    return [
        Row("pointer, 5 loops", own, asked, at_least=0.98),
        Row("pointer, 1 loop (same parameters)", _with_steps(own, 1), asked, at_most=0.8),
        Row("pointer, dense_lm of 2 layers (same parameters)", _plain(own, 2, 0), asked),
        Row("pointer, dense_lm of 6 layers (same compute)", _plain(own, 1 + steps, 0), asked),
    ]


def _recall() -> Sequence[Row]:
    own = _own("mqar")

    def memory(config: object) -> RecursiveRecipe:
        return own.model_copy(update={"model": own.model.model_copy(update={"memory": config})})

    return [
        Row("recall, delta memory", own, at_least=0.99),
        Row("recall, an average (ema)", memory(EmaMemoryConfig()), at_most=0.4),
        Row("recall, no memory", memory(None), at_most=0.1),
        Row("recall, dense_lm of 3 layers, all in sight", _plain(own, 3, 0)),
    ]


def _sudoku() -> Sequence[Row]:
    own = _own("sudoku_6x6")
    steps = own.model.recursion.steps
    return [
        Row("sudoku, 8 steps", own),
        Row("sudoku, trained with 1 step (same parameters)", _with_steps(own, 1)),
        Row("sudoku, dense_lm of 9 layers (same compute)", _plain(own, 1 + steps, 0)),
    ]


def special_rows() -> Sequence[Row]:
    """The specialisations, asked the same mixture of all their tasks in equal parts."""
    recipes = {name: _own(f"tiny_{name}") for name in ("speed", "memory", "reasoning")}
    source = recipes["speed"].data.source
    assert isinstance(source, MixtureSource)
    equal = tuple(Part(task=part.task) for part in source.parts)
    asked = TextData(source=MixtureSource(parts=equal), tokenizer=ByteTokenizerConfig())
    return [Row(name, recipe, asked) for name, recipe in recipes.items()]


OPTIMISERS = {
    "AdamW": OptimConfig(lr=3e-3),
    "Grokfast, AdamW": OptimConfig(lr=3e-3, grokfast=GrokfastConfig(strength=2.0)),
    "Muon": OptimConfig(lr=1e-3, muon=MuonConfig(lr=0.01)),
    "MuGrokfast, strength 2": OptimConfig(
        lr=1e-3, muon=MuonConfig(lr=0.01), grokfast=GrokfastConfig(strength=2.0)
    ),
    "MuGrokfast, strength 0.02": OptimConfig(
        lr=1e-3, muon=MuonConfig(lr=0.01), grokfast=GrokfastConfig(strength=0.02)
    ),
}
"""Each with rates that suit it: at 1e-3 AdamW reached 95% in none of three runs."""


def optimiser_row(name: str) -> Row:
    """Addition modulo 59, half of all sums held out, by a plain model of one layer of 96."""
    base = PRESETS["dense_lm/smoke"]()
    assert isinstance(base, DenseRecipe)
    task = ModularTask(write_as="symbols", modulus=59)
    window = task.longest + 1
    recipe = base.model_copy(
        update={
            "name": "custom",
            "data": TextData(
                source=PuzzleSource(task=task, heldout_examples=2_000, per_row=1),
                tokenizer=ByteTokenizerConfig(),
                heldout_fraction=0.5,
            ),
            "train": base.train.model_copy(
                update={
                    "steps": 1_500,
                    "batch_size": 256,
                    "micro_batch_size": 256,
                    "window": window,
                    "eval_every": 50,
                    "eval_tokens": 6_000,
                    "precision": "float32",
                    "sample_every": 0,
                    "save_every": 1_000,
                }
            ),
            "optim": OPTIMISERS[name].model_copy(
                update={"final_lr_fraction": 1.0, "warmup_fraction": 0.01, "weight_decay": 1.0}
            ),
            "model": DenseConfig(
                width=96,
                layers=1,
                attention=base.model.attention.model_copy(update={"heads": 4, "kv_heads": 0}),
                mlp_hidden=256,
                max_length=window,
            ),
        }
    )
    return Row(f"modular, {name}", recipe)


def text_row() -> Row:
    """The reasoning specialisation on the embedded corpus."""
    own = _own("tiny_reasoning")
    recipe = own.model_copy(
        update={
            "name": "custom",
            "data": TextData(tokenizer=ByteTokenizerConfig()),
            "train": own.train.model_copy(update={"batch_size": 16, "micro_batch_size": 16, "steps": 800}),
        }
    )
    return Row("text, tiny_reasoning", recipe)


def _sides(data: TextData, tokens: int) -> tuple[np.ndarray, list[np.ndarray], int]:
    """[n] all training tokens, the held-out documents that are scored, as END d END, and the vocabulary's size."""
    dataset = open_text(data)
    end = dataset.tokenizer.end_id
    train = np.concatenate([np.append(d.tokens, end) for d in dataset.train.documents()])  # pyright: ignore[reportAttributeAccessIssue]
    held = choose_documents(dataset.heldout.documents(), tokens)
    return train, [np.concatenate(([end], d.tokens, [end])) for d in held], dataset.tokenizer.vocab_size


def unigram(data: TextData, tokens: int) -> float:
    """Bits per byte of a table of byte frequencies, one added to each."""
    train, held, vocabulary = _sides(data, tokens)
    counts = np.bincount(train, minlength=vocabulary) + 1.0
    nats = -np.log(counts / counts.sum())
    return _bits(sum(float(nats[d[1:]].sum()) for d in held), held)


def bigram(data: TextData, tokens: int) -> float:
    """Bits per byte of a table of pairs, each row smoothed by 1 of the unigram distribution."""
    train, held, vocabulary = _sides(data, tokens)
    pairs = np.bincount(train[:-1] * vocabulary + train[1:], minlength=vocabulary**2)
    pairs = pairs.reshape(vocabulary, vocabulary).astype(np.float64)
    single = (np.bincount(train, minlength=vocabulary) + 1.0) / (len(train) + vocabulary)
    nats = -np.log((pairs + single) / (pairs.sum(1, keepdims=True) + 1.0))
    return _bits(sum(float(nats[d[:-1], d[1:]].sum()) for d in held), held)


def _bits(nats: float, held: Sequence[np.ndarray]) -> float:
    """Over the bytes of the documents: their tokens but for the two ends."""
    return nats / math.log(2) / sum(len(d) - 2 for d in held)


TEXT_TABLES: dict[str, Callable[[TextData, int], float]] = {"bigram": bigram, "unigram": unigram}
