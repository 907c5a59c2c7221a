"""Files of keys and values are never more than the limit, and nobody else's are touched."""

from __future__ import annotations

import os
from pathlib import Path

from indexes import ALL, QUESTIONS, TEXT
from kv_blocks import KEYS, block, engine, held, rows_read, size, size_of_one
from models import assert_same, text_of

from xl3m_integrations.backends.kv_files import KVFiles


def age(folder: Path, *before: int) -> None:
    """Let the files be last used in the order of their numbers, all long ago."""
    for path, order in zip(held(folder), before, strict=True):
        os.utime(path, (order, order))


def test_the_least_recently_used_go_out(tmp_path: Path):
    limit = 3 * size_of_one(tmp_path / "one")
    folder = tmp_path / "files"
    files = KVFiles(folder, "a", limit)
    names = {}
    for number in range(3):
        before = {*held(folder)}
        files.put(KEYS[number], block(number))
        (names[number],) = {*held(folder)} - before
    order = {names[1]: 1, names[0]: 2, names[2]: 3}
    age(folder, *(order[path] for path in held(folder)))
    assert files.get(KEYS[1], "cpu") is not None  # the oldest, but just used
    files.put(KEYS[3], block(3))
    assert [files.get(key, "cpu") is not None for key in KEYS[:4]] == [False, True, True, True]
    assert len(held(folder)) == 3


def test_a_text_larger_than_the_limit_keeps_what_fits(tmp_path: Path):
    """A text read from front to back must not push out what is needed next."""
    xl3m = engine()
    whole = xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path / "whole")
    everything = rows_read(xl3m, whole)
    limit = size(tmp_path / "whole") // 2
    folder = tmp_path / "half"
    for _ in range(2):  # the second time as a later process does
        index = xl3m.index(TEXT, cache_bytes=0, cache_dir=folder, cache_dir_bytes=limit)
        for question in QUESTIONS:
            assert_same(index.select(question, top_k=ALL), xl3m.select(TEXT, question, top_k=ALL))
            assert size(folder) <= limit
        assert 0.3 * everything <= everything - rows_read(xl3m, index) <= 0.6 * everything


def test_another_text_takes_the_place_of_what_is_long_unused(tmp_path: Path):
    xl3m = engine()
    xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path).select(QUESTIONS[0])
    limit = size(tmp_path)
    age(tmp_path, *range(1, len(held(tmp_path)) + 1))
    other = xl3m.index(text_of(1_200, seed=9), cache_bytes=0, cache_dir=tmp_path, cache_dir_bytes=limit)
    other.select(QUESTIONS[0])
    assert rows_read(xl3m, other) == 0
    assert size(tmp_path) <= limit


def test_no_room_at_all_writes_nothing(tmp_path: Path):
    xl3m = engine()
    index = xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path, cache_dir_bytes=0)
    assert_same(index.select(QUESTIONS[0]), xl3m.select(TEXT, QUESTIONS[0]))
    assert held(tmp_path) == []


def test_what_is_not_ours_is_left_alone(tmp_path: Path):
    theirs = ["model.safetensors", "xl3m-kv-notes.safetensors", "xl3m-kv.tmp", "a.tmp"]
    for name in theirs:
        (tmp_path / name).write_bytes(b"0" * 5_000)
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / ("xl3m-kv-" + "a" * 64 + ".safetensors")).mkdir()
    files = KVFiles(tmp_path, "a", size_of_one(tmp_path / "one"))
    for number in range(3):
        files.put(KEYS[number], block(number))
        age(tmp_path, *[1] * len(held(tmp_path)))
    assert [files.get(key, "cpu") is not None for key in KEYS[:3]] == [False, False, True]
    assert all((tmp_path / name).read_bytes() == b"0" * 5_000 for name in theirs)
