"""Rows of a table as a corpus: JSON lines, parquet, Arrow, or a dataset saved to disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ourospec.config import Config, absolute_glob
from ourospec.data.documents import OnUndecodable, RawDocument, decode_utf8, stamp_files
from ourospec.data.files import find_files, name_files
from ourospec.errors import DataError, ResourceError

_JSON = frozenset({".jsonl", ".ndjson"})
_TABLES = {".parquet": "parquet", ".arrow": "arrow"}
Row = tuple[int, Mapping[str, Any]]
"""Its number in the table, from 1, and its fields."""
SYNTH_FIELDS = ("query", "synthetic_reasoning", "synthetic_answer")


class RecordsSource(Config):
    """Rows of JSON lines, parquet, Arrow files or a dataset saved with `save_to_disk`, each a document."""

    kind: Literal["records"] = "records"
    """Which source."""
    path: Annotated[str, AfterValidator(absolute_glob)]
    """A file, a glob, or a folder (of such files, or written by `save_to_disk`)."""
    layout: Literal["text", "synth"] = "text"
    """How a row becomes text: one field of it, or SYNTH's query, reasoning and answer in the chat template (a row
    without query or answer is left out)."""
    text_field: str = "text"
    """Layout text: the field that holds the text."""
    language: str = ""
    """Only rows whose field `language` says so; empty: all rows."""
    split: str = "train"
    """Which part of a dataset saved in parts."""
    max_rows: Annotated[int, Field(ge=0)] = 0
    """Rows to take at most, from the first; 0: all."""

    def stamp(self) -> str:
        return stamp_files(find_files((self.path,)))

    def describe(self) -> str:
        return f"rows of {self.path}" + (f" in {self.language}" if self.language else "")

    def read(self, on_undecodable: OnUndecodable) -> Iterator[RawDocument]:
        taken = 0
        for name, row in self._rows(on_undecodable):
            if self.language and field_of(row, "language", name) != self.language:
                continue
            if self.max_rows and taken >= self.max_rows:
                return
            taken += 1
            yield RawDocument(name, name, self._text(row, name))

    def _text(self, row: Mapping[str, Any], name: str) -> str:
        if self.layout == "text":
            return field_of(row, self.text_field, name)
        query, reasoning, answer = (field_of(row, key, name) for key in SYNTH_FIELDS)
        # Half a conversation teaches nothing; a row without text is left out by whoever reads.
        return render_chat(query, reasoning, answer) if query.strip() and answer.strip() else ""

    def _rows(self, on_undecodable: OnUndecodable) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(name, row) of every row."""
        folder = Path(self.path).expanduser()
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            rows = read_saved(folder, self.split)
            yield from ((f"{folder.name}:{number}", row) for number, row in rows)
            return
        for name, path in name_files(find_files((self.path,))):
            if path.suffix in _JSON:
                rows = read_json_lines(path, on_undecodable)
            elif path.suffix in _TABLES:
                rows = read_table(path, _TABLES[path.suffix])
            else:
                known = ", ".join(sorted(_JSON | _TABLES.keys()))
                raise DataError(
                    f"{path} is no table that can be read (known: {known}).",
                    "Name only such files, as a glob; plain text is read with: --data.source files",
                )
            yield from ((f"{name}:{number}", row) for number, row in rows)


def render_chat(query: str, reasoning: str, answer: str) -> str:
    """A question and its answer as one document: the chat template of all training and prompting."""
    return (
        f"<|im_start|>user\n{query}<|im_end|>\n"
        f"<|im_start|>assistant\n<think>\n{reasoning}\n</think>\n\n{answer}<|im_end|>"
    )


def field_of(row: Mapping[str, Any], key: str, name: str) -> str:
    """A text field of a row; one that is null is empty.

    Raises:
        DataError: there is no such field, or it holds something else than text.
    """
    if key not in row:
        raise DataError(
            f"{name} has no field {key!r}; its fields are: {', '.join(map(str, row)) or 'none'}.",
            "Name the field that holds the text: --data.source.text-field NAME",
        )
    value = row[key]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"The field {key!r} of {name} holds {type(value).__name__}, not text.",
            "Name another field with --data.source.text-field, or convert the column to text.",
        )
    return value


def read_json_lines(path: Path, on_undecodable: OnUndecodable) -> Iterator[Row]:
    """The objects of a file with one on each line, numbered as its lines; empty ones are skipped.

    Raises:
        DataError: a line that is no JSON object, or no UTF-8.
    """
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row, why = None, ""
            try:
                row = json.loads(decode_utf8(line.rstrip(b"\n"), f"{path}:{number}", on_undecodable))
            except ValueError as error:
                why = f" ({error})"
            if not isinstance(row, dict):
                raise DataError(
                    f"Line {number} of {path} is not a JSON object{why}.",
                    'Every line must be one object, such as {"text": "..."}; remove or mend the line.',
                )
            yield number, row


def read_table(path: Path, builder: str) -> Iterator[Row]:
    """The rows of a parquet or Arrow file, read bit by bit and without a copy in any cache."""
    datasets = _import_datasets(path)
    try:
        rows = datasets.load_dataset(builder, data_files=str(path), split="train", streaming=True)
        yield from enumerate(rows, 1)
    except (ValueError, OSError, RuntimeError) as error:
        raise DataError(f"{path} cannot be read as {builder}: {error}", "Write the file anew.") from error


def read_saved(folder: Path, split: str) -> Iterator[Row]:
    """The rows of a dataset written by `save_to_disk`.

    Raises:
        DataError: there is no such part.
    """
    found = _import_datasets(folder).load_from_disk(str(folder))
    if hasattr(found, "keys"):
        if split not in found:
            raise DataError(
                f"The dataset in {folder} has no part {split!r}; it has: {', '.join(found)}.",
                "Choose one with: --data.source.split NAME",
            )
        found = found[split]
    yield from enumerate(found, 1)


def _import_datasets(path: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise ResourceError(
            f"Reading {path} needs the library datasets, which is not installed.",
            "Install it with: pip install 'ourospec[datasets]' (JSON lines are read without it)",
        ) from None
    return datasets
