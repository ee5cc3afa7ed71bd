"""Rows of tables as a corpus."""

import json
import sys

import pytest

from ourospec.data.documents import documents_of
from ourospec.data.records import RecordsSource, render_chat
from ourospec.errors import DataError, ResourceError

ROWS = [
    {"query": "Why?", "synthetic_reasoning": "Think.", "synthetic_answer": "So.", "language": "en"},
    {"query": "Warum?", "synthetic_reasoning": "Denk.", "synthetic_answer": "Darum.", "language": "de"},
    {"query": "How?", "synthetic_reasoning": None, "synthetic_answer": "Thus.", "language": "en"},
    {"query": "Where?", "synthetic_reasoning": "Hm.", "synthetic_answer": "", "language": "en"},
]
FIRST = "<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n<think>\nThink.\n</think>\n\nSo.<|im_end|>"


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def texts(source, on_undecodable="refuse"):
    return [document.text for document in documents_of(source, on_undecodable)]


def write_table(kind, folder, rows):
    if kind == "jsonl":
        return write_lines(folder / "rows.jsonl", rows)
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    table = datasets.Dataset.from_list(rows)
    if kind == "parquet":
        table.to_parquet(folder / "rows.parquet")
        return str(folder / "rows.parquet")
    if kind == "saved":
        table.save_to_disk(folder / "saved")
        return str(folder / "saved")
    if kind == "arrow":
        table.save_to_disk(folder / "saved")
        return str(folder / "saved" / "*.arrow")
    datasets.DatasetDict({"train": table, "other": table.select([1])}).save_to_disk(folder / "parts")
    return str(folder / "parts")


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "arrow", "saved", "parts"])
def test_synth_rows_from_every_format(kind, tmp_path):
    path = write_table(kind, tmp_path, ROWS)
    source = RecordsSource(path=path, layout="synth", language="en")
    # The last row has no answer and is left out.
    assert texts(source) == [FIRST, render_chat("How?", "", "Thus.")]
    assert len(texts(RecordsSource(path=path, layout="synth"))) == 3
    assert texts(RecordsSource(path=path, text_field="query")) == ["Why?", "Warum?", "How?", "Where?"]
    assert texts(RecordsSource(path=path, text_field="query", max_rows=2)) == ["Why?", "Warum?"]
    assert texts(RecordsSource(path=path, text_field="query", language="en", max_rows=2)) == ["Why?", "How?"]


def test_another_part_of_a_saved_dataset(tmp_path):
    path = write_table("parts", tmp_path, ROWS)
    assert texts(RecordsSource(path=path, text_field="query", split="other")) == ["Warum?"]
    with pytest.raises(DataError, match="no part 'test'; it has: train, other") as caught:
        texts(RecordsSource(path=path, text_field="query", split="test"))
    assert "--data.source.split" in caught.value.remedy


def test_every_row_has_a_name_of_its_own(tmp_path):
    for part in ("one", "two"):
        (tmp_path / part).mkdir()
        write_lines(tmp_path / part / "rows.jsonl", [{"text": "a"}, {"text": "b"}])
    documents = list(RecordsSource(path=str(tmp_path)).read("refuse"))
    assert [d.name for d in documents] == [f"{p}/rows.jsonl:{n}" for p in ("one", "two") for n in (1, 2)]
    assert [d.group for d in documents] == [d.name for d in documents]


def test_a_missing_field_names_the_fields_there_are(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"text": "a"}, {"txt": "b", "id": 1}])
    with pytest.raises(
        DataError, match=r"rows\.jsonl:2 has no field 'text'; its fields are: txt, id"
    ) as caught:
        texts(RecordsSource(path=path))
    assert "--data.source.text-field" in caught.value.remedy


def test_a_field_that_is_no_text(tmp_path):
    path = write_lines(tmp_path / "rows.jsonl", [{"text": ["a"]}])
    with pytest.raises(DataError, match="holds list, not text"):
        texts(RecordsSource(path=path))


@pytest.mark.parametrize("line", [b"{", b"[1]", b'"text"', b"null"])
def test_a_line_that_is_no_object(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n\n' + line + b"\n")
    with pytest.raises(DataError, match=r"Line 3 of .*rows\.jsonl is not a JSON object") as caught:
        texts(RecordsSource(path=str(path)))
    assert caught.value.remedy


def test_undecodable_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    source = RecordsSource(path=str(path))
    with pytest.raises(DataError, match=r"rows\.jsonl:2 is not UTF-8 text: byte 0xff"):
        texts(source)
    assert texts(source, "replace") == ["a", "\ufffd"]


def test_half_a_surrogate_pair(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a\\ud83d"}\n')
    with pytest.raises(DataError, match="half a surrogate pair at character 1"):
        texts(RecordsSource(path=str(path)))
    assert texts(RecordsSource(path=str(path)), "replace") == ["a\ufffd"]


def test_a_file_of_another_kind(tmp_path):
    (tmp_path / "rows.csv").write_text("a,b\n")
    with pytest.raises(DataError, match=r"rows\.csv is no table") as caught:
        texts(RecordsSource(path=str(tmp_path)))
    assert "--data.source files" in caught.value.remedy


@pytest.mark.parametrize("name", ["x.parquet", "x.arrow"])
def test_a_broken_table(tmp_path, name):
    pytest.importorskip("datasets")
    (tmp_path / name).write_bytes(b"PAR1 nothing of the sort PAR1" * 4)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        texts(RecordsSource(path=str(tmp_path / name)))


def test_without_the_library_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "x.parquet").write_bytes(b"")
    with pytest.raises(ResourceError) as caught:
        texts(RecordsSource(path=str(tmp_path / "x.parquet")))
    assert "ourospec[datasets]" in caught.value.remedy
    assert texts(RecordsSource(path=write_lines(tmp_path / "y.jsonl", [{"text": "no library"}]))) == [
        "no library"
    ]
