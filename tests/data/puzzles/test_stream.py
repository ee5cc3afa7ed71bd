"""The stream: rows that are what they say, an order from (seed, step) alone, mixtures and curricula by their shares."""

from collections import Counter

import pytest
import torch
from pydantic import ValidationError

from ourospec.data.batch import NO_TARGET
from ourospec.data.puzzles.arithmetic import AdditionTask
from ourospec.data.puzzles.config import CurriculumSource, MixtureSource, Part, PuzzleSource, Stage
from ourospec.data.puzzles.dataset import open_puzzles
from ourospec.data.puzzles.lookup import CopyTask, NeedleTask, PointerTask, RecallTask
from ourospec.data.puzzles.question_files import QuestionsTask
from ourospec.data.text import TextData, open_text
from ourospec.data.tokenizers import BpeConfig, ByteTokenizerConfig
from ourospec.errors import ConfigError

END = 256
POINTER, COPY, NEEDLE = PointerTask(), CopyTask(least=2, most=5), NeedleTask(length=12)
CURRICULUM = CurriculumSource(
    stages=(
        Stage(from_step=0, parts=(Part(task=COPY),)),
        Stage(from_step=10, parts=(Part(task=NEEDLE),)),
        Stage(from_step=20, parts=(Part(task=POINTER, weight=3), Part(task=COPY))),
    ),
    replay=0.2,
    per_row=1,
)


def stream(source=None, **changes):
    sizes = {"window": 46, "batch_size": 8, "micro_batch_size": 3, "seed": 5} | changes
    return open_puzzles(source or PuzzleSource(task=POINTER), 0.1, "refuse").stream(**sizes)


def rows_of(made, step):
    return [
        (tokens.tolist(), targets.tolist())
        for batch in made.batches(step)
        for tokens, targets in zip(batch.tokens, batch.targets, strict=True)
    ]


def kind_of(row):
    text = bytes(token for token in row[0] if token < END)
    return "copy" if b"|" in text else "pointer" if b"=" in text else "needle"


def test_a_row_holds_whole_puzzles_and_asks_for_their_answers():
    made = stream()
    assert made.per_row == 2
    for batch in made.batches(3):
        assert batch.tokens.shape == batch.targets.shape == batch.documents.shape
        asked = batch.targets != NO_TARGET
        assert batch.num_targets == int(asked.sum()) and batch.num_bytes == batch.num_targets // 2
        # What is asked for is what comes next, and each answer of one letter is followed by the end.
        shown = torch.cat([batch.tokens[:, 1:], torch.full((len(batch.tokens), 1), END)], 1)
        assert (batch.targets == torch.where(asked, shown, NO_TARGET)).all()
        for tokens, targets, documents in zip(batch.tokens, batch.targets, batch.documents, strict=True):
            # 22 bytes and an end each.
            assert [i for i, token in enumerate(tokens.tolist()) if token == END] == [0, 23]
            assert [i for i, target in enumerate(targets.tolist()) if target != NO_TARGET] == [21, 22, 44, 45]
            assert documents.tolist() == [0] * 23 + [1] * 23


def test_padding_is_a_document_of_its_own_and_no_target():
    (batch,) = stream(window=60, batch_size=2).batches(0)
    assert batch.documents[0].tolist() == [0] * 23 + [1] * 23 + [2] * 14
    assert (batch.tokens[:, 46:] == END).all() and (batch.targets[:, 46:] == NO_TARGET).all()
    # Nothing comes before the padding of a single puzzle that could see it.
    assert stream(PuzzleSource(task=POINTER, per_row=1)).batches(0)[0].documents is None


def test_several_answers_and_everything():
    recall = RecallTask(pairs=3, length=20)
    (batch,) = stream(PuzzleSource(task=recall), window=21, batch_size=2).batches(0)
    assert batch.num_targets in (6, 7, 8) and batch.num_bytes == 6
    (batch,) = stream(PuzzleSource(task=recall, targets="everything"), window=21, batch_size=2).batches(0)
    assert batch.num_targets == 42 and batch.num_bytes == 40


@pytest.mark.parametrize("source", [PuzzleSource(task=POINTER), CURRICULUM], ids=lambda source: source.kind)
def test_batches_are_a_function_of_seed_and_step(source):
    one, other = stream(source), stream(source)
    other.batches(100)
    assert rows_of(one, 17) == rows_of(other, 17)
    assert rows_of(one, 17) != rows_of(stream(source, seed=6), 17)
    assert rows_of(one, 17) != rows_of(one, 18)
    assert one.tokens_per_step == pytest.approx(sum(b.num_targets for b in one.batches(1)), rel=0.5)


