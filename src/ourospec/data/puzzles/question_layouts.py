"""How well-known data sets write a question and its answer into a JSON object."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ourospec.errors import DataError

Layout = Literal["plain", "gsm8k", "gsm8k_steps", "svamp", "mbpp", "arc", "hellaswag", "piqa"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class Question(NamedTuple):
    """One object, read."""

    question: str
    answer: str
    difficulty: float
    bin: str


Row = Mapping[str, Any]
Reader = Callable[[Row, str, int], Question]
"""(object, where it stands, how many were before it) -> question."""


def _malformed(where: str, what: str) -> DataError:
    return DataError(
        f"{where}: {what}.",
        "Mend or remove the line, or say which layout the file has: --data.source.task.layout NAME",
    )


def _text(row: Row, key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        has = (
            f"holds {type(value).__name__}, not text"
            if key in row
            else f"is missing; there are: {_names(row)}"
        )
        raise _malformed(where, f"the field {key!r} {has}")
    return value


def _texts(row: Row, key: str, where: str) -> list[str]:
    value = row.get(key)
    if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
        raise _malformed(where, f"the field {key!r} should be a list of texts")
    return value


def _number(row: Row, key: str, where: str) -> int:
    """A whole number, which may be written as text."""
    value = row.get(key)
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value)):
        raise _malformed(where, f"the field {key!r} should be a whole number, and is {value!r}")
    return int(str(value))


def _names(row: Row) -> str:
    return ", ".join(map(str, row)) or "none"


def _counted(question: str, answer: str, thing: str, count: int) -> Question:
    return Question(question, answer, count, f"{thing} {count}")


def _choice(asked: str, labels: Sequence[str], choices: Sequence[str], right: str, where: str) -> Question:
    if right not in labels:
        raise _malformed(where, f"the right answer is {right!r}, which is none of {', '.join(labels)}")
    listed = [f"({label}) {choice.strip()}" for label, choice in zip(labels, choices, strict=True)]
    return Question("\n".join([asked.strip(), *listed]), right, 0, "all")


def _plain(row: Row, where: str, before: int) -> Question:
    del before
    return Question(_text(row, "question", where), _text(row, "answer", where), 0, "all")


def _split_gsm8k(row: Row, where: str) -> tuple[str, list[str], str]:
    """The question, the steps without their marks for a calculator, and the number behind ####."""
    worked = _text(row, "answer", where)
    steps, mark, final = worked.rpartition("####")
    if not mark or not final.strip():
        raise _malformed(where, "the answer does not end with #### and a number")
    lines = [line.strip() for line in re.sub(r"<<.*?>>", "", steps).splitlines() if line.strip()]
    return _text(row, "question", where), lines, final.strip()


def _gsm8k(row: Row, where: str, before: int) -> Question:
    del before
    question, steps, final = _split_gsm8k(row, where)
    return _counted(question, final, "steps", len(steps))


def _gsm8k_steps(row: Row, where: str, before: int) -> Question:
    del before
    question, steps, final = _split_gsm8k(row, where)
    return _counted(question, "\n".join([*steps, f"#### {final}"]), "steps", len(steps))


def _svamp(row: Row, where: str, before: int) -> Question:
    del before
    answer = row.get("Answer")
    if isinstance(answer, str):
        try:
            answer = float(answer)
        except ValueError:
            answer = None
    if isinstance(answer, bool) or not isinstance(answer, int | float) or not math.isfinite(answer):
        raise _malformed(where, f"the field 'Answer' should be a number, and is {row.get('Answer')!r}")
    equation = _text(row, "Equation", where)
    operations = sum(equation.count(sign) for sign in "+-*/")
    story = f"{_text(row, 'Body', where).strip()} {_text(row, 'Question', where).strip()}"
    return _counted(story, f"{answer:g}" if answer % 1 else str(int(answer)), "operations", operations)


def _mbpp(row: Row, where: str, before: int) -> Question:
    del before
    asked = "\n".join([_text(row, "text", where).strip(), *_texts(row, "test_list", where)])
    code = _text(row, "code", where).replace("\r\n", "\n").strip()
    return _counted(asked, code, "lines", len(code.splitlines()))


def _arc(row: Row, where: str, before: int) -> Question:
    """{"question": {"stem", "choices": [{"text", "label"}]}} as published, or "choices": {"text": [], "label": []}."""
    del before
    inner, choices = row.get("question"), row.get("choices")
    if isinstance(inner, dict):
        stem, listed = _text(inner, "stem", where), inner.get("choices")
        if (
            not isinstance(listed, list)
            or not listed
            or not all(isinstance(choice, dict) for choice in listed)
        ):
            raise _malformed(where, "the field 'choices' should be a list of objects")
        texts = [_text(choice, "text", where) for choice in listed]
        labels = [_text(choice, "label", where) for choice in listed]
    else:
        stem = _text(row, "question", where)
        if not isinstance(choices, dict):
            raise _malformed(where, "the field 'choices' should hold the lists 'text' and 'label'")
        texts, labels = _texts(choices, "text", where), _texts(choices, "label", where)
        if len(texts) != len(labels):
            raise _malformed(where, f"{len(texts)} choices have {len(labels)} labels")
    return _choice(stem, labels, texts, _text(row, "answerKey", where), where)


def _hellaswag(row: Row, where: str, before: int) -> Question:
    del before
    endings, right = _texts(row, "endings", where), _number(row, "label", where)
    labels = LETTERS[: len(endings)]
    answer = labels[right] if right < len(labels) else str(right)
    return _choice(_text(row, "ctx", where), list(labels), endings, answer, where)


def _open_piqa(path: Path) -> Reader:
    """The labels stand in the objects, or in a file beside them."""
    beside = path.with_name(f"{path.stem}-labels.lst")
    labels = beside.read_text(encoding="utf-8", errors="replace").split() if beside.is_file() else []

    def read(row: Row, where: str, before: int) -> Question:
        if "label" not in row and before >= len(labels):
            what = f"{beside} has {len(labels)} labels" if labels else f"there is no {beside}"
            raise _malformed(where, f"the field 'label' is missing, and {what}")
        right = _number(row if "label" in row else {"label": labels[before]}, "label", where)
        answer = LETTERS[right] if right < 2 else str(right)
        choices = [_text(row, key, where) for key in ("sol1", "sol2")]
        return _choice(_text(row, "goal", where), ["A", "B"], choices, answer, where)

    return read


def _always(reader: Reader) -> Callable[[Path], Reader]:
    def open_reader(path: Path) -> Reader:
        del path
        return reader

    return open_reader


LAYOUTS: Mapping[Layout, Callable[[Path], Reader]] = {
    "plain": _always(_plain),
    "gsm8k": _always(_gsm8k),
    "gsm8k_steps": _always(_gsm8k_steps),
    "svamp": _always(_svamp),
    "mbpp": _always(_mbpp),
    "arc": _always(_arc),
    "hellaswag": _always(_hellaswag),
    "piqa": _open_piqa,
}
"""What reads the objects of a file, by its layout."""
