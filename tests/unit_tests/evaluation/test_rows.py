"""Rows of files become examples whose gold stands where it should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from xl3m_integrations import InputError
from xl3m_integrations.evaluation import load_rows

ROW = {"question": "Where?", "answers": ["Oslo", "Norway"], "docs": ["Rain.", "It is in oslo now."], "gold": [1]}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_a_row(tmp_path: Path):
    (example,) = load_rows(write(tmp_path / "mine.jsonl", ROW))
    assert example.text == "Rain.\nIt is in oslo now."
    assert [example.text[start:end] for start, end in example.gold] == ["oslo"]
    assert (example.task, example.number, example.length, example.cover) == ("mine", 0, None, 1.0)
    assert (example.question, example.answers) == ("Where?", ("Oslo", "Norway"))
    assert example.twin() is None


def test_offsets_hold_where_case_changes_lengths(tmp_path: Path):
    (example,) = load_rows(write(tmp_path / "a.jsonl", ROW | {"docs": ["Ruß in Maßen. OSLO"], "gold": 0}))
    assert [example.text[start:end] for start, end in example.gold] == ["OSLO"]


def test_a_passage_without_the_answer_is_gold_by_half(tmp_path: Path):
    (example,) = load_rows(write(tmp_path / "a.jsonl", ROW | {"answers": "Bergen", "gold": 0}))
    assert [example.text[start:end] for start, end in example.gold] == ["Rain."]
    assert (example.answers, example.cover) == (("Bergen",), 0.5)


def test_rows_are_numbered_within_their_task(tmp_path: Path):
    rows = [ROW | {"task": task} for task in ("a", "b", "a")]
    lines = load_rows(write(tmp_path / "a.jsonl", *rows))
    array = tmp_path / "a.json"
    array.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    assert [(row.task, row.number) for row in lines] == [("a", 0), ("b", 0), ("a", 1)]
    assert load_rows(array) == lines


def test_an_unanswerable_row(tmp_path: Path):
    (example,) = load_rows(write(tmp_path / "a.jsonl", ROW | {"answerable": False, "answers": [], "gold": []}))
    assert (example.answerable, example.gold) == (False, ())


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"question": "Where?"}, "'docs'"),
        (ROW | {"gold": [2]}, "IndexError"),
        (ROW | {"gold": [-1]}, "the first passage is number 0"),
        (ROW | {"answers": [None]}, "empty"),
        (ROW | {"answers": ["Oslo", ""]}, "empty"),
        (ROW | {"question": " "}, "empty"),
        (ROW | {"answers": []}, "empty"),
        (ROW | {"docs": ["", " "]}, "empty"),
        (3, "AttributeError"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, row: Any, named: str):
    with pytest.raises(InputError, match="Row 2 of ") as raised:
        load_rows(write(tmp_path / "a.jsonl", ROW, row))
    assert named in str(raised.value)


def test_a_byte_order_mark_is_no_part_of_the_rows(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", ROW)
    plain = load_rows(path)
    path.write_text("\ufeff" + path.read_text(encoding="utf-8"), encoding="utf-8")
    assert load_rows(path) == plain


@pytest.mark.parametrize("text", ["", "\n\n", "{", "[]"])
def test_a_file_without_rows(tmp_path: Path, text: str):
    (tmp_path / "a.jsonl").write_text(text)
    with pytest.raises(InputError, match="one JSON object a line"):
        load_rows(tmp_path / "a.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        load_rows(tmp_path / "none.jsonl")