def test_neither_ranks_nor_micro_batches_change_what_is_read():
    whole = rows_of(stream(CURRICULUM, micro_batch_size=8), 25)
    assert rows_of(stream(CURRICULUM, micro_batch_size=3), 25) == whole
    shares = [rows_of(stream(CURRICULUM, rank=rank, world_size=2), 25) for rank in (0, 1)]
    assert shares[0] + shares[1] == whole


def test_a_mixture_has_its_shares_exactly():
    parts = (Part(task=POINTER, weight=9), Part(task=COPY, weight=1))
    for temperature, expected in ((1.0, 900), (2.0, 750)):
        source = MixtureSource(parts=parts, temperature=temperature, per_row=1)
        made = stream(source, batch_size=100, micro_batch_size=100)
        kinds = Counter(kind_of(row) for step in range(10) for row in rows_of(made, step))
        assert kinds == {"pointer": expected, "copy": 1000 - expected}


def test_a_curriculum_goes_by_its_stages_and_replays_earlier_ones():
    made = stream(CURRICULUM, batch_size=100, micro_batch_size=100)

    def shares(first):
        return Counter(kind_of(row) for step in range(first, first + 10) for row in rows_of(made, step))

    assert shares(0) == {"copy": 1000}
    assert shares(10) == {"needle": 800, "copy": 200}
    # A fifth again, half of it of each earlier stage; the rest 3 : 1.
    assert shares(20) == {"pointer": 600, "copy": 200 + 100, "needle": 100}


def test_no_example_of_an_endless_task_comes_twice():
    made = stream(MixtureSource(parts=(Part(task=AdditionTask()), Part(task=AdditionTask())), per_row=1))
    rows = [tuple(row[0]) for step in range(50) for row in rows_of(made, step)]
    assert len(set(rows)) == len(rows)


def test_the_fingerprint_follows_what_decides_the_order():
    harder = PuzzleSource(task=PointerTask(nodes=7))
    everything = PuzzleSource(task=POINTER, targets="everything")
    changes = [{}, {"window": 47}, {"batch_size": 4}, {"seed": 6}, {"source": harder}, {"source": everything}]
    assert len({stream(**change).fingerprint for change in changes}) == len(changes)
    assert stream().fingerprint == stream(micro_batch_size=8).fingerprint
    more = PuzzleSource(task=POINTER, heldout_examples=7)
    assert stream(more).fingerprint == stream().fingerprint


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"20 positions is too short for a puzzle.*\n.*--train.window 23"):
        stream(window=20)
    with pytest.raises(ConfigError, match="too short for 3 puzzles"):
        stream(PuzzleSource(task=POINTER, per_row=3))
    with pytest.raises(ConfigError, match="cannot be shared out evenly"):
        stream(world_size=3)
    with pytest.raises(ConfigError, match="read byte by byte"):
        open_text(TextData(source=PuzzleSource(), tokenizer=BpeConfig()))
    for steps in ((1, 2), (0, 5, 5), (0, 7, 3)):
        with pytest.raises(ValidationError, match="the first at 0, each later than the last"):
            CurriculumSource(stages=tuple(Stage(from_step=step, parts=(Part(task=COPY),)) for step in steps))


def test_a_source_survives_its_json():
    data = TextData(source=CURRICULUM, tokenizer=ByteTokenizerConfig())
    assert TextData.model_validate_json(data.model_dump_json()) == data and data.asks and not TextData().asks
    names = [task["task"] for task in open_text(data).summary["tasks"]]
    assert names == ["copy", "needle", "pointer"]


def test_a_curriculum_says_which_stage_a_step_is_of_and_others_say_nothing():
    staged = stream(CURRICULUM)
    begins = [stage.from_step for stage in CURRICULUM.stages]
    assert [staged.about(step) for step in range(25)] == [
        {"stage": sum(begin <= step for begin in begins) - 1} for step in range(25)
    ]
    mixture = MixtureSource(parts=(Part(task=POINTER), Part(task=COPY)))
    assert stream().about(3) == stream(mixture).about(3) == {}


def test_only_a_file_of_questions_alone_has_epochs(tmp_path):
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(f'{{"question": "{n}?", "answer": "{n}"}}\n' for n in range(40)))
    asked = QuestionsTask(path=str(path))
    made = stream(PuzzleSource(task=asked, per_row=1))
    assert made.steps_per_epoch == 36 / 8, "four of the forty are held out"
    rows = [str(row) for step in range(9) for row in rows_of(made, step)]
    assert all(Counter(rows)[row] == 2 for row in rows) and len(set(rows)) == 36, "two epochs in nine steps"
    assert stream(PuzzleSource(task=asked, per_row=3)).steps_per_epoch == 36 / 24
    mixture = MixtureSource(parts=(Part(task=asked), Part(task=POINTER)))
    assert stream(mixture).steps_per_epoch is None and stream().steps_per_epoch is None
