"""Keys and values in files: whole or not there, told from what they are not, and never more than the limit."""

from __future__ import annotations

import errno
import gc
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from models import (
    ARCHITECTURES,
    assert_same,
    make_backend,
    make_model,
    make_tokenizer,
    shared_model,
    shared_tokenizer,
    text_of,
)
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from xl3m_integrations import XL3M, CacheError, Selection, SettingError
from xl3m_integrations.backends.kv_cache import KVBlock, KVCache, key_of
from xl3m_integrations.backends.kv_files import KVFiles
from xl3m_integrations.backends.transformers import TransformersBackend
from xl3m_integrations.index import Index

TEXT = text_of(1_500, seed=1)
QUESTIONS = ["What is the special magic number for the harbour?", "Who?", "And why had the ferry left?"]
KEYS = [key_of([[n, n + 1]]) for n in range(6)]
ALL = 10**6


def engine(architecture: str = "llama", batch_tokens: int = 100, **settings: Any) -> XL3M:
    backend = make_backend(architecture, batch_tokens=batch_tokens, **settings)
    return XL3M(backend, backend)


def rows_read(xl3m: XL3M, index: Index, question: str = QUESTIONS[0]) -> int:
    """Rows whose segment the model reads for one question; 0 where all keys and values come from the cache."""
    backend: Any = xl3m.scorer
    forward, read = backend.logits, 0
    shortest = len(backend.prompt(question).after) + 1

    def logits(ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        nonlocal read
        read += len(ids) if ids.shape[1] > shortest else 0
        return forward(ids, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "logits", logits)
        index.select(question, measure="entropy")
    return read


def block(seed: int = 0, dtype: torch.dtype = torch.float32, layers: int = 2) -> KVBlock:
    generator = torch.Generator().manual_seed(seed)
    return KVBlock(
        tuple(
            (torch.randn(1, 1, 2, 4, generator=generator).to(dtype), torch.randn(1, 2, 2, 3, generator=generator))
            for _ in range(layers)
        )
    )


def same(found: KVBlock | None, expected: KVBlock) -> bool:
    return found is not None and all(
        a.dtype == b.dtype and torch.equal(a, b)
        for ours, theirs in zip(found.layers, expected.layers, strict=True)
        for a, b in zip(ours, theirs, strict=True)
    )


def held(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


# ---------------------------------------------------------------------------------------------- the same scores
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_comes_from_files_equals_what_was_never_kept(architecture: str, tmp_path: Path):
    xl3m = engine(architecture)
    index = xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path)
    for question in (*QUESTIONS, QUESTIONS[0]):
        assert_same(index.select(question, top_k=ALL), xl3m.select(TEXT, question, top_k=ALL))
    assert index.cache.nbytes == 0 and len(held(tmp_path)) > 5
    assert rows_read(xl3m, index) == 0


def test_a_later_index_reads_what_an_earlier_one_has_written(tmp_path: Path):
    first, later = engine(), engine()
    found = first.index(TEXT, cache_dir=tmp_path).select(QUESTIONS[0], top_k=ALL)  # all of it fits memory, too
    files = held(tmp_path)
    index = later.index(TEXT, cache_bytes=0, cache_dir=tmp_path)
    assert rows_read(later, index) == 0
    assert index.select(QUESTIONS[0], top_k=ALL).scores == found.scores
    assert held(tmp_path) == files


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_memory_and_files_together_hold_what_memory_alone_does_not(share: float, tmp_path: Path):
    xl3m = engine()
    whole = xl3m.index(TEXT)
    whole.select(QUESTIONS[0])
    index = xl3m.index(TEXT, cache_bytes=int(share * whole.cache.nbytes), cache_dir=tmp_path)
    index.select(QUESTIONS[0])
    assert rows_read(xl3m, index) == 0
    assert 0 < index.cache.nbytes <= share * whole.cache.nbytes


def test_several_documents_and_many_questions(tmp_path: Path):
    xl3m = engine()
    texts = [text_of(size, seed=size) for size in (400, 900, 30)]
    index = xl3m.index(*texts, cache_bytes=0, cache_dir=tmp_path)
    for question in QUESTIONS:
        expected = xl3m.select_documents(texts, question, top_k=5)
        for found, plain in zip(index.select_documents(question, top_k=5), expected, strict=True):
            assert_same(found, plain)
    one = xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path)
    for _ in range(2):
        for many, question in zip(one.select_many(QUESTIONS, top_k=ALL), QUESTIONS, strict=True):
            assert_same(many, xl3m.select(TEXT, question, top_k=ALL))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_numbers_are_kept_as_they_are(dtype: torch.dtype, tmp_path: Path):
    kept = block(dtype=dtype)
    KVFiles(tmp_path, "a").put(KEYS[0], kept)
    assert same(KVFiles(tmp_path, "a").get(KEYS[0], "cpu"), kept)


