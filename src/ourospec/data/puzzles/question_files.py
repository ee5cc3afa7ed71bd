"""Files of questions and answers, one JSON object on each line, in the layouts of well-known data sets.

Sources of the layouts: GSM8K (Cobbe et al. 2021, arXiv 2110.14168), SVAMP (Patel et al. 2021, arXiv 2103.07191), MBPP
(Austin et al. 2021, arXiv 2108.07732), ARC (Clark et al. 2018, arXiv 1803.05457), HellaSwag (Zellers et al. 2019, arXiv
1905.07830), PIQA (Bisk et al. 2020, arXiv 1911.11641).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from ourospec.config import absolute
from ourospec.data.documents import OnUndecodable
from ourospec.data.puzzles.example import FORMAT, Example, Posed, Task, ask, share_of
from ourospec.data.puzzles.question_layouts import LAYOUTS, Layout, Question
from ourospec.data.records import read_json_lines
from ourospec.errors import DataError


class QuestionsTask(Task):
    """A file of questions and answers, each text as "Q: question", and on the next line "A: answer".

    Each is trained on once an epoch, in an order of the epoch's own. Equal questions share a side of the split.
    """

    kind: Literal["questions"] = "questions"
    """Which task."""
    path: Annotated[str, AfterValidator(absolute)]
    """The file, one JSON object on each line. For PIQA the file of labels lies beside it (NAME-labels.lst), unless the
    objects have a field `label`."""
    layout: Layout = "plain"
    """Which fields an object has: question and answer (plain), or those of a data set. gsm8k asks for the final number
    alone, gsm8k_steps for the steps, too; of a choice the answer is its letter."""
    most_bytes: Annotated[int, Field(ge=16, le=1_000_000)] = 512
    """Longer texts are left out."""

    @property
    def name(self) -> str:
        return f"{self.layout} {Path(self.path).stem}"

    @property
    def longest(self) -> int:
        return self.most_bytes

    def open(self, fraction: float, on_undecodable: OnUndecodable) -> Listed:
        """Read the file.

        Raises:
            DataError: it is not there, a line is not as the layout has it, or there are fewer than two different
                questions.
        """
        examples = _read(self, on_undecodable)
        held = _choose([posed.key for posed in examples], fraction, self.path)
        kept = [posed.write() for posed in examples]
        short = [len(example.text) <= self.most_bytes for example in kept]
        sides = [
            tuple(
                example for example, fits, out in zip(kept, short, held, strict=True) if fits and out == side
            )
            for side in (False, True)
        ]
        if not all(sides):
            raise DataError(
                f"{self.path}: {len(kept) - sum(short)} of its {len(kept)} texts have more than {self.most_bytes} "
                "bytes, so that nothing is left to train on, or nothing to evaluate.",
                "Allow longer ones: --data.source.task.most-bytes N",
            )
        return Listed(self.name, sides[0], sides[1], len(kept) - sum(short))


@dataclass(frozen=True)
class Listed:
    """The questions of a file."""

    name: str
    trained: tuple[Example, ...]
    held: tuple[Example, ...]
    left_out: int
    """Texts that were too long."""

    @property
    def longest(self) -> int:
        return max(len(example.text) for example in (*self.trained, *self.held))

    @property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(FORMAT.encode())
        for side in (self.trained, self.held):
            digest.update(b"\0".join([str(len(side)).encode(), *(example.text for example in side)]))
        return digest.hexdigest()

    @property
    def examples(self) -> int:
        return len(self.trained)

    @property
    def summary(self) -> dict[str, object]:
        counts = {"train": len(self.trained), "heldout": len(self.held), "left_out": self.left_out}
        return {"task": self.name, **counts}

    def training(self, stream: int, index: int) -> Example:
        epoch, place = divmod(index, len(self.trained))
        return self.trained[_order(stream, epoch, len(self.trained))[place]]

    def heldout(self, count: int) -> list[Example]:
        return list(self.held[:count])


@lru_cache(maxsize=16)
def _order(stream: int, epoch: int, count: int) -> list[int]:
    """Raw output, sorted, rather than Generator.permutation: NumPy keeps only the former the same for ever."""
    words = np.random.Philox(key=np.array([stream, epoch], np.uint64)).random_raw(count)
    return np.argsort(words, kind="stable").tolist()


def _read(task: QuestionsTask, on_undecodable: OnUndecodable) -> list[Posed]:
    path = Path(task.path)
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Check the path: --data.source.task.path FILE")
    read, found = LAYOUTS[task.layout](path), []
    for number, row in read_json_lines(path, on_undecodable):
        where = f"Line {number} of {path}"
        question = read(row, where, len(found))
        try:
            key = f"questions {question.question}".encode()
            question.answer.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{where} holds half a surrogate pair, which is no text.", "Mend the line."
            ) from None
        found.append(Posed(key, lambda question=question: _write(question)))
    return found


def _write(read: Question) -> Example:
    return ask(f"Q: {read.question.strip()}\nA: ", read.answer.strip(), read.difficulty, read.bin)


def _choose(keys: Sequence[bytes], fraction: float, path: str) -> list[bool]:
    """Whether each is held out: of the different keys as many as come nearest to the fraction, by their hashes."""
    different = sorted(set(keys), key=share_of)
    if len(different) < 2:
        raise DataError(
            f"{path} has {len(different)} different question(s): none could be held out.",
            "Give more of them.",
        )
    held = set(different[: min(max(1, round(fraction * len(different))), len(different) - 1)])
    return [key in held for key in keys]
