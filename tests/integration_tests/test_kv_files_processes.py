"""Processes that share a folder of keys and values: one that is done, one that is interrupted (SIGINT)."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from xl3m_integrations import XL3M
from xl3m_integrations.bundled import corpus

CHARACTERS = 12_000
SETTINGS = {"device": "cpu", "dtype": "float32", "batch_tokens": 640}
WRITTEN = 3  # files, before the process stops in the midst of writing the next

# Says what it does line by line; told to stop, it waits with a file written but not yet moved to its place.
PROGRAM = f"""
import gc, json, os, signal, sys
import torch
from xl3m_integrations import XL3M

folder, stops, text, question = json.load(sys.stdin)
replace, moved = os.replace, []

def waiting(old, new):
    if stops and str(new).endswith(".safetensors") and len(moved) == {WRITTEN}:
        print("writing", flush=True)
        signal.pause()
    moved.append(new)
    replace(old, new)

def alive():
    gc.collect()
    return sum(thing.nbytes for thing in gc.get_objects() if type(thing) is torch.Tensor)

xl3m = XL3M.default(**{SETTINGS!r})
assert xl3m.scorer.sharing and xl3m.scorer.fingerprint
before = alive()
os.replace = waiting
index = xl3m.index(text, cache_dir=folder)
try:
    print(json.dumps(index.select(question).scores), flush=True)
except KeyboardInterrupt:
    print("interrupted")
del index
print("bytes held:", alive() - before, flush=True)
"""


@contextmanager
def process(folder: Path, text: str, question: str, stops: bool = False) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdin
        json.dump([str(folder), stops, text, question], running.stdin)
        running.stdin.close()
        yield running


@pytest.fixture(scope="module")
def asked() -> tuple[str, str]:
    """A text and a question of it."""
    rng = random.Random(3)
    fact = corpus.register_fact(rng)
    return "".join(corpus.stream_document(rng, [(0.4, fact)], CHARACTERS)), fact.question


def test_a_later_process_finds_what_an_earlier_one_has_computed(
    tmp_path: Path, asked: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with process(tmp_path, *asked) as earlier:
        assert earlier.stdout
        scores = json.loads(earlier.stdout.read().splitlines()[0])
    assert earlier.returncode == 0
    xl3m = XL3M.default(**SETTINGS)  # type: ignore[arg-type]
    assert xl3m.select(*asked).scores == pytest.approx(scores, abs=1e-4)
    index = xl3m.index(asked[0], cache_bytes=0, cache_dir=tmp_path)
    monkeypatch.setattr("xl3m_integrations.backends.shared_pass.read", None)  # so that no segment can be read anew
    assert index.select(asked[1]).scores == pytest.approx(scores, abs=1e-4)


def test_a_process_interrupted_while_it_writes_leaves_whole_files_alone(tmp_path: Path, asked: tuple[str, str]) -> None:
    with process(tmp_path, *asked, stops=True) as stopped:
        assert stopped.stdout
        assert stopped.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == WRITTEN + 1
        stopped.send_signal(signal.SIGINT)
        assert stopped.stdout.read() == "interrupted\nbytes held: 0\n"
    assert stopped.returncode == 0
    files = {*tmp_path.iterdir()}
    assert len(files) == WRITTEN and {path.suffix for path in files} == {".safetensors"}
    xl3m = XL3M.default(**SETTINGS)  # type: ignore[arg-type]
    index = xl3m.index(asked[0], cache_dir=tmp_path)
    assert index.select(asked[1]).scores == pytest.approx(xl3m.select(*asked).scores, abs=1e-4)
    assert files < {*tmp_path.iterdir()}
