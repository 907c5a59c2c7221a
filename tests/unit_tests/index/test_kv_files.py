"""Keys and values in files: what comes from them equals what was never kept."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from indexes import ALL, QUESTIONS, TEXT
from kv_blocks import KEYS, block, engine, held, rows_read, same, size
from models import ARCHITECTURES, assert_same, make_model, make_tokenizer, text_of
from safetensors import safe_open

from xl3m_integrations import XL3M, Selection
from xl3m_integrations.backends.kv_cache import KVCache
from xl3m_integrations.backends.kv_files import KVFiles
from xl3m_integrations.backends.transformers import TransformersBackend


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
    texts = [text_of(characters, seed=characters) for characters in (400, 900, 30)]
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


def test_threads_and_indexes_share_a_folder(tmp_path: Path):
    xl3m = engine()
    expected = [xl3m.select(TEXT, question, top_k=ALL) for question in QUESTIONS]
    whole = xl3m.index(TEXT, cache_bytes=0, cache_dir=tmp_path / "whole")
    whole.select("Who?")
    limit = size(tmp_path / "whole") // 2
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