def test_bfloat16_scores_are_the_same_to_the_last_bit(tmp_path: Path):
    backend = TransformersBackend(make_model().to(torch.bfloat16), make_tokenizer(), batch_tokens=100)
    index = XL3M(backend).index(TEXT, cache_bytes=0, cache_dir=tmp_path)
    assert index.select(QUESTIONS[0]).scores == index.select(QUESTIONS[0]).scores
    with safe_open(held(tmp_path)[0], "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.bfloat16}  # noqa: SIM118


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_blocks_come_back_to_the_models_device(tmp_path: Path):
    backend = TransformersBackend(make_model().to("cuda"), make_tokenizer(), batch_tokens=100)
    xl3m = XL3M(backend)
    for _ in range(2):
        index = xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path)
        found = index.select(QUESTIONS[0], top_k=ALL)
        assert found.scores == pytest.approx(xl3m.select(TEXT, QUESTIONS[0], top_k=ALL).scores, abs=1e-3)
    assert rows_read(xl3m, index) == 0


def test_what_is_not_on_the_models_device_is_moved_there(tmp_path: Path):
    KVFiles(tmp_path, "a").put(KEYS[0], block())
    found = KVFiles(tmp_path, "a").get(KEYS[0], "meta")
    assert found is not None and all(tensor.device.type == "meta" for pair in found.layers for tensor in pair)


# -------------------------------------------------------------------------------------------- files that cannot be used
def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    changed = {
        "cut": data[:-7],
        "empty": b"",
        "garbage": b"no tensors at all" * 40,
        "longer": data + b"\0",
        "a bit": data[:-1] + bytes([data[-1] ^ 1]),
    }
    tensors, about = load_file(path), safe_open(path, "pt").metadata()
    if how in changed:
        path.write_bytes(changed[how])
    elif how == "no word of what it is":
        save_file(tensors, path)
    elif how == "another version":
        save_file(tensors, path, {**about, "version": "0"})
    elif how == "another model":
        save_file(tensors, path, {**about, "fingerprint": "b"})
    elif how == "swapped":
        save_file(tensors | {"0.keys": tensors["1.keys"], "1.keys": tensors["0.keys"]}, path, about)
    elif how == "reshaped":
        save_file({n: t.transpose(2, 3).reshape(t.shape[0], 1, -1, 1) for n, t in tensors.items()}, path, about)


DAMAGES = (
    "cut", "empty", "garbage", "longer", "a bit", "no word of what it is", "another version", "another model",
    "swapped", "reshaped",
)  # fmt: skip


@pytest.mark.parametrize("how", DAMAGES)
def test_a_file_that_cannot_be_used_is_named_computed_again_and_replaced(how: str, tmp_path: Path):
    xl3m = engine()
    expected = xl3m.select(TEXT, QUESTIONS[1], top_k=ALL)
    index = xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path)
    index.select(QUESTIONS[0])
    files = held(tmp_path)
    hurt = files[2]
    before = hurt.read_bytes()
    damage(hurt, how)
    assert hurt.read_bytes() != before
    with pytest.warns(UserWarning) as warned:
        assert_same(index.select(QUESTIONS[1], top_k=ALL), expected)
    assert [str(hurt) in str(warning.message) for warning in warned] == [True]
    assert held(tmp_path) == files
    assert_same(index.select(QUESTIONS[1], top_k=ALL), expected)
    assert rows_read(xl3m, index) == 0  # and nothing warns any more: warnings are errors here


def test_no_changed_byte_and_no_cut_goes_unnoticed(tmp_path: Path):
    files = KVFiles(tmp_path, "a")
    files.put(KEYS[0], block(layers=1))
    (path,) = held(tmp_path)
    data = path.read_bytes()
    changed = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))]
    for hurt in [*changed, *(data[:at] for at in range(len(data)))]:
        path.write_bytes(hurt)
        with pytest.warns(UserWarning, match="is computed again"):
            assert files.get(KEYS[0], "cpu") is None
        assert not path.exists()


def test_a_file_under_another_ones_name_is_not_taken_for_it(tmp_path: Path):
    files = KVFiles(tmp_path, "a")
    files.put(KEYS[0], block(0))
    (first,) = held(tmp_path)
    files.put(KEYS[1], block(1))
    (second,) = {*held(tmp_path)} - {first}
    os.replace(first, second)
    with pytest.warns(UserWarning, match="another model, version or text"):
        assert files.get(KEYS[1], "cpu") is None


