"""Presets of recursive_lm. Each docstring's first line is what `ouro presets` prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ourospec.data.puzzles.arithmetic import AdditionTask, ModularTask
from ourospec.data.puzzles.config import MixtureSource, Part, PuzzleSource, TaskConfig
from ourospec.data.puzzles.lookup import CopyTask, NeedleTask, PointerTask, RecallTask
from ourospec.data.puzzles.maze import MazeTask
from ourospec.data.puzzles.sudoku import SudokuTask
from ourospec.data.text import TextData
from ourospec.data.tokenizers import BpeConfig, ByteTokenizerConfig
from ourospec.device import Precision
from ourospec.families.recursive_lm.halting import HaltingConfig
from ourospec.families.recursive_lm.model import RecursiveConfig
from ourospec.families.recursive_lm.networks import OneNetworkConfig, TwoNetworksConfig
from ourospec.families.recursive_lm.objective import RecursiveObjectiveConfig
from ourospec.families.recursive_lm.recipe import RecursiveRecipe
from ourospec.families.recursive_lm.recursion import RecursionConfig
from ourospec.families.terms import SMOKE
from ourospec.nn.attention import AttentionConfig
from ourospec.nn.embed import PlainTableConfig
from ourospec.nn.memory import DeltaMemoryConfig, EmaMemoryConfig, NormalisedGateConfig, SeedGateConfig
from ourospec.optim.config import MuonConfig, OptimConfig
from ourospec.optim.phases import mugrokfast, phase_1_halved
from ourospec.train.config import TrainConfig


class Special(NamedTuple):
    """What makes a specialisation differ from the others, in fact and not by its label."""

    halt_above: float
    """Probability of being done above which a token halts: speed < memory < reasoning."""
    memory_heads: int
    """Of 32 by 32 numbers each: 2,048, 4,096 and 8,192 are what Cognate calls capacity."""
    write_strength: float
    """What Cognate calls surprise."""
    seed: int
    weights: tuple[float, ...]
    """Shares of the tasks of `_tasks`."""


SPECIALISATIONS = {
    #                                          pointer modular addition recall needle copy
    "reasoning": Special(0.995, 4, 0.7, 42, (6.0, 1.0, 1.0, 1.0, 1.0, 1.0)),
    "memory": Special(0.99, 8, 0.5, 1337, (4.0, 1.0, 1.0, 3.0, 2.0, 1.0)),
    "speed": Special(0.5, 2, 0.3, 2023, (1.0, 1.0, 1.0, 1.0, 2.0, 4.0)),
}


def _tasks(tiny: bool) -> Sequence[TaskConfig]:
    """All three specialisations learn all of these, so that they can be compared on the same puzzles."""
    # What takes several steps has to be learned before heads decide; the tiny ones have little time for it.
    pointer = PointerTask(nodes=5, most_hops=3, questions=5) if tiny else PointerTask(questions=6)
    return (pointer, ModularTask(), AdditionTask(most_terms=4), RecallTask(), NeedleTask(), CopyTask())


def _special(name: str, tiny: bool) -> RecursiveRecipe:
    special = SPECIALISATIONS[name]
    parts = tuple(
        Part(task=task, weight=weight) for task, weight in zip(_tasks(tiny), special.weights, strict=True)
    )
    width, layers, window = (96, 1, 40) if tiny else (256, 10, 64)
    length = 66 if tiny else 132
    return RecursiveRecipe(
        name=f"tiny_{name}" if tiny else name,
        seed=special.seed,
        data=TextData(source=MixtureSource(parts=parts), tokenizer=ByteTokenizerConfig()),
        train=TrainConfig(
            steps=1_600 if tiny else 20_000,
            batch_size=32 if tiny else 64,
            micro_batch_size=32 if tiny else 16,
            window=length,
            eval_every=250 if tiny else 1_000,
            eval_tokens=20_000,
            sample_every=500 if tiny else 2_000,
            save_every=250,
            # In bfloat16 pointer chasing was not always learned, and at this width it is no faster.
            precision="float32" if tiny else "auto",
        ),
        optim=mugrokfast(muon_lr=0.02, lr=3e-3, strength=0.02),
        model=RecursiveConfig(
            width=width,
            layers=layers,
            attention=AttentionConfig(heads=width // 16, rotary_fraction=0.5, window=window),
            mlp_hidden=(2 if tiny else 4) * width,
            memory=DeltaMemoryConfig(
                heads=special.memory_heads,
                key_width=32,
                value_width=32,
                write_strength=special.write_strength,
                convolution=4,
            ),
            recursion=RecursionConfig(
                steps=4,
                networks=OneNetworkConfig(inner=0, layers=1, mlp_hidden=2 * width),
                halt_above=special.halt_above,
            ),
            max_length=length,
        ),
        objective=RecursiveObjectiveConfig(step_power=2.0, halting=HaltingConfig(starts=0.7)),
    )


def smoke() -> RecursiveRecipe:
    """Seconds: a few steps on bytes, to see that everything works."""
    return RecursiveRecipe(
        name="smoke",
        data=SMOKE.data,
        train=SMOKE.train,
        optim=SMOKE.optim,
        model=RecursiveConfig(
            width=32,
            layers=1,
            attention=AttentionConfig(heads=4, window=16),
            mlp_hidden=64,
            memory=DeltaMemoryConfig(heads=2, key_width=8, value_width=8),
            max_length=64,
        ),
    )


def compat_25m() -> RecursiveRecipe:
    """Cognate's phase 1 as documented, made causal: 25,623,681 parameters, averaging memory, detached steps."""
    return RecursiveRecipe(
        name="compat_25m",
        seed=SPECIALISATIONS["reasoning"].seed,
        data=TextData(tokenizer=BpeConfig(vocab_size=50_257)),
        train=TrainConfig(
            steps=10_000,
            batch_size=64,
            micro_batch_size=16,
            window=512,
            eval_every=500,
            eval_tokens=100_000,
            sample_every=500,
            save_every=250,
        ),
        optim=phase_1_halved(),
        model=RecursiveConfig(
            width=256,
            layers=10,
            attention=AttentionConfig(heads=8, rotary_fraction=0.0, window=512),
            mlp_hidden=1_024,
            dropout=0.1,
            memory=EmaMemoryConfig(width=128, decay=0.99),
            memory_gate=SeedGateConfig(hidden=128),
            recursion=RecursionConfig(
                steps=3,
                networks=TwoNetworksConfig(inner=2),
                halt_above=0.95,
                halt_bias=0.0,
                gradient="last_step",
            ),
            embedding=PlainTableConfig(),
            learned_positions=2_048,
            vocab_size=50_257,
            max_length=512,
            tied=True,
        ),
        objective=RecursiveObjectiveConfig(
            step_weights=(0.33, 0.5, 0.75, 1.0),
            halting=HaltingConfig(
                target="running_accuracy",
                weight=0.01,
                unasked="ignore",
                starts=0.0,
                practice=0.0,
                entropy=0.001,
                diversity=0.01,
            ),
        ),
    )


