"""Files of keys and values where disks, folders and processes fail: whole or not there."""

from __future__ import annotations

import errno
import gc
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from indexes import QUESTIONS, TEXT
from kv_blocks import KEYS, block, engine, held, rows_read, size_of_one
from models import assert_same, make_backend

from xl3m_integrations import XL3M, CacheError, SettingError
from xl3m_integrations.backends.kv_files import KVFiles


def test_a_disk_that_fills_up_ends_in_an_error_and_what_was_written_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    xl3m = engine()
    write, written = Path.write_bytes, []

    def fills_up(path: Path, data: bytes) -> int:
        if len(written) == 3:
            write(path, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        return write(path, data)

    index = xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path)
    monkeypatch.setattr(Path, "write_bytes", fills_up)
    with pytest.raises(CacheError, match=r"No space left on device.*cache_dir_bytes=") as raised:
        index.select(QUESTIONS[0])
    assert str(tmp_path) in str(raised.value)
    assert len(held(tmp_path)) == 3
    with pytest.raises(CacheError, match="No space left"):
        index.select(QUESTIONS[0])
    monkeypatch.undo()
    everything = len(index)
    assert 0 < rows_read(xl3m, index) < everything
    assert_same(index.select(QUESTIONS[0]), xl3m.select(TEXT, QUESTIONS[0]))


def test_a_write_that_the_system_breaks_off_leaves_nothing(tmp_path: Path):
    """Here the kernel itself writes a part of the file and then refuses, as on a full disk."""
    resource = pytest.importorskip("resource")
    index = engine(batch_tokens=2_000).index(TEXT, cache_bytes=0, cache_dir=tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CacheError, match="File too large"):
            index.select(QUESTIONS[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert held(tmp_path) == []


def test_an_interrupt_while_writing_leaves_no_half_written_file_and_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def alive() -> int:
        gc.collect()
        return sum(thing.nbytes for thing in gc.get_objects() if type(thing) is torch.Tensor)

    xl3m = engine()
    xl3m.index(TEXT[:300], cache_bytes=0, cache_dir=tmp_path / "warm").select(QUESTIONS[0])
    before, replace, moved = alive(), os.replace, []

    def interrupted(old: Path, new: Path) -> None:
        if len(moved) == 2:
            assert old.stat().st_size > 0  # all but the rename was done
            raise KeyboardInterrupt
        moved.append(new)
        replace(old, new)

    index = xl3m.index(TEXT, cache_dir=tmp_path / "kv")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        index.select(QUESTIONS[0])
    monkeypatch.undo()
    assert held(tmp_path / "kv") == sorted(moved)
    assert alive() - before <= index.cache.nbytes
    assert_same(index.select(QUESTIONS[0]), xl3m.select(TEXT, QUESTIONS[0]))
    del index
    assert alive() == before


@pytest.mark.parametrize("where", ["a file", "under a file", "not to be written"])
def test_a_folder_that_cannot_be_used_is_refused_before_any_work(where: str, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    folder = {"a file": tmp_path / "file", "under a file": tmp_path / "file" / "kv", "not to be written": Path("/proc")}
    if not folder[where].parent.exists():
        pytest.skip("no such folder on this system")
    with pytest.raises(CacheError, match=r"cannot be kept in .*give another cache_dir=") as raised:
        engine().index(TEXT, cache_dir=folder[where])
    assert str(folder[where]) in str(raised.value) and isinstance(raised.value, OSError)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_is_made_and_may_be_named_by_a_string(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    index = engine().index(TEXT, cache_dir="some/where")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    index.select(QUESTIONS[0])
    assert held(tmp_path / "some" / "where") and not held(tmp_path / "elsewhere")


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path):
    files = KVFiles(tmp_path, "a")
    files.put(KEYS[0], block())
    (path,) = held(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(CacheError, match="cannot be read from"):
        files.get(KEYS[0], "cpu")


def test_what_a_killed_process_left_unfinished_is_cleaned_up_in_time(tmp_path: Path):
    size_of_one(tmp_path)
    (whole,) = held(tmp_path)
    old, new = (whole.with_name(f".{whole.name}.{letter * 32}.part") for letter in "ab")
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    KVFiles(tmp_path, "a")
    assert held(tmp_path) == [new, whole]


def test_settings_that_cannot_be_used(tmp_path: Path):
    with pytest.raises(SettingError, match="cache_dir_bytes is -1"):
        engine().index(TEXT, cache_dir=tmp_path / "kv", cache_dir_bytes=-1)
    with pytest.raises(SettingError, match="there is no cache_dir"):
        engine().index(TEXT, cache_dir_bytes=10)
    scorer = make_backend()
    plain = SimpleNamespace(window=scorer.window, tokenizer=scorer.tokenizer)
    with pytest.raises(SettingError, match="SimpleNamespace keeps no keys and values"):
        XL3M(plain).index(TEXT, cache_dir=tmp_path / "kv")
    assert not (tmp_path / "kv").exists()