@pytest.mark.parametrize("settings", [{"model": make_model(seed=5)}, {"exit_layer": 1}])
def test_another_model_finds_nothing_of_this_one(settings: dict[str, Any], tmp_path: Path):
    expected = engine().index(TEXT, cache_bytes=0, cache_dir=tmp_path).select(QUESTIONS[0])
    files = {path: path.read_bytes() for path in held(tmp_path)}
    made: dict[str, Any] = {"model": shared_model(), "tokenizer": shared_tokenizer(), "batch_tokens": 100, **settings}
    other = XL3M(TransformersBackend(**made))
    index = other.index(TEXT, cache_bytes=0, cache_dir=tmp_path)
    found = index.select(QUESTIONS[0], top_k=ALL)
    assert_same(found, other.select(TEXT, QUESTIONS[0], top_k=ALL))
    assert found.scores != pytest.approx(expected.scores, abs=1e-4)
    assert len(held(tmp_path)) == 2 * len(files)
    assert {path: path.read_bytes() for path in files} == files


# ---------------------------------------------------------------------------------------------- the limit
def size_of_one(folder: Path) -> int:
    KVFiles(folder, "a").put(KEYS[0], block())
    return sum(path.stat().st_size for path in held(folder))


def age(folder: Path, *before: int) -> None:
    """Let the files be last used in the order of their numbers, all long ago."""
    for path, order in zip(held(folder), before, strict=True):
        os.utime(path, (order, order))


def test_the_least_recently_used_go_out(tmp_path: Path):
    size = size_of_one(tmp_path / "one")
    folder = tmp_path / "files"
    files = KVFiles(folder, "a", 3 * size)
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
    limit = sum(path.stat().st_size for path in held(tmp_path / "whole")) // 2
    folder = tmp_path / "half"
    for _ in range(2):  # the second time as a later process does
        index = xl3m.index(TEXT, cache_bytes=0, cache_dir=folder, cache_dir_bytes=limit)
        for question in QUESTIONS:
            assert_same(index.select(question, top_k=ALL), xl3m.select(TEXT, question, top_k=ALL))
            assert sum(path.stat().st_size for path in held(folder)) <= limit
        assert 0.3 * everything <= everything - rows_read(xl3m, index) <= 0.6 * everything


def test_another_text_takes_the_place_of_what_is_long_unused(tmp_path: Path):
    xl3m = engine()
    xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path).select(QUESTIONS[0])
    limit = sum(path.stat().st_size for path in held(tmp_path))
    age(tmp_path, *range(1, len(held(tmp_path)) + 1))
    other = xl3m.index(text_of(1_200, seed=9), cache_bytes=0, cache_dir=tmp_path, cache_dir_bytes=limit)
    other.select(QUESTIONS[0])
    assert rows_read(xl3m, other) == 0
    assert sum(path.stat().st_size for path in held(tmp_path)) <= limit


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
    size = size_of_one(tmp_path / "one")
    files = KVFiles(tmp_path, "a", size)
    for number in range(3):
        files.put(KEYS[number], block(number))
        age(tmp_path, *[1] * len(held(tmp_path)))
    assert [files.get(key, "cpu") is not None for key in KEYS[:3]] == [False, False, True]
    assert all((tmp_path / name).read_bytes() == b"0" * 5_000 for name in theirs)


# ---------------------------------------------------------------------------------------------- what goes wrong
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


def test_threads_and_indexes_share_a_folder(tmp_path: Path):
    xl3m = engine()
    expected = [xl3m.select(TEXT, question, top_k=ALL) for question in QUESTIONS]
    whole = xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path / "whole")
    whole.select("Who?")
    limit = sum(path.stat().st_size for path in held(tmp_path / "whole")) // 2
    folder = tmp_path / "shared"
    indexes = [xl3m.index(TEXT, cache_bytes=0, cache_dir=folder, cache_dir_bytes=limit) for _ in range(2)]
    barrier = threading.Barrier(6)

    def ask(number: int) -> Selection:
        barrier.wait()
        return indexes[number % 2].select(QUESTIONS[number % 3], top_k=ALL)

    with ThreadPoolExecutor(6) as pool:
        for found, plain in zip(pool.map(ask, range(6)), expected * 2, strict=True):
            assert_same(found, plain)
    assert all(path.suffix == ".safetensors" for path in held(folder))


def test_a_shrunk_memory_still_has_its_files(tmp_path: Path):
    cache = KVCache(1 << 20, KVFiles(tmp_path, "a"))
    cache.put(KEYS[0], block(3))
    cache.clear()
    assert same(cache.get(KEYS[0]), block(3)) and cache.nbytes == block().nbytes
    cache.shrink()
    assert same(cache.get(KEYS[0]), block(3))
