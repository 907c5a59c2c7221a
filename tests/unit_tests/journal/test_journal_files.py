"""The journal's file: no other file is lost, and damage never gives a wrong number."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from journaling import TEXT, LoggingScorer, engine, scored, segments_of
from models import QUESTION

from xl3m_integrations import JournalError
from xl3m_integrations.backends.journal import Journal, JournaledScorer


def foreign_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE evidence (a)")
    connection.close()


FOREIGN: dict[str, Callable[[Path], Any]] = {
    "text": lambda path: path.write_text("precious notes"),
    "another program's database": foreign_database,
    "a database's beginning": lambda path: path.write_bytes(b"SQLite format 3\x00"),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused_and_left_as_it_is(tmp_path: Path, kind: str):
    path = tmp_path / "precious"
    FOREIGN[kind](path)
    before = path.read_bytes()
    with pytest.raises(JournalError, match="no journal of this program"):
        engine().select(TEXT, QUESTION, journal=path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["precious"]


def test_a_journal_of_another_version_is_refused(tmp_path: Path):
    path = tmp_path / "run.db"
    Journal(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(JournalError, match="version 99"):
        JournaledScorer(LoggingScorer(), path)


@pytest.mark.parametrize("place", ["missing/run.db", "."])
def test_a_place_that_cannot_hold_a_journal_is_named(tmp_path: Path, place: str):
    with pytest.raises(JournalError, match="cannot be"):
        JournaledScorer(LoggingScorer(), tmp_path / place)


def written(path: Path) -> bytes:
    scored(JournaledScorer(LoggingScorer(), path), segments_of(range(400)))
    return path.read_bytes()


@settings(max_examples=60, deadline=None)
@example(at=0.5625, length=22, fill=11)  # makes text of what was bytes
@example(at=0.091796875, length=1, fill=128)  # within the schema, whose text is no longer UTF-8
@given(at=st.floats(0, 1, exclude_max=True), length=st.integers(1, 64), fill=st.integers(0, 255))
def test_damage_anywhere_is_refused_or_harmless_but_never_a_wrong_number(
    tmp_path_factory: pytest.TempPathFactory, at: float, length: int, fill: int
):
    path = tmp_path_factory.mktemp("journal") / "run.db"
    data = bytearray(written(path))
    start = int(at * len(data))
    data[start : start + length] = bytes([fill]) * len(data[start : start + length])
    path.write_bytes(data)
    try:
        found = scored(JournaledScorer(LoggingScorer(), path), segments_of(range(400)))
    except JournalError as error:
        assert str(path) in str(error)
    else:
        assert [evidence for _, evidence in found] == [((2 * number + 1) / 7,) for number in range(400)]


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_journal_cut_short_is_refused_and_left_as_it_is(tmp_path: Path, share: float):
    path = tmp_path / "run.db"
    data = written(path)
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(JournalError, match="damaged"):
        scored(JournaledScorer(LoggingScorer(), path), segments_of(range(400)))
    assert path.read_bytes() == data[: int(share * len(data))]


def test_a_locked_journal_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run.db"
    monkeypatch.setattr("xl3m_integrations.backends.journal_file.BUSY_SECONDS", 0.0)
    Journal(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalError, match="locked"):
        scored(JournaledScorer(LoggingScorer(), path), segments_of([1]))
    other.close()