def reasoning() -> RecursiveRecipe:
    """The specialisation that thinks longest, at Cognate's width and depth, on puzzles."""
    return _special("reasoning", tiny=False)


def memory() -> RecursiveRecipe:
    """The specialisation that remembers most, at Cognate's width and depth, on puzzles."""
    return _special("memory", tiny=False)


def speed() -> RecursiveRecipe:
    """The specialisation that halts soonest, at Cognate's width and depth, on puzzles."""
    return _special("speed", tiny=False)


def tiny_reasoning() -> RecursiveRecipe:
    """Some minutes on 2 cores: the specialisation that thinks longest."""
    return _special("reasoning", tiny=True)


def tiny_memory() -> RecursiveRecipe:
    """Some minutes on 2 cores: the specialisation that remembers most."""
    return _special("memory", tiny=True)


def tiny_speed() -> RecursiveRecipe:
    """Some minutes on 2 cores: the specialisation that halts soonest."""
    return _special("speed", tiny=True)


def _puzzle(
    name: str,
    task: TaskConfig,
    model: RecursiveConfig,
    objective: RecursiveObjectiveConfig,
    steps: int,
    precision: Precision = "auto",
) -> RecursiveRecipe:
    """A small model of one task, a puzzle a row, on Muon."""
    return RecursiveRecipe(
        name=name,
        data=TextData(source=PuzzleSource(task=task), tokenizer=ByteTokenizerConfig()),
        train=TrainConfig(
            steps=steps,
            batch_size=32,
            micro_batch_size=32,
            window=model.max_length,
            eval_every=250,
            eval_tokens=20_000,
            sample_every=500,
            save_every=250,
            precision=precision,
        ),
        optim=OptimConfig(lr=3e-3, warmup_fraction=0.05, muon=MuonConfig(lr=0.02)),
        model=model,
        objective=objective,
    )


