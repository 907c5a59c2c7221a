"""Files of keys and values that cannot be used: told from what they are not, and computed again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from indexes import ALL, QUESTIONS, TEXT
from kv_blocks import KEYS, block, engine, held, rows_read
from models import assert_same, make_model, shared_model, shared_tokenizer
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from xl3m_integrations import XL3M
from xl3m_integrations.backends.kv_files import KVFiles
from xl3m_integrations.backends.transformers import TransformersBackend


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