def pointer() -> RecursiveRecipe:
    """Minutes of one core: chasing pointers up to 4 hops, in up to 5 loops."""
    task = PointerTask(questions=6)
    model = RecursiveConfig(
        width=64,
        layers=1,
        attention=AttentionConfig(heads=4, rotary_fraction=0.5),
        mlp_hidden=128,
        recursion=RecursionConfig(
            steps=5, networks=OneNetworkConfig(inner=0, layers=1, mlp_hidden=128), halt_above=0.9
        ),
        max_length=task.longest + 1,
    )
    objective = RecursiveObjectiveConfig(step_power=2.0, halting=HaltingConfig(starts=0.6))
    # In bfloat16 one of two seeds never found its way, and at this size it is no faster.
    return _puzzle("pointer", task, model, objective, steps=1_200, precision="float32")


def mqar() -> RecursiveRecipe:
    """Minutes of one core: associative recall of 8 pairs through a window of 8, by memory."""
    task = RecallTask(pairs=8, length=64)
    model = RecursiveConfig(
        width=64,
        layers=2,
        attention=AttentionConfig(heads=4, rotary_fraction=0.5, window=8),
        mlp_hidden=128,
        memory=DeltaMemoryConfig(heads=2, convolution=4),
        memory_gate=NormalisedGateConfig(bias=0.0),
        recursion=RecursionConfig(
            steps=1, networks=OneNetworkConfig(inner=0, layers=1, mlp_hidden=128), halting="fixed"
        ),
        max_length=task.longest + 1,
    )
    return _puzzle("mqar", task, model, RecursiveObjectiveConfig(), steps=800, precision="float32")


def sudoku_6x6() -> RecursiveRecipe:
    """Ten minutes of one core: sudoku of 6 by 6 cells in up to 8 steps."""
    task = SudokuTask(size=6)
    model = RecursiveConfig(
        width=128,
        layers=1,
        attention=AttentionConfig(heads=4, rotary_fraction=0.5),
        mlp_hidden=256,
        recursion=RecursionConfig(
            steps=8,
            networks=OneNetworkConfig(inner=0, layers=1, mlp_hidden=256),
            halt_above=0.99,
            halt_head="by_step",
        ),
        max_length=task.longest + 1,
    )
    # The question has to be thought about, too: its tokens leave after half of the steps. A grid is right when all its
    # cells are: heads have to be surer than where one letter is asked.
    halting = HaltingConfig(starts=0.8, leave_after=4)
    objective = RecursiveObjectiveConfig(step_power=2.0, halting=halting)
    return _puzzle("sudoku_6x6", task, model, objective, steps=1_500)


def maze() -> RecursiveRecipe:
    """Ten minutes of one core: the shortest way through mazes of 5 by 5 cells in up to 8 steps."""
    task = MazeTask(size=5)
    base = sudoku_6x6()
    model = base.model.model_copy(update={"max_length": task.longest + 1})
    return _puzzle("maze", task, model, base.objective, steps=1_000)


PRESETS = {
    f"recursive_lm/{preset.__name__}": preset
    for preset in (
        smoke,
        pointer,
        mqar,
        sudoku_6x6,
        maze,
        tiny_reasoning,
        tiny_memory,
        tiny_speed,
        reasoning,
        memory,
        speed,
        compat_25m,
    )
}

COLLECTIONS = {"recursive_lm/all": tuple(f"recursive_lm/tiny_{name}" for name in SPECIALISATIONS)}
"""The specialisations, to be trained one after another and compared."""
